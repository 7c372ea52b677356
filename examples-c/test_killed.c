/*
 * An operator that is killed by SIGKILL, at any instant, leaves nothing that the next start does not find.
 *
 * The processes: main is the init of all others, and reaps what has lost its parent. Below it a tester forks
 * operators, kills them, and forks inspectors, which open what is left. The tester never calls the library, so that
 * each of its children may.
 *
 * An optional fourth argument names the keeper: then VMs that are to end with their owner are gone before anybody
 * opens the runtime again.
 */
#include "example.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, MOST_VMS = 64, ROUNDS = 500, THREADS = 4, BUDGET_MS = 90000 };

static struct example where;
static const char *keeper;   /* or NULL */
static char state[2048];     /* the state directory that is used now */
static char found[32768];    /* what an inspector has found, told when it is not right */

static void require(int condition, const char *what, int line) {
  if (condition) return;
  fprintf(stderr, "WRONG: line %d: %s\n", line, what);
  if (found[0] != '\0') fprintf(stderr, "what was found:\n%s", found);
  _exit(1);
}
#define REQUIRE(condition) require((condition), #condition, __LINE__)

static uint64_t now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void sleep_us(uint64_t us) {
  struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
  while (nanosleep(&time, &time) == -1 && errno == EINTR) {}
}

/* splitmix64: good enough, and the same everywhere. */
static uint64_t draw(uint64_t *seed) {
  uint64_t drawn = *seed += 0x9e3779b97f4a7c15;
  drawn = (drawn ^ (drawn >> 30)) * 0xbf58476d1ce4e5b9;
  drawn = (drawn ^ (drawn >> 27)) * 0x94d049bb133111eb;
  return drawn ^ (drawn >> 31);
}

/* ---- What is there, without asking the library ---- */

