/*
 * How an operator is killed: at a system call at which it is stopped by ptrace, or at a random instant.
 *
 * The processes: main is the init of all others, and reaps what has lost its parent. Below it a tester forks
 * operators, kills them, and forks inspectors, which open what is left. The tester never calls the library, so that
 * each of its children may.
 */
#ifndef KILLING_H
#define KILLING_H

#include "inspection.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#ifdef JAILED
enum { WORKERS = 4, BUDGET_MS = 12000 };
/* And in cgroups of its own, where this process may make some: in a cgroup of this test's. */
static char in_jail[128], cgroup_parent[64];
#else
enum { WORKERS = 4, BUDGET_MS = 90000 };
static const char in_jail[] = "";
#endif

struct shared {
  atomic_int failed;     /* some worker */
  atomic_int kills;      /* all workers together */
};
static struct shared *shared; /* among all processes of this test */

#define DO(call) (MUST(call), (void)atomic_fetch_add(&diary->calls_done, 1))
#define END(id, call) (atomic_store(ending(id), 1), DO(call), atomic_store(ending(id), 0))

static inline const char *spec_of(const char *id, char *spec, size_t size) {
  example_spec(&where, "halt", spec, size);
  char disk[4200] = "";
  /* One has a disk of its own, made from an image: any file is one. */
  if (strcmp(id, "c-keep") == 0)
    snprintf(disk, sizeof disk, ",\"rootfs\":{\"from\":\"%s/halt.elf\",\"size_mib\":1,\"format\":\"raw\"}", where.guests);
  char *end = strrchr(spec, '}');
  snprintf(end, size - (size_t)(end - spec), ",\"mvm\":{\"on_owner_exit\":\"%s\"%s%s}}",
           ends_with_owner(id) ? "kill" : "keep", in_jail, disk);
  return spec;
}

/* ---- An operator that is stopped at each system call ---- */

struct play {
  void (*before)(void);  /* in a process of its own, or NULL */
  void (*script)(void);
  void (*inspect)(void);
};

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
    {SYS_fork, "fork"}, {SYS_creat, "creat"}, {SYS_link, "link"}, {SYS_symlink, "symlink"},
#endif
#ifdef SYS_renameat
    {SYS_renameat, "renameat"},
#endif
    {SYS_renameat2, "renameat2"}, {SYS_unlinkat, "unlinkat"}, {SYS_mkdirat, "mkdirat"}, {SYS_clone, "clone"},
    {SYS_clone3, "clone3"}, {SYS_execve, "execve"}, {SYS_fallocate, "fallocate"}, {SYS_ftruncate, "ftruncate"},
    {SYS_flock, "flock"}, {SYS_connect, "connect"}, {SYS_pidfd_send_signal, "pidfd_send_signal"},
    {SYS_waitid, "waitid"}, {SYS_sendto, "sendto"}, {SYS_linkat, "linkat"}, {SYS_symlinkat, "symlinkat"},
    {SYS_openat, "openat"},
};

static inline const char *name_of(long call) {
  for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
    if (watched[i].call == call) return watched[i].name;
  return NULL;
}

/* Calls that change what is on disk or who lives: no stop at one of them is ever skipped. */
static inline int changes_something(const struct stop *stop) {
  if (stop->call == SYS_openat) return (stop->flags & O_CREAT) != 0;
  return name_of(stop->call) != NULL;
}

