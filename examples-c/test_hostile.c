/*
 * Hosts that do what they may do, and what other libraries break on: SIGCHLD ignored, a reaper that waits for any
 * child, descriptors 0-2 closed, SIGPIPE at its default, a timer signal a thousand times a second, no descriptors
 * left. In each the whole life of a VM works, and the host is afterwards as it was before.
 */
#include "example.h"
#include "hosting.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct example where;

static void take_text(mvm_status status, char **text, const char *what) {
  must_be_ok(status, what);
  REQUIRE(*text != NULL && (*text)[0] != '\0');
  mvm_string_free(*text);
}
#define MUST_TELL(call) take_text((call), &text, #call)

/* Every query on a VM that runs. */
static void all_queries(mvm_runtime *runtime, mvm_vm *vm) {
  char *text, piece[64];
  int32_t fd;
  size_t length;
  uint64_t offset = 0;
  mvm_vm_state state;
  mvm_event event = MVM_EVENT_INIT;
  MUST(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_RUNNING);
  MUST_TELL(mvm_info(vm, &text));
  MUST_TELL(mvm_shutdown_report(vm, &text));
  MUST_TELL(mvm_runtime_list(runtime, &text));
  MUST_TELL(mvm_runtime_report(runtime, &text));
  MUST_TELL(mvm_runtime_reap(runtime, 0, &text));
  MUST(mvm_metrics_flush(vm));
  MUST_TELL(mvm_metrics(vm, &text));
  MUST_TELL(mvm_runtime_metrics(runtime, NULL, &text));
  MUST(mvm_console_read(vm, &offset, (uint8_t *)piece, sizeof piece, &length));
  MUST(mvm_exit_fd(vm, &fd));
  REQUIRE(close(fd) == 0);
  MUST(mvm_runtime_events_fd(runtime, &fd));
  REQUIRE(close(fd) == 0);
  do MUST(mvm_runtime_next_event(runtime, 0, &event));
  while (event.kind != MVM_EVENT_NONE);
  MUST(mvm_interrupt(vm));
  MUST(mvm_request(vm, "GET", "/version", NULL, &text));
  mvm_string_free(text);
}