/* Calls `look` with each name in a directory; a directory that is not there has none. */
static void each_name(const char *path, void (*look)(const char *name, void *argument), void *argument) {
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

/* A zombie has no working directory any more, and does not count. */
static int cwd_of(int pid, char *cwd, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/%d/cwd", pid);
  ssize_t length = readlink(link, cwd, size - 1);
  if (length < 0) return 0;
  cwd[length] = '\0';
  return 1;
}

static void look_at_process(const char *name, void *argument) {
  struct processes *all = argument;
  struct process process = {.pid = atoi(name)};
  if (process.pid <= 0 || !cwd_of(process.pid, process.cwd, sizeof process.cwd)) return;
  size_t length = strlen(state);
  if (strncmp(process.cwd, state, length) != 0 || process.cwd[length] != '/') return;
  REQUIRE(all->count < MOST_VMS);
  all->of[all->count++] = process;
}

/* Every process whose working directory is below the state directory: all VMMs of it, whatever else is known. */
static struct processes processes_below(void) {
  struct processes all = {0};
  each_name("/proc", look_at_process, &all);
  return all;
}

static void count_name(const char *name, void *argument) {
  (void)name;
  ++*(int *)argument;
}

static int count_entries(const char *path) {
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

static atomic_int *ending(const char *id) {
  unsigned hash = 2166136261;
  for (; *id != '\0'; id++) hash = (hash ^ (unsigned char)*id) * 16777619;
  return &diary->ending[hash % 256];
}

/* Where a text is written piece by piece. */
struct pen {
  char *at, *end;
  const char *path;
};

static void describe_entry(const char *name, void *argument) {
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
static void describe(char *text, size_t size) {
  struct pen pen = {text, text + size, state};
  struct processes all = processes_below();
  *text = '\0';
  each_name(state, describe_entry, &pen);
  for (int i = 0; i < all.count && pen.end - pen.at > 4096; i++)
    pen.at += snprintf(pen.at, (size_t)(pen.end - pen.at), "  process %d in %s\n", all.of[i].pid,
                       all.of[i].cwd + strlen(state));
}

/* ---- What the library says is there ---- */

struct listed {
  char id[72], state[16];
};

struct list {
  int count;
  struct listed of[MOST_VMS];
};

static struct list list_of(mvm_runtime *runtime) {
  struct list list = {0};
  char *json;
  MUST(mvm_runtime_list(runtime, &json));
  for (const char *at = json; (at = strstr(at, "{\"id\":")) != NULL; at++) {
    struct listed *vm = &list.of[list.count++];
    REQUIRE(list.count < MOST_VMS);
    REQUIRE(sscanf(at, "{\"id\":\"%71[^\"]\",\"state\":\"%15[^\"]\"}", vm->id, vm->state) == 2);
  }
  mvm_string_free(json);
  return list;
}

static const struct listed *find(const struct list *list, const char *id) {
  for (int i = 0; i < list->count; i++)
    if (strcmp(list->of[i].id, id) == 0) return &list->of[i];
  return NULL;
}

/* Whether it has a VMM. */
static int is_alive(const struct listed *vm) {
  int alive =
      strcmp(vm->state, "created") == 0 || strcmp(vm->state, "running") == 0 || strcmp(vm->state, "paused") == 0;
  REQUIRE(alive || strcmp(vm->state, "stopped") == 0 || strcmp(vm->state, "failed") == 0);
  return alive;
}

static int alive_in(const struct list *list) {
  int count = 0;
  for (int i = 0; i < list->count; i++) count += is_alive(&list->of[i]);
  return count;
}

/* Every id of this test ends by what its spec says, so that the library need not be asked. */
static int ends_with_owner(const char *id) { return strstr(id, "-kill") != NULL; }

static const char *path_of(const char *id, const char *file) {
  static _Thread_local char path[2300];
  snprintf(path, sizeof path, "%s/vms/%s%s", state, id, file);
  return path;
}

/* ---- The inspection ---- */

static void await_keeper(void) {
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
static void await_endings(mvm_runtime *runtime) {
  struct list list = list_of(runtime);
  mvm_exit how = {.size = sizeof how};
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
static void check_report(mvm_runtime *runtime, const struct list *list) {
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

static int pid_in_info(mvm_vm *vm) {
  char *json;
  MUST(mvm_info(vm, &json));
  const char *at = strstr(json, "\"pid\":");
  REQUIRE(at != NULL);
  int pid = atoi(at + strlen("\"pid\":")); /* null is 0 */
  mvm_string_free(json);
  return pid;
}

static void check_processes(mvm_runtime *runtime, const struct list *list) {
  struct processes all = processes_below();
  char cwd[2300];
  for (int i = 0; i < list->count; i++) {
    mvm_vm *vm;
    MUST(mvm_open(runtime, list->of[i].id, &vm));
    int pid = pid_in_info(vm), alive = is_alive(&list->of[i]);
    REQUIRE((pid > 0) == alive);
    if (alive) {
      REQUIRE(!ends_with_owner(list->of[i].id));
      REQUIRE(kill(pid, 0) == 0 && cwd_of(pid, cwd, sizeof cwd));
      REQUIRE(strcmp(cwd, path_of(list->of[i].id, "")) == 0);
    }
    MUST(mvm_release(vm));
  }
  REQUIRE(all.count == alive_in(list));
}

static void check_file(const char *name, void *argument) {
  const struct listed *vm = argument;
  size_t length = strlen(name);
  /* Nothing that was half written is left, but metrics, which the next writing replaces; and no socket without its VMM. */
  REQUIRE(length < 4 || strcmp(name + length - 4, ".new") != 0 || strcmp(name, "metrics.json.new") == 0);
  REQUIRE(strcmp(name, "api.sock") != 0 || is_alive(vm));
}

static void check_entry(const char *name, void *argument) {
  const struct listed *vm = find(argument, name);
  REQUIRE(vm != NULL); /* what stands there belongs to a VM that is listed */
  REQUIRE(access(path_of(name, "/journal.json"), F_OK) == 0 && access(path_of(name, "/spec.json"), F_OK) == 0);
  each_name(path_of(name, ""), check_file, (void *)vm);
}

static void check_files(const struct list *list) {
  REQUIRE(count_entries(path_of("", "")) == list->count);
  each_name(path_of("", ""), check_entry, (void *)list);
  REQUIRE(keeper != NULL || count_entries(state) == 2); /* the lock and the VMs */
}

static void must_be(mvm_vm *vm, mvm_vm_state wanted) {
  mvm_vm_state is;
  MUST(mvm_state(vm, &is));
  REQUIRE(is == wanted);
}

/* What runs does as it is told. */
static void control(mvm_runtime *runtime, const struct list *list) {
  for (int i = 0; i < list->count; i++) {
    mvm_vm *vm;
    if (!is_alive(&list->of[i])) continue;
    MUST(mvm_open(runtime, list->of[i].id, &vm));
    if (strcmp(list->of[i].state, "created") == 0) MUST(mvm_start(vm));
    if (strcmp(list->of[i].state, "paused") == 0) MUST(mvm_resume(vm));
    MUST(mvm_pause(vm));
    must_be(vm, MVM_STATE_PAUSED);
    MUST(mvm_resume(vm));
    must_be(vm, MVM_STATE_RUNNING);
    MUST(mvm_release(vm));
  }
}

static void reap(mvm_runtime *runtime) {
  char *json;
  MUST(mvm_runtime_reap(runtime, NULL, &json));
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

static void destroy_all(mvm_runtime *runtime) {
  struct list list = list_of(runtime);
  for (int i = 0; i < list.count; i++) {
    mvm_vm *vm;
    MUST(mvm_open(runtime, list.of[i].id, &vm));
    MUST(mvm_destroy(vm));
    MUST(mvm_release(vm));
  }
  REQUIRE(list_of(runtime).count == 0);
}

static mvm_runtime *open_runtime(void) {
  mvm_runtime *runtime;
  MUST(mvm_runtime_open(state, where.options, &runtime));
  return runtime;
}

/* All of it was found: it is told, it is as it is told, and there is nothing else. */
static struct list look(mvm_runtime *runtime) {
  await_endings(runtime);
  struct list list = list_of(runtime);
  check_report(runtime, &list);
  check_processes(runtime, &list);
  check_files(&list);
  return list;
}

static void leave_nothing(mvm_runtime *runtime) {
  reap(runtime);
  destroy_all(runtime);
  MUST(mvm_runtime_close(runtime));
  REQUIRE(count_entries(path_of("", "")) == 0);
  REQUIRE(processes_below().count == 0);
  int child = waitpid(-1, NULL, WNOHANG);
  REQUIRE(keeper != NULL ? child <= 0 : child == -1 && errno == ECHILD);
  MUST(mvm_runtime_close(open_runtime()));
}

static mvm_runtime *open_as_inspector(void) {
  describe(found, sizeof found);
  if (keeper != NULL) await_keeper();
  return open_runtime();
}

/* ---- Processes of the tester ---- */

/* Runs `inspect` in a process of its own; says whether it was content. */
static int is_well(void (*inspect)(void)) {
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
static int was_killed(pid_t operator) {
  int status = 0;
  do REQUIRE(waitpid(operator, &status, 0) == operator);
  while (WIFSTOPPED(status));
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static int kill_operator(pid_t operator) {
  kill(operator, SIGKILL);
  return was_killed(operator);
}

/* ---- A script, and what each of its calls may leave ---- */

struct shared {
  atomic_int failed;     /* some worker */
  atomic_int kills;      /* all workers together */
};
static struct shared *shared; /* among all processes of this test */

#define DO(call) (MUST(call), (void)atomic_fetch_add(&diary->calls_done, 1))
#define END(id, call) (atomic_store(ending(id), 1), DO(call), atomic_store(ending(id), 0))

static const char *spec_of(const char *id, char *spec, size_t size) {
  example_spec(&where, "halt", spec, size);
  if (ends_with_owner(id)) strcpy(strrchr(spec, '}'), ",\"mvm\":{\"on_owner_exit\":\"kill\"}}");
  return spec;
}

static void script(void) {
  mvm_runtime *runtime;
  mvm_vm *a, *b, *c;
  char spec[8192];
  DO(mvm_runtime_open(state, where.options, &runtime));
  DO(mvm_create(runtime, "a-keep", spec_of("a-keep", spec, sizeof spec), &a));
  DO(mvm_start(a));
  DO(mvm_pause(a));
  DO(mvm_resume(a));
  DO(mvm_create(runtime, "b-kill", spec_of("b-kill", spec, sizeof spec), &b));
  DO(mvm_start(b));
  END("a-keep", mvm_shutdown(a, 0, 0, NULL));
  DO(mvm_start(a));
  END("b-kill", mvm_destroy(b));
  DO(mvm_create(runtime, "c-keep", spec_of("c-keep", spec, sizeof spec), &c));
  END("a-keep", mvm_destroy(a));
  DO(mvm_runtime_close(runtime));
}

/*
 * As what a VM may be found when so many calls are done: by its state's first letter, with "s" for failed too, and
 * "-" for not at all. What a call has promised when it returned is never lost.
 */
static const struct {
  const char *a, *b, *c;
} may_be_found[] = {
    {"-", "-", "-"},   /* opening */
    {"-c", "-", "-"},  /* creating a */
    {"cr", "-", "-"},  /* starting a */
    {"rp", "-", "-"},  /* pausing a */
    {"pr", "-", "-"},  /* resuming a */
    {"r", "-s", "-"},  /* creating b, which never outlives its owner */
    {"r", "s", "-"},   /* starting b */
    {"rs", "s", "-"},  /* shutting down a */
    {"scr", "s", "-"}, /* starting a again */
    {"r", "s-", "-"},  /* destroying b */
    {"r", "-", "-c"},  /* creating c */
    {"rs-", "-", "c"}, /* destroying a */
    {"-", "-", "c"},   /* closing */
    {"-", "-", "c"},   /* closed */
};

static void check_promise(const struct list *list, const char *id, const char *allowed) {
  const struct listed *vm = find(list, id);
  char is = vm == NULL ? '-' : is_alive(vm) ? vm->state[0] : 's';
  int done = atomic_load(&diary->calls_done);
  if (strchr(allowed, is) == NULL)
    fprintf(stderr, "%s is found as '%c', may be '%s' after %d calls\n", id, is, allowed, done);
  REQUIRE(strchr(allowed, is) != NULL);
}

static void inspect_after_script(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  int done = atomic_load(&diary->calls_done);
  check_promise(&list, "a-keep", may_be_found[done].a);
  check_promise(&list, "b-kill", may_be_found[done].b);
  check_promise(&list, "c-keep", may_be_found[done].c);
  control(runtime, &list);
  leave_nothing(runtime);
}

/* ---- A second script: taking over what another one has left ---- */

/* Leaves one VM of each kind, and work that was half done. */
static void leave_remains(void) {
  mvm_runtime *runtime = open_runtime();
  mvm_vm *a, *b, *c;
  char spec[8192];
  MUST(mvm_create(runtime, "a-keep", spec_of("a-keep", spec, sizeof spec), &a));
  MUST(mvm_start(a));
  MUST(mvm_create(runtime, "b-kill", spec_of("b-kill", spec, sizeof spec), &b));
  MUST(mvm_start(b));
  MUST(mvm_create(runtime, "c-keep", spec_of("c-keep", spec, sizeof spec), &c));
  MUST(mvm_kill(c));
  REQUIRE(mkdir(path_of("", ".d-keep.new"), 0700) == 0 && mkdir(path_of("", ".e-keep.gone"), 0700) == 0);
  raise(SIGKILL);
}

static void take_over(void) {
  mvm_runtime *runtime;
  mvm_vm *a;
  char *json;
  DO(mvm_runtime_open(state, where.options, &runtime));
  DO(mvm_runtime_reap(runtime, NULL, &json));
  mvm_string_free(json);
  DO(mvm_open(runtime, "a-keep", &a));
  DO(mvm_pause(a));
  END("a-keep", mvm_shutdown(a, 0, 0, NULL));
  END("a-keep", mvm_destroy(a));
  DO(mvm_runtime_close(runtime));
}

static const struct {
  const char *a, *b, *c;
} may_be_found_again[] = {
    {"r", "s", "s"},    /* opening */
    {"r", "s-", "s-"},  /* reaping */
    {"r", "-", "-"},    /* a handle */
    {"rp", "-", "-"},   /* pausing a */
    {"ps", "-", "-"},   /* shutting down a */
    {"s-", "-", "-"},   /* destroying a */
    {"-", "-", "-"},    /* closing */
    {"-", "-", "-"},    /* closed */
};

static void inspect_after_taking_over(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  int done = atomic_load(&diary->calls_done);
  check_promise(&list, "a-keep", may_be_found_again[done].a);
  check_promise(&list, "b-kill", may_be_found_again[done].b);
  check_promise(&list, "c-keep", may_be_found_again[done].c);
  control(runtime, &list);
  leave_nothing(runtime);
}

/* ---- An operator that is stopped at each system call ---- */

struct play {
  void (*before)(void);  /* in a process of its own, or NULL */
  void (*script)(void);
  void (*inspect)(void);
};

static const struct play first_life = {NULL, script, inspect_after_script};
static const struct play second_life = {leave_remains, take_over, inspect_after_taking_over};

struct stop {
  long call, flags; /* the system call, and what openat was given */
  int entry;        /* before it, or after */
};

static const struct {
  long call;
  const char *name;
} watched[] = {
#ifdef SYS_rename
    {SYS_rename, "rename"}, {SYS_unlink, "unlink"}, {SYS_mkdir, "mkdir"}, {SYS_rmdir, "rmdir"}, {SYS_vfork, "vfork"},
    {SYS_fork, "fork"}, {SYS_creat, "creat"},
#endif
#ifdef SYS_renameat
    {SYS_renameat, "renameat"},
#endif
    {SYS_renameat2, "renameat2"}, {SYS_unlinkat, "unlinkat"}, {SYS_mkdirat, "mkdirat"}, {SYS_clone, "clone"},
    {SYS_clone3, "clone3"}, {SYS_execve, "execve"}, {SYS_fallocate, "fallocate"}, {SYS_ftruncate, "ftruncate"},
    {SYS_flock, "flock"}, {SYS_connect, "connect"}, {SYS_pidfd_send_signal, "pidfd_send_signal"},
    {SYS_waitid, "waitid"}, {SYS_sendto, "sendto"}, {SYS_openat, "openat"},
};

static const char *name_of(long call) {
  for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
    if (watched[i].call == call) return watched[i].name;
  return NULL;
}

/* Calls that change what is on disk or who lives: no stop at one of them is ever skipped. */
static int changes_something(const struct stop *stop) {
  if (stop->call == SYS_openat) return (stop->flags & O_CREAT) != 0;
  return name_of(stop->call) != NULL;
}

static pid_t start_traced(const struct play *play) {
  int status;
  memset(diary, 0, sizeof *diary);
  pid_t operator = fork();
  if (operator == 0) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(3);
    raise(SIGSTOP);
    play->script();
    _exit(0);
  }
  REQUIRE(waitpid(operator, &status, 0) == operator && WIFSTOPPED(status));
  /* Nothing is followed: its children, which are the VMMs, are not traced. */
  REQUIRE(ptrace(PTRACE_SETOPTIONS, operator, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) == 0);
  return operator;
}

/* Lets the operator go on to the next beginning or end of a system call; says whether there was one. */
static int next_stop(pid_t operator, struct stop *stop) {
  struct __ptrace_syscall_info info;
  int status;
  long signal = 0;
  do {
    REQUIRE(ptrace(PTRACE_SYSCALL, operator, NULL, (void *)signal) == 0);
    REQUIRE(waitpid(operator, &status, 0) == operator);
    if (WIFEXITED(status)) {
      REQUIRE(WEXITSTATUS(status) == 0); /* it fails only when the library does */
      return 0;
    }
    REQUIRE(WIFSTOPPED(status));
    signal = WSTOPSIG(status);
  } while (signal != (SIGTRAP | 0x80));
  REQUIRE(ptrace(PTRACE_GET_SYSCALL_INFO, operator, (void *)sizeof info, &info) > 0);
  stop->entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
  if (stop->entry) {
    stop->call = (long)info.entry.nr;
    stop->flags = (long)info.entry.args[2];
  }
  return 1;
}

struct pace {
  long share, shares; /* a worker takes every one of so many stops */
  long stride;        /* and of these every so manieth */
};

static int is_to_be_tested(long number, const struct stop *stop, const struct pace *pace) {
  if (number % pace->shares != pace->share) return 0;
  return number / pace->shares % pace->stride == 0 || changes_something(stop);
}

static void prepare(const struct play *play) {
  if (play->before == NULL) return;
  pid_t former = fork();
  if (former == 0) {
    play->before();
    _exit(0);
  }
  REQUIRE(was_killed(former));
}

static void give_up(const char *how, long number, const struct stop *stop) {
  static char now[sizeof found];
  const char *name = name_of(stop->call) == NULL ? "see <asm/unistd.h>" : name_of(stop->call);
  describe(now, sizeof now);
  fprintf(stderr, "WRONG: the operator was killed %s %s system call %ld (%s), at stop %ld, after %d calls of the "
          "library\nnow there is in %s:\n%s", how, stop->entry ? "at the beginning of" : "at the end of", stop->call,
          name, number, atomic_load(&diary->calls_done), state, now);
  atomic_store(&shared->failed, 1);
  _exit(1);
}

/* Kills an operator at the first stop from `from` on that is to be tested; gives its number, or -1 at the end. */
static long kill_from(const struct play *play, long from, const struct pace *pace) {
  struct stop stop = {0, 0, 0};
  long number = 0;
  prepare(play);
  pid_t operator = start_traced(play);
  do {
    if (!next_stop(operator, &stop)) return -1;
  } while (++number < from || !is_to_be_tested(number, &stop, pace));
  REQUIRE(kill_operator(operator));
  if (!is_well(play->inspect)) give_up("by SIGKILL", number, &stop);
  atomic_fetch_add(&shared->kills, 1);
  return number;
}

static long count_stops(const struct play *play) {
  struct stop stop = {0, 0, 0};
  long count = 0;
  prepare(play);
  pid_t operator = start_traced(play);
  while (next_stop(operator, &stop)) count++;
  REQUIRE(is_well(play->inspect));
  return count;
}

static void use_state(const char *name, long number) {
  char path[1900];
  snprintf(path, sizeof path, "%s/%s-%ld", where.state, name, number);
  mkdir(where.state, 0700);
  REQUIRE(mkdir(path, 0700) == 0 && realpath(path, state) != NULL);
}

static void *shared_memory(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return memory;
}

/* Runs `job` in so many processes at once, each with a state directory of its own. */
static void share(void (*job)(const struct play *play, const struct pace *pace), const struct play *play,
                  const char *name, long stride) {
  int status, failed = 0;
  for (long i = 0; i < WORKERS; i++) {
    if (fork() != 0) continue;
    struct pace pace = {i, WORKERS, stride};
    use_state(name, i);
    diary = shared_memory(sizeof *diary);
    job(play, &pace);
    _exit(0);
  }
  for (long i = 0; i < WORKERS; i++) failed += wait(&status) > 0 && status != 0;
  if (failed > 0) _exit(1);
}

static void kill_at_each_stop(const struct play *play, const struct pace *pace) {
  long number = 0;
  while (number >= 0 && !atomic_load(&shared->failed)) number = kill_from(play, number + 1, pace);
  if (number < 0 && !is_well(play->inspect)) give_up("not at all, after", number, &(struct stop){0, 0, 0});
}

/*
 * An instant costs at most a whole run and an inspection, on average half of that. Where all would take too long only
 * some of those at which nothing changes are tested, and the output says so.
 */
static long stride_for(const struct play *play, const char *name, long *stops) {
  use_state(name, WORKERS);
  diary = shared_memory(sizeof *diary);
  *stops = count_stops(play); /* warms up what is read from disk */
  uint64_t began = now_us();
  *stops = count_stops(play);
  uint64_t all_ms = (now_us() - began) * (uint64_t)*stops / 1000 / WORKERS;
  return 1 + (long)(all_ms / BUDGET_MS);
}

static void say(const char *what, uint64_t began) {
  printf("ok    %s (%.1f s)\n", what, (double)(now_us() - began) / 1e6);
  fflush(stdout);
}

static void at_any_system_call(const struct play *play, const char *name, const char *claim) {
  uint64_t began = now_us();
  char line[300], pace[120] = "";
  long stops, stride = stride_for(play, name, &stops);
  atomic_store(&shared->kills, 0);
  share(kill_at_each_stop, play, name, stride);
  if (stride > 1)
    snprintf(pace, sizeof pace, ": killed at %d, every %ld. and each that changes files or processes",
             atomic_load(&shared->kills), stride);
  else
    REQUIRE(atomic_load(&shared->kills) > stops / 2);
  snprintf(line, sizeof line, claim, stops / 2, pace);
  say(line, began);
}

/* ---- Killed while a process is being made ---- */

enum { DELAYS = 32, STEP_US = 15 };

/* The stops are before and after; the child that is about to be a VMM lives in between. */
static int kill_within_clone(const struct play *play, long wanted, uint64_t delay_us) {
  struct stop stop = {0, 0, 0};
  long clones = 0;
  prepare(play);
  pid_t operator = start_traced(play);
  do {
    if (!next_stop(operator, &stop)) return 0;
    clones += stop.entry && (stop.call == SYS_clone || stop.call == SYS_clone3);
  } while (clones < wanted);
  REQUIRE(ptrace(PTRACE_SYSCALL, operator, NULL, NULL) == 0);
  for (uint64_t began = now_us(); now_us() - began < delay_us;) {}
  kill(operator, SIGKILL);
  /* An owner that nobody has reaped yet is gone all the same. */
  REQUIRE(waitid(P_PID, (id_t)operator, &(siginfo_t){0}, WEXITED | WNOWAIT) == 0);
  if (!is_well(play->inspect)) give_up("by SIGKILL some microseconds after", wanted, &stop);
  REQUIRE(was_killed(operator));
  atomic_fetch_add(&shared->kills, 1);
  return 1;
}

static void kill_within_each_clone(const struct play *play, const struct pace *pace) {
  for (long i = pace->share; i < DELAYS; i += pace->shares)
    for (long clone = 1; !atomic_load(&shared->failed); clone++)
      if (!kill_within_clone(play, clone, (uint64_t)i * STEP_US)) {
        REQUIRE(is_well(play->inspect));
        break;
      }
}

static void while_it_starts_a_vmm(void) {
  uint64_t began = now_us();
  char line[200];
  atomic_store(&shared->kills, 0);
  share(kill_within_each_clone, &first_life, "clone", 1);
  snprintf(line, sizeof line, "an_operator_killed_%d_times_while_it_starts_a_process_leaves_nothing_unfound",
           atomic_load(&shared->kills));
  say(line, began);
}

/* ---- Killed at random, with four threads ---- */

static mvm_runtime *running;
static uint64_t seeds[THREADS];
static struct diary former; /* what the killed operator before this one has noted */

/*
 * In the wrong state is what a random call may be; and a VM that the former operator was about to end may end under
 * it.
 */
static void may_be_refused(mvm_status status, const char *id, const char *call) {
  int ended = status == MVM_ERR_VMM_EXITED;
  if (status == MVM_ERR_BAD_STATE || (ended && atomic_load(&former.ending[ending(id) - diary->ending]))) return;
  must_be_ok(status, call);
}
#define MAY(call) may_be_refused((call), id, #call)

static void do_something(mvm_vm *vm, const char *id, uint64_t drawn) {
  int ends_it = drawn % 9 > 5;
  if (ends_it) atomic_store(ending(id), 1);
  switch (drawn % 9) {
    case 0: case 1: case 2: MAY(mvm_start(vm)); break;
    case 3: case 4: MAY(mvm_pause(vm)); break;
    case 5: MAY(mvm_resume(vm)); break;
    case 6: MUST(mvm_kill(vm)); break;
    case 7: MUST(mvm_shutdown(vm, drawn / 9 % 3, 0, NULL)); break;
    default: MUST(mvm_destroy(vm)); break;
  }
  if (ends_it) atomic_store(ending(id), 0); /* it has ended, and there is nothing left to come */
}

static void *do_anything(void *argument) {
  uint64_t *seed = argument;
  char id[72], spec[8192];
  for (;;) {
    mvm_vm *vm;
    uint64_t drawn = draw(seed);
    snprintf(id, sizeof id, "t%d-%d-%s", (int)(seed - seeds), (int)(drawn % 2), drawn & 2 ? "keep" : "kill");
    mvm_status status = mvm_open(running, id, &vm);
    if (status == MVM_ERR_NOT_FOUND)
      MUST(mvm_create(running, id, spec_of(id, spec, sizeof spec), &vm));
    else {
      MUST(status);
      do_something(vm, id, drawn >> 8);
    }
    MUST(mvm_release(vm));
  }
  return NULL;
}

/* The operator of a round begins with what the former has left. */
static void work(int ready, uint64_t seed) {
  pthread_t thread;
  describe(found, sizeof found);
  running = open_runtime();
  REQUIRE(write(ready, "", 1) == 1);
  char *json;
  MUST(mvm_runtime_report(running, &json));
  REQUIRE(strstr(json, "\"left_alone\":[]") != NULL);
  mvm_string_free(json);
  memcpy(&former, diary, sizeof former); /* and the diary is continued: what was ending may still be */
  for (int i = 0; i < THREADS; i++) {
    seeds[i] = draw(&seed);
    REQUIRE(pthread_create(&thread, NULL, do_anything, &seeds[i]) == 0);
  }
  for (;;) pause();
}

static int run_and_kill(uint64_t *seed) {
  int ready[2];
  char byte;
  uint64_t own = draw(seed), delay_us = draw(seed) % 40001;
  REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
  pid_t operator = fork();
  if (operator == 0) work(ready[1], own);
  close(ready[1]);
  int worked = read(ready[0], &byte, 1) == 1;
  close(ready[0]);
  sleep_us(delay_us);
  return kill_operator(operator) && worked;
}

static void look_and_go(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  control(runtime, &list);
  MUST(mvm_runtime_close(runtime));
}

static void look_and_clear(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  control(runtime, &list);
  leave_nothing(runtime);
}

static void at_random(void) {
  uint64_t began = now_us(), given = began ^ (uint64_t)getpid() << 32;
  char line[200];
  if (getenv("SEED") != NULL) given = strtoull(getenv("SEED"), NULL, 0);
  use_state("random", 0);
  diary = shared_memory(sizeof *diary);
  uint64_t seed = given;
  for (int round = 1; round <= ROUNDS; round++) {
    int well = run_and_kill(&seed);
    /* In every other round it is the next operator that takes over what the killed one has left. */
    if (round % 10 == 0 || draw(&seed) % 2 == 0) {
      well = well && is_well(round % 10 == 0 ? look_and_clear : look_and_go);
      memset(diary, 0, sizeof *diary); /* what was ending has ended */
    }
    if (!well) fprintf(stderr, "WRONG: round %d of SEED=%llu\n", round, (unsigned long long)given);
    REQUIRE(well);
  }
  snprintf(line, sizeof line,
           "an_operator_of_%d_threads_killed_at_%d_random_instants_leaves_nothing_unfound, SEED=%llu", THREADS, ROUNDS,
           (unsigned long long)given);
  say(line, began);
}

static void test(void) {
  at_any_system_call(&first_life, "first",
                     "an_operator_killed_at_any_of_%ld_system_calls_leaves_nothing_unfound%s");
  at_any_system_call(&second_life, "second",
                     "an_operator_killed_at_any_of_%ld_system_calls_of_taking_over_leaves_nothing_unfound%s");
  while_it_starts_a_vmm();
  at_random();
}

/* After a failure VMs may be left; they are no one's any more. */
static void end_what_is_left(void) {
  if (realpath(where.state, state) == NULL) return;
  struct processes all = processes_below();
  for (int i = 0; i < all.count; i++) kill(all.of[i].pid, SIGKILL);
}

static int may_trace(void) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
  return waitpid(child, &status, 0) == child && status == 0;
}

int main(int argc, char **argv) {
  int status = 0;
  pid_t tester, ended;
  if (getenv("VALGRIND") != NULL) {
    printf("skip  an_operator_killed_at_any_system_call: valgrind's own system calls would be counted\n");
    return 0;
  }
  if (!may_trace()) {
    printf("skip  an_operator_killed_at_any_system_call: this machine lets no process be traced\n");
    return 0;
  }
  where = example_from(argc, argv);
  keeper = where.keeper;
  shared = shared_memory(sizeof *shared);
  /* As the init of a machine does: VMMs that have lost their owner are reaped at once. */
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
  tester = fork();
  if (tester == 0) {
    test();
    _exit(0);
  }
  while ((ended = waitpid(-1, &status, 0)) != tester) REQUIRE(ended > 0);
  int failed = status != 0;
  if (failed) end_what_is_left();
  while (waitpid(-1, NULL, 0) > 0) {}
  return failed;
}
