/*
 * What a killed operator has left: as it stands on the machine, as the library says, and whether the two agree. An
 * inspector is a process of its own, which opens what is left; how operators are killed is the business of killing.h.
 */
#ifndef INSPECTION_H
#define INSPECTION_H

#include "example.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_VMS = 64 };

static struct example where;
static const char *keeper;   /* or NULL */
static char state[2048];     /* the state directory that is used now */
static long first_user;      /* of those that jailed VMMs run as */
static char found[32768];    /* what an inspector has found, told when it is not right */

static inline void require(int condition, const char *what, int line) {
  if (condition) return;
  fprintf(stderr, "WRONG: line %d: %s\n", line, what);
  if (found[0] != '\0') fprintf(stderr, "what was found:\n%s", found);
  _exit(1);
}
#define REQUIRE(condition) require((condition), #condition, __LINE__)

static inline uint64_t now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static inline void sleep_us(uint64_t us) {
  struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
  while (nanosleep(&time, &time) == -1 && errno == EINTR) {}
}

/* splitmix64: good enough, and the same everywhere. */
static inline uint64_t draw(uint64_t *seed) {
  uint64_t drawn = *seed += 0x9e3779b97f4a7c15;
  drawn = (drawn ^ (drawn >> 30)) * 0xbf58476d1ce4e5b9;
  drawn = (drawn ^ (drawn >> 27)) * 0x94d049bb133111eb;
  return drawn ^ (drawn >> 31);
}

/* ---- What is there, without asking the library ---- */

/* Calls `look` with each name in a directory; a directory that is not there has none. */
static inline void each_name(const char *path, void (*look)(const char *name, void *argument), void *argument) {
  DIR *directory = opendir(path);
  struct dirent *entry;
  if (directory == NULL) return;
  while ((entry = readdir(directory)) != NULL)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) look(entry->d_name, argument);
  closedir(directory);
}

struct process {
  int pid;
  char cwd[2300];
};

struct processes {
  int count;
  struct process of[MOST_VMS];
};

static inline int link_of(int pid, const char *name, char *target, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/%d/%s", pid, name);
  ssize_t length = readlink(link, target, size - 1);
  if (length < 0) return 0;
  target[length] = '\0';
  return 1;
}

/* A zombie has no working directory any more, and does not count. That of a jailed process is told by its console. */
static inline int cwd_of(int pid, char *cwd, size_t size) {
  if (!link_of(pid, "cwd", cwd, size)) return 0;
  if (strcmp(cwd, "/") != 0) return 1;
  char *console = link_of(pid, "fd/1", cwd, size) ? strstr(cwd, "/console.log") : NULL;
  strcpy(console != NULL ? console : cwd, console != NULL ? "/vmm" : "/");
  return 1;
}

static inline void look_at_process(const char *name, void *argument) {
  struct processes *all = argument;
  struct process process = {.pid = atoi(name)};
  if (process.pid <= 0 || !cwd_of(process.pid, process.cwd, sizeof process.cwd)) return;
  size_t length = strlen(state);
  if (strncmp(process.cwd, state, length) != 0 || process.cwd[length] != '/') return;
  REQUIRE(all->count < MOST_VMS);
  all->of[all->count++] = process;
}

/* Every process whose working directory is below the state directory: all VMMs of it, whatever else is known. */
static inline struct processes processes_below(void) {
  struct processes all = {0};
  each_name("/proc", look_at_process, &all);
  return all;
}

static inline void count_name(const char *name, void *argument) {
  (void)name;
  ++*(int *)argument;
}

static inline int count_entries(const char *path) {
  int count = 0;
  each_name(path, count_name, &count);
  return count;
}

/* What an operator notes of itself, in memory that outlives it. */
struct diary {
  atomic_int calls_done;
  atomic_int ending[256]; /* the VMs that it is about to end, by their id */
};
static struct diary *diary;

static inline atomic_int *ending(const char *id) {
  unsigned hash = 2166136261;
  for (; *id != '\0'; id++) hash = (hash ^ (unsigned char)*id) * 16777619;
  return &diary->ending[hash % 256];
}

/* Where a text is written piece by piece. */
struct pen {
  char *at, *end;
  const char *path;
};