static inline pid_t start_traced(const struct play *play) {
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
static inline int next_stop(pid_t operator, struct stop *stop) {
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

static inline int is_to_be_tested(long number, const struct stop *stop, const struct pace *pace) {
  if (number % pace->shares != pace->share) return 0;
  return number / pace->shares % pace->stride == 0 || changes_something(stop);
}

static inline void prepare(const struct play *play) {
  if (play->before == NULL) return;
  pid_t former = fork();
  if (former == 0) {
    play->before();
    _exit(0);
  }
  REQUIRE(was_killed(former));
}

static inline void give_up(const char *how, long number, const struct stop *stop) {
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
static inline long kill_from(const struct play *play, long from, const struct pace *pace) {
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

static inline long count_stops(const struct play *play) {
  struct stop stop = {0, 0, 0};
  long count = 0;
  prepare(play);
  pid_t operator = start_traced(play);
  while (next_stop(operator, &stop)) count++;
  REQUIRE(is_well(play->inspect));
  return count;
}

static inline void use_state(const char *name, long number) {
  char path[1900];
  snprintf(path, sizeof path, "%s/%s-%ld", where.state, name, number);
  mkdir(where.state, 0700);
  REQUIRE(mkdir(path, 0700) == 0 && realpath(path, state) != NULL);
#ifdef JAILED
  /* Users of its own: those of another worker may be leased at any time. */
  static char options[sizeof where.options];
  char jailer[4200], path_of_jailer[4096];
  snprintf(path_of_jailer, sizeof path_of_jailer, "%s", where.firecracker);
  char *file = strrchr(path_of_jailer, '/');
  if (file != NULL && strcmp(file, "/firecracker-sim") != 0) strcpy(file, "/jailer");
  first_user = 2000000000 + getpid() % 40000 * 1000 + number * 100;
  if (options[0] == '\0') strcpy(options, where.options);
  strcpy(where.options, options);
  sprintf(strrchr(where.options, '}'), ",\"jail\":{\"jailer\":%s,\"uids\":{\"first\":%ld,\"count\":%d}}}",
          json_string(jailer, sizeof jailer, path_of_jailer), first_user, USERS);
#endif
}

static inline void *shared_memory(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return memory;
}

/* Runs `job` in so many processes at once, each with a state directory of its own. */
static inline void share(void (*job)(const struct play *play, const struct pace *pace), const struct play *play,
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

static inline void kill_at_each_stop(const struct play *play, const struct pace *pace) {
  long number = 0;
  while (number >= 0 && !atomic_load(&shared->failed)) number = kill_from(play, number + 1, pace);
  if (number < 0 && !is_well(play->inspect)) give_up("not at all, after", number, &(struct stop){0, 0, 0});
}

/*
 * An instant costs at most a whole run and an inspection, on average half of that. Where all would take too long only
 * some of those at which nothing changes are tested, and the output says so.
 */
static inline long stride_for(const struct play *play, const char *name, long *stops) {
  use_state(name, WORKERS);
  diary = shared_memory(sizeof *diary);
  *stops = count_stops(play); /* warms up what is read from disk */
  uint64_t began = now_us();
  *stops = count_stops(play);
  uint64_t all_ms = (now_us() - began) * (uint64_t)*stops / 1000 / WORKERS;
  return 1 + (long)(all_ms / BUDGET_MS);
}

static inline void say(const char *what, uint64_t began) {
  printf("ok    %s (%.1f s)\n", what, (double)(now_us() - began) / 1e6);
  fflush(stdout);
}

static inline void at_any_system_call(const struct play *play, const char *name, const char *claim) {
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

/* ---- Killed at random, with four threads ---- */

#ifdef JAILED
enum { ROUNDS = 100, THREADS = 4 };
#else
enum { ROUNDS = 500, THREADS = 4 };
#endif

/* What the threads of an operator do for ever, and who looks after it. */
struct life {
  void *(*thread)(void *seed);
  void (*look_and_go)(void);    /* leaves what there is to the next operator */
  void (*look_and_clear)(void);
};

static mvm_runtime *running;
static uint64_t seeds[THREADS];
static struct diary former; /* what the killed operator before this one has noted */

/* The operator of a round begins with what the former has left. */
static inline void work(const struct life *life, int ready, uint64_t seed) {
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
    REQUIRE(pthread_create(&thread, NULL, life->thread, &seeds[i]) == 0);
  }
  for (;;) pause();
}

static inline int run_and_kill(const struct life *life, uint64_t *seed) {
  int ready[2];
  char byte;
  uint64_t own = draw(seed), delay_us = draw(seed) % 40001;
  REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
  pid_t operator = fork();
  if (operator == 0) work(life, ready[1], own);
  close(ready[1]);
  int worked = read(ready[0], &byte, 1) == 1;
  close(ready[0]);
  sleep_us(delay_us);
  return kill_operator(operator) && worked;
}

static inline void at_random(const struct life *life, const char *name, int rounds, const char *what) {
  uint64_t began = now_us(), given = began ^ (uint64_t)getpid() << 32;
  char line[200];
  if (getenv("SEED") != NULL) given = strtoull(getenv("SEED"), NULL, 0);
  use_state(name, 0);
  diary = shared_memory(sizeof *diary);
  uint64_t seed = given;
  for (int round = 1; round <= rounds; round++) {
    int well = run_and_kill(life, &seed);
    /* In every other round it is the next operator that takes over what the killed one has left. */
    if (round % 10 == 0 || draw(&seed) % 2 == 0) {
      well = well && is_well(round % 10 == 0 ? life->look_and_clear : life->look_and_go);
      memset(diary, 0, sizeof *diary); /* what was ending has ended */
    }
    if (!well) fprintf(stderr, "WRONG: round %d of SEED=%llu\n", round, (unsigned long long)given);
    REQUIRE(well);
  }
  snprintf(line, sizeof line, "an_operator_of_%d_threads_killed_at_%d_random_instants_%s, SEED=%llu", THREADS, rounds, what,
           (unsigned long long)given);
  say(line, began);
}

/* ---- The tester and its init ---- */

/* After a failure VMs may be left; they are no one's any more. */
static inline void end_what_is_left(void) {
  if (realpath(where.state, state) == NULL) return;
  struct processes all = processes_below();
  for (int i = 0; i < all.count; i++) kill(all.of[i].pid, SIGKILL);
}

#ifdef JAILED
/* Whether this process may have a VM of such a spec, by the library's own word. */
static inline int may_create(void) {
  int answer = -1;
  pid_t child = fork(); /* the tester itself uses no library */
  if (child != 0) return waitpid(child, &answer, 0) == child && answer == 0;
  mvm_runtime *runtime;
  mvm_vm *vm;
  char spec[8192];
  use_state("probe", 0);
  MUST(mvm_runtime_open(state, where.options, &runtime));
  mvm_status status = mvm_create(runtime, "probe-keep", spec_of("probe-keep", spec, sizeof spec), &vm);
  if (status == MVM_OK) MUST(mvm_destroy(vm));
  MUST(mvm_runtime_close(runtime));
  if (status != MVM_ERR_PERMISSION && status != MVM_ERR_UNSUPPORTED) must_be_ok(status, "mvm_create");
  _exit(status != MVM_OK);
}
#endif

/* Whether this process may jail a VM. */
static inline int may_jail(void) {
#ifdef JAILED
  snprintf(cgroup_parent, sizeof cgroup_parent, "mvm-killed-%d", (int)getpid());
  snprintf(in_jail, sizeof in_jail, ",\"jail\":{},\"limits\":{},\"cgroup_parent\":\"/%s\"", cgroup_parent);
  if (may_create()) return 1;
  printf("skip  cgroups: this process may make none\n");
  snprintf(in_jail, sizeof in_jail, ",\"jail\":{}");
  return may_create();
#else
  return 1;
#endif
}

/* Whether a cgroup of a VM is left in that of this test, which goes. */
static inline int is_a_cgroup_left(void) {
  int left = 0;
#ifdef JAILED
  const char *roots[] = {"", "/unified", "/freezer"};
  for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
    char path[160];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", roots[i], cgroup_parent);
    if (rmdir(path) != 0 && errno != ENOENT) {
      fprintf(stderr, "WRONG: in %s something is left\n", path);
      left = 1;
    }
  }
#endif
  return left;
}

static inline int may_trace(void) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
  return waitpid(child, &status, 0) == child && status == 0;
}

/* The whole program. */
static inline int run_tester(int argc, char **argv, void (*test)(void)) {
  int status = 0;
  pid_t tester, ended;
  if (getenv("VALGRIND") != NULL) {
    printf("skip  all of it: valgrind's own system calls would be counted\n");
    return 0;
  }
  if (!may_trace()) {
    printf("skip  all of it: this machine lets no process be traced\n");
    return 0;
  }
  where = example_from(argc, argv);
  keeper = where.keeper;
  shared = shared_memory(sizeof *shared);
  if (!may_jail()) {
    printf("skip  all of it: this process may not jail another one\n");
    return 0;
  }
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
  return is_a_cgroup_left() || failed;
}

#endif