/* Every operation on a VM; says how its first VMM ended. */
static mvm_exit whole_life(mvm_runtime *runtime, uint64_t grace_ms, mvm_shutdown_outcome wanted) {
  mvm_vm *vm, *again;
  mvm_shutdown_outcome outcome;
  mvm_exit how = MVM_EXIT_INIT;
  char spec[8192];
  MUST(mvm_create(runtime, "hostile", example_spec(&where, "obey", spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  MUST(mvm_pause(vm));
  MUST(mvm_resume(vm));
  all_queries(runtime, vm);
  MUST(mvm_shutdown(vm, grace_ms, 10, &outcome));
  REQUIRE(outcome == wanted);
  MUST(mvm_wait(vm, 0, &how));
  MUST(mvm_open(runtime, "hostile", &again));
  MUST(mvm_start(again));
  MUST(mvm_kill(again));
  MUST(mvm_destroy(again));
  MUST(mvm_release(again));
  MUST(mvm_release(vm));
  return how;
}

/* Small, so that its snapshots are soon written. */
static const char *small_spec(char *spec, size_t size) {
  example_spec(&where, "obey", spec, size);
  memcpy(strstr(spec, "128"), " 20", 3);
  return spec;
}

static void end(mvm_vm *vm) {
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

static void must_run(mvm_vm *vm) {
  mvm_vm_state state;
  MUST(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_RUNNING);
}

/* Ways by which a restored VM may get its memory. */
static const char *const MEMORIES[] = {"{\"memory\":\"file\"}"};

/* Every operation on a snapshot, and every VM that is made of one. */
static void life_of_snapshots(mvm_runtime *runtime) {
  mvm_vm *vm, *vms[3];
  mvm_pool *pool;
  char spec[8192], *text;
  MUST(mvm_create(runtime, "source", small_spec(spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  MUST_TELL(mvm_snapshot_create(vm, "base", "{\"checksums\":\"taken\"}", &text));
  MUST_TELL(mvm_snapshot_create(vm, "more", "{\"type\":\"diff\",\"checksums\":\"taken\"}", &text));
  MUST(mvm_rename(vm, "renamed"));
  must_run(vm);
  end(vm);
  MUST_TELL(mvm_snapshot_list(runtime, &text));
  MUST_TELL(mvm_snapshot_info(runtime, "more", &text));
  MUST_TELL(mvm_snapshot_verify(runtime, "more", MVM_FOREVER, &text));
  for (size_t i = 0; i < sizeof MEMORIES / sizeof *MEMORIES; i++) {
    MUST(mvm_restore(runtime, "more", "restored", MEMORIES[i], &vm));
    must_run(vm);
    end(vm);
  }
  MUST_TELL(mvm_snapshot_merge(runtime, "more", NULL, &text));
  MUST(mvm_clone(runtime, "more", 3, NULL, vms));
  for (int i = 0; i < 3; i++) end(vms[i]);
  MUST(mvm_pool_open(runtime, "pool", "{\"snapshot\":\"more\",\"size\":2}", &pool));
  MUST(mvm_pool_take(pool, "taken", NULL, &vm));
  must_run(vm);
  end(vm);
  MUST_TELL(mvm_pool_info(pool, &text));
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
  MUST(mvm_snapshot_delete(runtime, "base"));
  MUST(mvm_snapshot_delete(runtime, "more"));
}

static mvm_runtime *open_runtime(void) {
  mvm_runtime *runtime;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  return runtime;
}

static int count_entries(const char *path) {
  int count = 0;
  DIR *directory = opendir(path);
  REQUIRE(directory != NULL);
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

/* What a library must leave alone. */
struct host_state {
  struct sigaction dispositions[65];
  sigset_t mask;
  char cwd[4096], variables[16384];
  struct rlimit limits[RLIM_NLIMITS];
  mode_t mask_of_files;
  int descriptors, threads;
};

static struct host_state look(void) {
  static struct host_state state;
  memset(&state, 0, sizeof state);
  for (int i = 1; i < 65; i++) sigaction(i, NULL, &state.dispositions[i]);
  sigprocmask(SIG_SETMASK, NULL, &state.mask);
  REQUIRE(getcwd(state.cwd, sizeof state.cwd) != NULL);
  for (char **variable = environ; *variable != NULL; variable++)
    strncat(state.variables, *variable, sizeof state.variables - strlen(state.variables) - 1);
  for (int i = 0; i < RLIM_NLIMITS; i++) getrlimit(i, &state.limits[i]);
  state.mask_of_files = umask(0);
  umask(state.mask_of_files);
  state.descriptors = count_entries("/proc/self/fd");
  state.threads = count_entries("/proc/self/task");
  return state;
}

/* One that was joined may be on the kernel's list for some moments more. */
static void await_as_many_threads(int count) {
  for (int i = 0; count_entries("/proc/self/task") != count; i++) {
    REQUIRE(i < 5000);
    poll(NULL, 0, 1);
  }
}

static void same(const struct host_state *before) {
  static struct host_state after;
  await_as_many_threads(before->threads);
  after = look();
  for (int i = 1; i < 65; i++) {
    REQUIRE(before->dispositions[i].sa_handler == after.dispositions[i].sa_handler);
    REQUIRE(before->dispositions[i].sa_flags == after.dispositions[i].sa_flags);
    REQUIRE(sigismember(&before->mask, i) == sigismember(&after.mask, i));
  }
  REQUIRE(strcmp(before->cwd, after.cwd) == 0 && strcmp(before->variables, after.variables) == 0);
  REQUIRE(memcmp(before->limits, after.limits, sizeof after.limits) == 0);
  REQUIRE(before->mask_of_files == after.mask_of_files);
  REQUIRE(before->descriptors == after.descriptors && before->threads == after.threads);
}

/* A runtime is opened, a VM lives its whole life, and the host is as it was before. */
static mvm_exit a_life_that_leaves_no_trace(uint64_t grace_ms, mvm_shutdown_outcome wanted) {
  static struct host_state before;
  before = look();
  mvm_runtime *runtime = open_runtime();
  mvm_exit how = whole_life(runtime, grace_ms, wanted);
  life_of_snapshots(runtime);
  MUST(mvm_runtime_close(runtime));
  same(&before);
  return how;
}

static void an_ordinary_host_is_as_it_was_before(void) {
  mvm_exit how = a_life_that_leaves_no_trace(30000, MVM_SHUTDOWN_GRACEFUL);
  REQUIRE(how.kind == MVM_EXIT_CODE && how.value == 0);
  REQUIRE(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static void a_host_with_a_mask_and_a_limit_of_its_own_keeps_them(void) {
  sigset_t all;
  struct rlimit stack = {1 << 20, 1 << 20};
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  umask(0);
  setrlimit(RLIMIT_STACK, &stack);
  signal(SIGPIPE, SIG_DFL);
  a_life_that_leaves_no_trace(30000, MVM_SHUTDOWN_GRACEFUL);
}

static void without_a_keeper_there_is_one_thread_until_the_runtime_is_closed(void) {
  char options[8400];
  mvm_runtime *runtime;
  snprintf(options, sizeof options, "{\"firecracker\":\"%s\"}", where.firecracker);
  int before = count_entries("/proc/self/task");
  MUST(mvm_runtime_open(where.state, options, &runtime));
  REQUIRE(count_entries("/proc/self/task") == before);
  for (int i = 0; i < 3; i++) whole_life(runtime, 30000, MVM_SHUTDOWN_GRACEFUL);
  REQUIRE(count_entries("/proc/self/task") == before + 1);
  MUST(mvm_runtime_close(runtime));
  await_as_many_threads(before);
}

/* Counts this process's threads of a name, and requires of each that it holds every signal back that can be. */
static int threads_called(const char *name) {
  char path[300], line[256];
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  REQUIRE(tasks != NULL);
  for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
    FILE *status = fopen(path, "re");
    int is_it = 0;
    if (status == NULL) continue; /* "." and "..", or it has ended */
    while (fgets(line, sizeof line, status) != NULL) {
      unsigned long long held;
      if (strncmp(line, "Name:\t", 6) == 0) is_it = strncmp(line + 6, name, strlen(name)) == 0;
      /* The kernel shows a thread that is just being forgotten as one of none, that holds nothing back. */
      if (strcmp(line, "Threads:\t0\n") == 0) break;
      if (!is_it || sscanf(line, "SigBlk: %llx", &held) != 1) continue;
      count++;
      /* All but SIGKILL, SIGSTOP, and the two that the C library keeps to itself; valgrind has masks of its own. */
      unsigned long long kept = 1ull << 8 | 1ull << 18 | 3ull << 31;
      REQUIRE((held | kept) == ~0ull || getenv("VALGRIND") != NULL);
    }
    fclose(status);
  }
  closedir(tasks);
  return count;
}

/* A thread gives itself its name when it begins. */
static void await_threads(const char *name, int count) {
  for (int i = 0; threads_called(name) != count; i++) {
    REQUIRE(i < 30000);
    poll(NULL, 0, 1);
  }
}

static mvm_vm *boot_with_snapshot(mvm_runtime *runtime, const char *snapshot) {
  mvm_vm *vm;
  char spec[8192];
  MUST(mvm_create(runtime, "source", small_spec(spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  MUST(mvm_snapshot_create(vm, snapshot, NULL, NULL));
  return vm;
}

static void a_pool_has_a_thread_until_it_or_the_runtime_is_closed(void) {
  const char *options = "{\"snapshot\":\"base\",\"size\":1}";
  mvm_runtime *runtime = open_runtime();
  mvm_pool *pool, *other;
  char *text;
  end(boot_with_snapshot(runtime, "base"));
  MUST(mvm_pool_open(runtime, "one", options, &pool));
  MUST(mvm_pool_open(runtime, "two", options, &other));
  await_threads("mvm-pool", 2);
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
  await_threads("mvm-pool", 1);
  for (int is_full = 0; !is_full; poll(NULL, 0, 1)) {
    mvm_pool_counts counts = MVM_POOL_COUNTS_INIT;
    MUST(mvm_pool_count(other, &counts));
    is_full = counts.ready == 1;
  }
  MUST(mvm_runtime_close(runtime));
  await_threads("mvm-", 0);
  /* What waited goes on waiting, and nobody wants it any more. */
  runtime = open_runtime();
  MUST(mvm_runtime_reap(runtime, 0, &text));
  REQUIRE(strstr(text, "\"two-1\"") != NULL);
  mvm_string_free(text);
  MUST(mvm_snapshot_delete(runtime, "base"));
  MUST(mvm_runtime_close(runtime));
}

static atomic_int watching = 1;

static void *watch_threads(void *argument) {
  while (atomic_load(&watching)) threads_called("mvm-");
  return argument;
}

static void the_threads_of_a_clone_hold_signals_back_and_end_with_the_call(void) {
  enum { MANY = 12 };
  mvm_runtime *runtime = open_runtime();
  mvm_vm *vms[MANY];
  pthread_t watcher;
  end(boot_with_snapshot(runtime, "base"));
  REQUIRE(pthread_create(&watcher, NULL, watch_threads, NULL) == 0);
  int before = count_entries("/proc/self/task");
  for (int i = 0; i < 3; i++) {
    MUST(mvm_clone(runtime, "base", MANY, NULL, vms));
    await_as_many_threads(before);
    for (int k = 0; k < MANY; k++) end(vms[k]);
  }
  atomic_store(&watching, 0);
  pthread_join(watcher, NULL);
  MUST(mvm_snapshot_delete(runtime, "base"));
  MUST(mvm_runtime_close(runtime));
}

static void sigchld_may_be_ignored(void) {
  signal(SIGCHLD, SIG_IGN);
  mvm_exit how = a_life_that_leaves_no_trace(30000, MVM_SHUTDOWN_GRACEFUL);
  REQUIRE(how.kind == MVM_EXIT_CODE || how.kind == MVM_EXIT_REAPED_BY_HOST);
  how = a_life_that_leaves_no_trace(0, MVM_SHUTDOWN_FORCED);
  REQUIRE(how.kind == MVM_EXIT_SIGNAL || how.kind == MVM_EXIT_REAPED_BY_HOST);
}

static atomic_int reaping = 1;

static void *reap_everything(void *argument) {
  while (atomic_load(&reaping)) waitpid(-1, NULL, WNOHANG);
  return argument;
}

static void a_reaper_may_take_every_child(void) {
  pthread_t reaper;
  REQUIRE(pthread_create(&reaper, NULL, reap_everything, NULL) == 0);
  for (int i = 0; i < 5; i++) {
    mvm_exit how = a_life_that_leaves_no_trace(30000, MVM_SHUTDOWN_GRACEFUL);
    REQUIRE(how.kind == MVM_EXIT_CODE || how.kind == MVM_EXIT_REAPED_BY_HOST);
  }
  atomic_store(&reaping, 0);
  pthread_join(reaper, NULL);
}

static void descriptors_0_to_2_may_be_closed(void) {
  close(0);
  close(1);
  close(2);
  a_life_that_leaves_no_trace(30000, MVM_SHUTDOWN_GRACEFUL);
  const char *argv[] = {"/bin/sh", "-c", "echo out; echo err >&2; read line || exit 5", NULL};
  mvm_process *process;
  mvm_exit how = MVM_EXIT_INIT;
  MUST(mvm_process_spawn(argv, NULL, NULL, NULL, &process));
  MUST(mvm_process_wait(process, 30000, &how));
  REQUIRE(how.kind == MVM_EXIT_CODE && how.value == 5);
  MUST(mvm_process_release(process));
}

static atomic_int ticks;

static void tick(int signal) {
  (void)signal;
  atomic_fetch_add(&ticks, 1);
}

static void a_profiler_may_interrupt_every_call(void) {
  struct sigaction profiler = {.sa_handler = tick}; /* without SA_RESTART, the harder case */
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
  struct itimerspec often = {{0, 1000000}, {0, 1000000}};
  timer_t timer;
  sigaction(SIGPROF, &profiler, NULL);
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
  for (int i = 0; i < 5; i++) a_life_that_leaves_no_trace(30000, MVM_SHUTDOWN_GRACEFUL);
  mvm_runtime *runtime = open_runtime();
  /* A guest that hears nothing keeps the call waiting, and the signals coming. */
  mvm_vm *vm;
  mvm_shutdown_outcome outcome;
  char spec[8192];
  MUST(mvm_create(runtime, "halt", example_spec(&where, "halt", spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  MUST(mvm_shutdown(vm, 200, 0, &outcome));
  REQUIRE(outcome == MVM_SHUTDOWN_FORCED && atomic_load(&ticks) > 20);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  MUST(mvm_runtime_close(runtime));
}

static mvm_vm *interrupted_vm;
static mvm_cancel *raised_token;

static void interrupt_from_a_handler(int signal) {
  (void)signal;
  errno = 4711;
  (void)mvm_interrupt(interrupted_vm);
  (void)mvm_process_interrupt(NULL);
  if (errno != 4711) _exit(3);
  atomic_fetch_add(&ticks, 1);
}

static void raise_from_a_handler(int signal) {
  (void)signal;
  (void)mvm_cancel_raise(raised_token);
}

static timer_t send_every(int signal, void (*handler)(int), long microseconds) {
  struct sigaction action = {.sa_handler = handler};
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
  struct itimerspec often = {{0, microseconds * 1000}, {0, microseconds * 1000}};
  timer_t timer;
  sigaction(signal, &action, NULL);
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
  return timer;
}

/* Wherever it strikes, a handler waits for no lock that the thread below it holds. */
static void a_signal_handler_may_interrupt_its_own_thread(void) {
  mvm_runtime *runtime = open_runtime();
  mvm_vm *vm, *again;
  mvm_exit how = MVM_EXIT_INIT;
  char spec[8192], *text;
  MUST(mvm_create(runtime, "signalled", example_spec(&where, "halt", spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  interrupted_vm = vm;
  atomic_store(&ticks, 0);
  timer_t timer = send_every(SIGALRM, interrupt_from_a_handler, 200);
  REQUIRE(mvm_wait(vm, MVM_FOREVER, &how) == MVM_ERR_INTERRUPTED);
  while (atomic_load(&ticks) < 2000) {
    mvm_vm_state state;
    MUST(mvm_state(vm, &state));
    MUST_TELL(mvm_info(vm, &text));
    MUST(mvm_open(runtime, "signalled", &again));
    mvm_status status = mvm_request(again, "GET", "/version", NULL, NULL);
    if (status != MVM_OK && status != MVM_ERR_INTERRUPTED) fprintf(stderr, "%s: %s\n", mvm_status_name(status), mvm_last_error_message());
    REQUIRE(status == MVM_OK || status == MVM_ERR_INTERRUPTED);
    MUST(mvm_release(again));
  }
  timer_delete(timer);
  MUST(mvm_cancel_create(&raised_token));
  MUST(mvm_cancel_bind(raised_token));
  timer = send_every(SIGUSR1, raise_from_a_handler, 20000);
  REQUIRE(mvm_wait(vm, MVM_FOREVER, &how) == MVM_ERR_INTERRUPTED);
  timer_delete(timer);
  REQUIRE(mvm_pause(vm) == MVM_ERR_INTERRUPTED); /* a token that was raised stays so */
  must_run(vm);
  MUST(mvm_cancel_bind(NULL));
  MUST(mvm_cancel_release(raised_token));
  MUST(mvm_pause(vm));
  end(vm);
  MUST(mvm_runtime_close(runtime));
}

struct waiter {
  mvm_vm *vm;
  mvm_cancel *cancel;
  mvm_status status;
};

static void *wait_for_ever(void *context) {
  struct waiter *waiter = context;
  mvm_exit how = MVM_EXIT_INIT;
  MUST(mvm_cancel_bind(waiter->cancel));
  waiter->status = mvm_wait(waiter->vm, MVM_FOREVER, &how);
  MUST(mvm_cancel_bind(NULL));
  return NULL;
}

/* Two calls on one VM: each ends when its own token is raised, and the other one does not. */
static void a_token_ends_its_own_call_and_no_other(void) {
  mvm_runtime *runtime = open_runtime();
  mvm_vm *vm;
  struct waiter waiters[2];
  pthread_t threads[2];
  char spec[8192], *text;
  MUST(mvm_create(runtime, "shared", small_spec(spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  for (int i = 0; i < 2; i++) {
    waiters[i].vm = vm;
    MUST(mvm_cancel_create(&waiters[i].cancel));
    REQUIRE(pthread_create(&threads[i], NULL, wait_for_ever, &waiters[i]) == 0);
  }
  MUST(mvm_cancel_raise(waiters[0].cancel));
  REQUIRE(pthread_join(threads[0], NULL) == 0 && waiters[0].status == MVM_ERR_INTERRUPTED);
  MUST_TELL(mvm_snapshot_create(vm, "undisturbed", NULL, &text));
  MUST(mvm_kill(vm));
  REQUIRE(pthread_join(threads[1], NULL) == 0 && waiters[1].status == MVM_OK);
  for (int i = 0; i < 2; i++) MUST(mvm_cancel_release(waiters[i].cancel));
  MUST(mvm_snapshot_delete(runtime, "undisturbed"));
  end(vm);
  MUST(mvm_runtime_close(runtime));
}

static void no_descriptor_left_is_an_error_and_leaves_nothing(void) {
  mvm_runtime *runtime = open_runtime();
  mvm_vm *vm;
  char spec[8192];
  example_spec(&where, "obey", spec, sizeof spec);
  strcpy(strrchr(spec, '}'), ",\"mvm\":{\"deadlines\":{\"create_ms\":1000}}}");
  whole_life(runtime, 30000, MVM_SHUTDOWN_GRACEFUL); /* so that the VMM's version is known */
  int descriptors = count_entries("/proc/self/fd") - 3;
  struct rlimit all, few;
  getrlimit(RLIMIT_NOFILE, &all);
  int failed = 0, worked = 0;
  for (int spare = 0; spare < 40 && worked == 0; spare++) {
    few = (struct rlimit){(rlim_t)(descriptors + spare), all.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    mvm_status status = mvm_create(runtime, "few", spec, &vm);
    setrlimit(RLIMIT_NOFILE, &all);
    if (status == MVM_OK) {
      worked++;
      MUST(mvm_destroy(vm));
      MUST(mvm_release(vm));
    } else {
      mvm_error error = MVM_ERROR_INIT;
      mvm_last_error(&error);
      /* With a few more than the library needs, it is the VMM, under the same limit, that has too few. */
      int is_the_vmms = status == MVM_ERR_VMM_REFUSED || status == MVM_ERR_VMM_EXITED || status == MVM_ERR_TIMEOUT;
      if (!is_the_vmms && error.os_errno != EMFILE) tell("mvm_create with few descriptors");
      REQUIRE(is_the_vmms || (status == MVM_ERR_NO_RESOURCES && error.os_errno == EMFILE));
      REQUIRE(vm == NULL && count_entries("/proc/self/fd") - 3 == descriptors);
      failed += status == MVM_ERR_NO_RESOURCES;
    }
  }
  REQUIRE(failed > 0 && worked == 1);
  MUST(mvm_runtime_close(runtime));
}

static int entries_of(const char *name) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", where.state, name);
  return count_entries(path) - 2;
}

static mvm_status take_a_snapshot(mvm_runtime *runtime, mvm_vm *source) {
  mvm_status status = mvm_snapshot_create(source, "few", NULL, NULL);
  (void)runtime;
  must_run(source);
  return status;
}

static mvm_status restore_one(mvm_runtime *runtime, mvm_vm *source) {
  mvm_vm *vm;
  mvm_status status = mvm_restore(runtime, "base", "few", "{\"deadline_ms\":1000}", &vm);
  (void)source;
  REQUIRE((vm != NULL) == (status == MVM_OK));
  if (vm != NULL) end(vm);
  return status;
}

static mvm_status clone_two(mvm_runtime *runtime, mvm_vm *source) {
  mvm_vm *vms[2];
  mvm_status status = mvm_clone(runtime, "base", 2, "{\"deadline_ms\":1000}", vms);
  (void)source;
  for (int i = 0; i < 2; i++) {
    REQUIRE((vms[i] != NULL) == (status == MVM_OK));
    if (vms[i] != NULL) end(vms[i]);
  }
  return status;
}

/* With one more number for descriptors each time, until it works; each failure says so and leaves nothing. */
static void with_few_descriptors(mvm_runtime *runtime, mvm_vm *source,
                                 mvm_status (*call)(mvm_runtime *runtime, mvm_vm *source)) {
  int descriptors = count_entries("/proc/self/fd") - 3, failed = 0;
  int vms = entries_of("vms"), snapshots = entries_of("snapshots");
  struct rlimit all;
  getrlimit(RLIMIT_NOFILE, &all);
  for (rlim_t numbers = 3;; numbers++) {
    REQUIRE(numbers < 200);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){numbers, all.rlim_max});
    mvm_status status = call(runtime, source);
    setrlimit(RLIMIT_NOFILE, &all);
    if (status == MVM_OK) break;
    mvm_error error = MVM_ERROR_INIT;
    mvm_last_error(&error);
    int is_the_vmms = status == MVM_ERR_VMM_REFUSED || status == MVM_ERR_VMM_EXITED || status == MVM_ERR_TIMEOUT;
    if (!is_the_vmms && error.os_errno != EMFILE) tell("with few descriptors");
    REQUIRE(is_the_vmms || (status == MVM_ERR_NO_RESOURCES && error.os_errno == EMFILE));
    REQUIRE(count_entries("/proc/self/fd") - 3 == descriptors);
    REQUIRE(entries_of("vms") == vms && entries_of("snapshots") == snapshots);
    failed += status == MVM_ERR_NO_RESOURCES;
  }
  REQUIRE(failed > 0);
}

static void snapshots_without_descriptors_are_errors_and_leave_nothing(void) {
  mvm_runtime *runtime = open_runtime();
  mvm_vm *source = boot_with_snapshot(runtime, "base");
  with_few_descriptors(runtime, source, take_a_snapshot);
  with_few_descriptors(runtime, source, restore_one);
  with_few_descriptors(runtime, source, clone_two);
  end(source);
  MUST(mvm_snapshot_delete(runtime, "few"));
  MUST(mvm_snapshot_delete(runtime, "base"));
  MUST(mvm_runtime_close(runtime));
}

static void *close_runtime(void *runtime) {
  MUST(mvm_runtime_close(runtime));
  return NULL;
}

static void a_runtime_may_be_closed_while_its_vm_is_waited_for(void) {
  mvm_runtime *runtime = open_runtime(), *again;
  mvm_vm *vm;
  mvm_exit how = MVM_EXIT_INIT;
  pthread_t closer;
  char spec[8192];
  int32_t fd;
  MUST(mvm_create(runtime, "closing", example_spec(&where, "halt", spec, sizeof spec), &vm));
  MUST(mvm_exit_fd(vm, &fd));
  int32_t pid;
  MUST(mvm_pid(vm, &pid));
  REQUIRE(pthread_create(&closer, NULL, close_runtime, runtime) == 0);
  mvm_status status = mvm_wait(vm, MVM_FOREVER, &how);
  pthread_join(closer, NULL);
  REQUIRE(status == MVM_ERR_INTERRUPTED || status == MVM_ERR_BAD_HANDLE);
  MUST(mvm_runtime_open(where.state, where.options, &again));
  MUST(mvm_runtime_close(again));
  /* The VM has gone on, and is ours to end by other means. */
  struct pollfd ended = {.fd = fd, .events = POLLIN};
  REQUIRE(poll(&ended, 1, 0) == 0 && kill(pid, SIGKILL) == 0 && poll(&ended, 1, 30000) == 1);
  char command[4400];
  snprintf(command, sizeof command, "rm -r '%s/vms/closing'", where.state);
  REQUIRE(system(command) == 0);
  close(fd);
}

static pthread_key_t last_words;

static void call_from_a_dying_thread(void *handle) {
  REQUIRE(mvm_release(handle) == MVM_ERR_BAD_HANDLE);
}

static void *die_with_a_key(void *argument) {
  pthread_setspecific(last_words, (void *)0x1234);
  REQUIRE(mvm_release((mvm_vm *)0x1234) == MVM_ERR_BAD_HANDLE);
  return argument;
}

static void a_thread_may_call_while_it_ends(void) {
  pthread_t thread;
  REQUIRE(pthread_key_create(&last_words, call_from_a_dying_thread) == 0);
  REQUIRE(pthread_create(&thread, NULL, die_with_a_key, NULL) == 0);
  pthread_join(thread, NULL);
}

static void a_forked_child_does_not_keep_the_state_directory(void) {
  mvm_runtime *runtime = open_runtime();
  pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  MUST(mvm_runtime_close(runtime));
  runtime = open_runtime();
  MUST(mvm_runtime_close(runtime));
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
}

int main(int argc, char **argv) {
  where = example_from(argc, argv);
  /* What this program was started with is not part of the test, and its numbers would be in the way. */
  for (int fd = 3; fd < 1024; fd++) close(fd);
  HOST(an_ordinary_host_is_as_it_was_before);
  HOST(a_host_with_a_mask_and_a_limit_of_its_own_keeps_them);
  HOST(without_a_keeper_there_is_one_thread_until_the_runtime_is_closed);
  HOST(the_threads_of_a_clone_hold_signals_back_and_end_with_the_call);
  HOST(sigchld_may_be_ignored);
  HOST(a_reaper_may_take_every_child);
  HOST(descriptors_0_to_2_may_be_closed);
  HOST(a_profiler_may_interrupt_every_call);
  HOST(a_signal_handler_may_interrupt_its_own_thread);
  HOST(a_token_ends_its_own_call_and_no_other);
  if (getenv("VALGRIND") == NULL) {
    HOST(a_pool_has_a_thread_until_it_or_the_runtime_is_closed);
    HOST(no_descriptor_left_is_an_error_and_leaves_nothing);
    HOST(snapshots_without_descriptors_are_errors_and_leave_nothing);
  } else {
    printf("skip  a pool's thread: valgrind knows no pidfd_open, to find again what has waited\n");
    printf("skip  no descriptor left, twice: valgrind keeps a limit of its own\n");
    fflush(stdout);
  }
  HOST(a_runtime_may_be_closed_while_its_vm_is_waited_for);
  HOST(a_thread_may_call_while_it_ends);
  HOST(a_forked_child_does_not_keep_the_state_directory);
  return 0;
}