static inline void describe_entry(const char *name, void *argument) {
  struct pen *pen = argument;
  char path[4096], text[1200];
  struct stat about;
  snprintf(path, sizeof path, "%s/%s", pen->path, name);
  if (lstat(path, &about) != 0) return;
  pen->at += snprintf(pen->at, (size_t)(pen->end - pen->at), "  %s%s (%ld bytes)\n", path + strlen(state),
                      S_ISDIR(about.st_mode) ? "/" : S_ISSOCK(about.st_mode) ? "=" : "", (long)about.st_size);
  if (pen->end - pen->at < 4096) return;
  if (S_ISDIR(about.st_mode)) {
    struct pen below = {pen->at, pen->end, path};
    each_name(path, describe_entry, &below);
    pen->at = below.at;
  } else if (strstr(name, "journal.json") != NULL) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length < 0 ? 0 : length] = '\0';
    pen->at += snprintf(pen->at, (size_t)(pen->end - pen->at), "    %s", text);
  }
}

/* The state directory, its journals, and the processes in it. */
static inline void describe(char *text, size_t size) {
  struct pen pen = {text, text + size, state};
  struct processes all = processes_below();
  *text = '\0';
  each_name(state, describe_entry, &pen);
  for (int i = 0; i < all.count && pen.end - pen.at > 4096; i++)
    pen.at += snprintf(pen.at, (size_t)(pen.end - pen.at), "  process %d in %s\n", all.of[i].pid,
                       all.of[i].cwd + strlen(state));
}

/* ---- What the library says is there ---- */

struct list {
  int count;
  mvm_vm_summary of[MOST_VMS];
};

static inline struct list list_of(mvm_runtime *runtime) {
  struct list list = {0};
  mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
  for (MUST(mvm_runtime_next_vm(runtime, NULL, &vm)); vm.id[0] != '\0';
       MUST(mvm_runtime_next_vm(runtime, vm.id, &vm))) {
    REQUIRE(list.count < MOST_VMS);
    list.of[list.count++] = vm;
  }
  return list;
}

static inline const mvm_vm_summary *find(const struct list *list, const char *id) {
  for (int i = 0; i < list->count; i++)
    if (strcmp(list->of[i].id, id) == 0) return &list->of[i];
  return NULL;
}

/* Whether it has a VMM. */
static inline int is_alive(const mvm_vm_summary *vm) {
  int alive = vm->state == MVM_STATE_CREATED || vm->state == MVM_STATE_RUNNING || vm->state == MVM_STATE_PAUSED;
  REQUIRE(alive || vm->state == MVM_STATE_STOPPED || vm->state == MVM_STATE_FAILED);
  REQUIRE((vm->pid > 0) == alive && (vm->exit_kind == MVM_EXIT_NONE) == alive);
  return alive;
}

static inline int alive_in(const struct list *list) {
  int count = 0;
  for (int i = 0; i < list->count; i++) count += is_alive(&list->of[i]);
  return count;
}

/* Every id of this test ends by what its spec says, so that the library need not be asked. */
static inline int ends_with_owner(const char *id) { return strstr(id, "-kill") != NULL; }

static inline const char *in_state(const char *name) {
  static _Thread_local char path[2300];
  snprintf(path, sizeof path, "%s/%s", state, name);
  return path;
}

static inline const char *path_of(const char *id, const char *file) {
  static _Thread_local char path[2300];
  snprintf(path, sizeof path, "%s/vms/%s%s", state, id, file);
  return path;
}

/* ---- The inspection ---- */

static inline void await_keeper(void) {
  uint64_t began = now_us();
  for (int left = 1; left > 0;) {
    struct processes all = processes_below();
    left = 0;
    for (int i = 0; i < all.count; i++) left += ends_with_owner(all.of[i].cwd + strlen(state));
    REQUIRE(left == 0 || now_us() - began < 5000000);
    if (left > 0) sleep_us(5000);
  }
}

/*
 * A VMM that was sent SIGKILL when its operator was killed lives on for some moments, and may be adopted in them. For
 * these VMs, and no others, it is awaited whether they end.
 */
static inline void await_endings(mvm_runtime *runtime) {
  struct list list = list_of(runtime);
  mvm_exit how = MVM_EXIT_INIT;
  for (int i = 0; i < list.count; i++) {
    mvm_vm *vm;
    if (!is_alive(&list.of[i]) || !atomic_load(ending(list.of[i].id))) continue;
    MUST(mvm_open(runtime, list.of[i].id, &vm));
    mvm_status status = mvm_wait(vm, 300, &how);
    if (status != MVM_ERR_TIMEOUT) MUST(status);
    MUST(mvm_release(vm));
  }
}

/* All that was found is told as running or as ended, and nothing was beyond understanding. */
static inline void check_report(mvm_runtime *runtime, const struct list *list) {
  char *json, quoted[80];
  MUST(mvm_runtime_report(runtime, &json));
  if (strstr(json, "\"left_alone\":[]") == NULL) fprintf(stderr, "the report: %s\n", json);
  REQUIRE(strstr(json, "\"left_alone\":[]") != NULL);
  char *adopted = strstr(json, "\"adopted\":[");
  REQUIRE(adopted != NULL && strstr(json, "\"ended\":[") != NULL && strchr(adopted, ']') != NULL);
  for (int i = 0; i < list->count; i++) {
    snprintf(quoted, sizeof quoted, "\"%s\"", list->of[i].id);
    char *told = strstr(adopted, quoted), *end = strchr(adopted, ']');
    int adopted_it = told != NULL && told < end;
    snprintf(quoted, sizeof quoted, "{\"id\":\"%s\"", list->of[i].id);
    REQUIRE((strstr(json, quoted) != NULL) == !adopted_it);
    REQUIRE(adopted_it == is_alive(&list->of[i]));
  }
  mvm_string_free(json);
}

static inline int pid_of(mvm_vm *vm) {
  int32_t pid;
  mvm_status status = mvm_pid(vm, &pid);
  REQUIRE(status == MVM_OK || status == MVM_ERR_BAD_STATE);
  return pid;
}

static inline void check_processes(mvm_runtime *runtime, const struct list *list) {
  struct processes all = processes_below();
  char cwd[2300];
  for (int i = 0; i < list->count; i++) {
    mvm_vm *vm;
    MUST(mvm_open(runtime, list->of[i].id, &vm));
    int pid = pid_of(vm), alive = is_alive(&list->of[i]);
    REQUIRE((pid > 0) == alive);
    if (alive) {
      REQUIRE(!ends_with_owner(list->of[i].id));
      REQUIRE(kill(pid, 0) == 0 && cwd_of(pid, cwd, sizeof cwd));
      REQUIRE(strcmp(cwd, path_of(list->of[i].id, "/vmm")) == 0);
    }
    MUST(mvm_release(vm));
  }
  REQUIRE(all.count == alive_in(list));
}

static inline void check_file(const char *name, void *argument) {
  const mvm_vm_summary *vm = argument;
  size_t length = strlen(name);
  /* Nothing that was half written is left, but metrics, which the next writing replaces; and no socket without its VMM. */
  REQUIRE(length < 4 || strcmp(name + length - 4, ".new") != 0 || strcmp(name, "metrics.json.new") == 0);
  REQUIRE(strcmp(name, "api.sock") != 0 || is_alive(vm));
}

static inline void check_entry(const char *name, void *argument) {
  const mvm_vm_summary *vm = find(argument, name);
  REQUIRE(vm != NULL); /* what stands there belongs to a VM that is listed */
  REQUIRE(access(path_of(name, "/journal.json"), F_OK) == 0 && access(path_of(name, "/spec.json"), F_OK) == 0);
  each_name(path_of(name, ""), check_file, (void *)vm);
  each_name(path_of(name, "/vmm"), check_file, (void *)vm);
}

static inline void check_files(const struct list *list) {
  REQUIRE(count_entries(path_of("", "")) == list->count);
  each_name(path_of("", ""), check_entry, (void *)list);
  int snapshots = access(in_state("snapshots"), F_OK) == 0;
  REQUIRE(keeper != NULL || count_entries(state) == 2 + snapshots); /* the lock and the VMs */
}

static inline void must_be(mvm_vm *vm, mvm_vm_state wanted) {
  mvm_vm_state is;
  MUST(mvm_state(vm, &is));
  REQUIRE(is == wanted);
}

/* What runs does as it is told. */
static inline void control(mvm_runtime *runtime, const struct list *list) {
  for (int i = 0; i < list->count; i++) {
    mvm_vm *vm;
    if (!is_alive(&list->of[i])) continue;
    MUST(mvm_open(runtime, list->of[i].id, &vm));
    if (list->of[i].state == MVM_STATE_CREATED) MUST(mvm_start(vm));
    if (list->of[i].state == MVM_STATE_PAUSED) MUST(mvm_resume(vm));
    MUST(mvm_pause(vm));
    must_be(vm, MVM_STATE_PAUSED);
    MUST(mvm_resume(vm));
    must_be(vm, MVM_STATE_RUNNING);
    MUST(mvm_release(vm));
  }
}

static inline void reap(mvm_runtime *runtime) {
  char *json;
  MUST(mvm_runtime_reap(runtime, 0, &json));
  int clean = strstr(json, "\"failed\":[]") != NULL && strstr(json, "\"left_alone\":[]") != NULL &&
              strstr(json, "\"undone\":[]") != NULL;
  if (!clean) fprintf(stderr, "the reaping: %s\n", json);
  REQUIRE(clean);
  mvm_string_free(json);
  struct list list = list_of(runtime);
  for (int i = 0; i < list.count; i++) REQUIRE(is_alive(&list.of[i]));
  check_files(&list);
  check_processes(runtime, &list);
}

static inline void destroy_all(mvm_runtime *runtime) {
  struct list list = list_of(runtime);
  for (int i = 0; i < list.count; i++) {
    mvm_vm *vm;
    MUST(mvm_open(runtime, list.of[i].id, &vm));
    MUST(mvm_destroy(vm));
    MUST(mvm_release(vm));
  }
  REQUIRE(list_of(runtime).count == 0);
}

static inline mvm_runtime *open_runtime(void) {
  mvm_runtime *runtime;
  MUST(mvm_runtime_open(state, where.options, &runtime));
  return runtime;
}

/* All of it was found: it is told, it is as it is told, and there is nothing else. */
static inline struct list look(mvm_runtime *runtime) {
  await_endings(runtime);
  struct list list = list_of(runtime);
  check_report(runtime, &list);
  check_processes(runtime, &list);
  check_files(&list);
  return list;
}

enum { USERS = 100 };

/* A user is leased for each VMM that lives, and for no other. */
static inline int count_leases(void) {
  char path[64];
  struct stat about;
  int count = 0;
  for (long user = first_user; user < first_user + USERS; user++) {
    snprintf(path, sizeof path, "/run/mvm/uids/%ld", user);
    count += lstat(path, &about) == 0;
  }
  return count;
}

static inline void leave_nothing(mvm_runtime *runtime) {
  reap(runtime);
  destroy_all(runtime);
  REQUIRE(count_leases() == 0);
  MUST(mvm_runtime_close(runtime));
  REQUIRE(count_entries(path_of("", "")) == 0);
  REQUIRE(processes_below().count == 0);
  int child = waitpid(-1, NULL, WNOHANG);
  REQUIRE(keeper != NULL ? child <= 0 : child == -1 && errno == ECHILD);
  MUST(mvm_runtime_close(open_runtime()));
}

static inline mvm_runtime *open_as_inspector(void) {
  describe(found, sizeof found);
  if (keeper != NULL) await_keeper();
  return open_runtime();
}

/* ---- Processes of the tester ---- */

/* Runs `inspect` in a process of its own; says whether it was content. */
static inline int is_well(void (*inspect)(void)) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    inspect();
    _exit(0);
  }
  REQUIRE(waitpid(child, &status, 0) == child);
  return status == 0;
}

/* Whether it was killed; an operator that ends otherwise has failed by itself, and said why. */
static inline int was_killed(pid_t operator) {
  int status = 0;
  do REQUIRE(waitpid(operator, &status, 0) == operator);
  while (WIFSTOPPED(status));
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static inline int kill_operator(pid_t operator) {
  kill(operator, SIGKILL);
  return was_killed(operator);
}

static inline void check_promise(const struct list *list, const char *id, const char *allowed) {
  const mvm_vm_summary *vm = find(list, id);
  char is = vm == NULL ? '-' : is_alive(vm) ? *mvm_state_name(vm->state) : 's';
  int done = atomic_load(&diary->calls_done);
  if (strchr(allowed, is) == NULL)
    fprintf(stderr, "%s is found as '%c', may be '%s' after %d calls\n", id, is, allowed, done);
  REQUIRE(strchr(allowed, is) != NULL);
}

#endif
