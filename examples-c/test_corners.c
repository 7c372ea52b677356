/*
 * Hosts in corners of their own: a small limit on the size of files, two copies of the library in one process, forks in
 * the middle of other threads' calls, threads with small stacks.
 */
#include "example.h"
#include "hosting.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

static struct example where;

static mvm_runtime *open_runtime(void) {
  mvm_runtime *runtime;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  return runtime;
}

static void limit_files(rlim_t bytes) {
  struct rlimit limit;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  limit.rlim_cur = bytes;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* An error that says so, of the library or of the VMM, which inherits the limit. */
static void require_that_it_was_told(mvm_status status) {
  mvm_error error = MVM_ERROR_INIT;
  if (status == MVM_OK) return;
  MUST(mvm_last_error(&error));
  int is_the_vmms = status == MVM_ERR_VMM_EXITED || status == MVM_ERR_VMM_REFUSED || status == MVM_ERR_TIMEOUT ||
                    status == MVM_ERR_VMM_PROTOCOL;
  if (!is_the_vmms && (status != MVM_ERR_NO_RESOURCES || error.os_errno != EFBIG)) {
    tell("with a limit on files");
    _exit(1);
  }
}

static void run_with_a_limit_on_files(rlim_t bytes) {
  mvm_runtime *runtime, *limited;
  mvm_vm *vm = NULL, *restored = NULL;
  char spec[8192];
  example_spec(&where, "obey", spec, sizeof spec);
  memcpy(strstr(spec, "128"), " 20", 3);
  limit_files(bytes);
  mvm_status status = mvm_runtime_open(where.state, where.options, &limited);
  require_that_it_was_told(status);
  if (status == MVM_OK) {
    require_that_it_was_told(mvm_create(limited, "limited", spec, &vm));
    if (vm != NULL) MUST(mvm_destroy(vm));
    MUST(mvm_runtime_close(limited));
  }
  limit_files(RLIM_INFINITY);
  runtime = open_runtime();
  MUST(mvm_create(runtime, "source", spec, &vm));
  MUST(mvm_start(vm));
  MUST(mvm_snapshot_create(vm, "base", NULL, NULL));
  limit_files(bytes);
  require_that_it_was_told(mvm_snapshot_create(vm, "limited", NULL, NULL));
  require_that_it_was_told(mvm_restore(runtime, "base", "limited", NULL, &restored));
  require_that_it_was_told(mvm_metrics_flush(vm));
  limit_files(RLIM_INFINITY);
  if (restored != NULL) MUST(mvm_destroy(restored));
  (void)mvm_snapshot_delete(runtime, "limited");
  MUST(mvm_destroy(vm));
  MUST(mvm_snapshot_delete(runtime, "base"));
  MUST(mvm_runtime_close(runtime));
}

static void a_small_limit_on_files_is_an_error_and_no_signal(void) {
  for (rlim_t bytes = 0; bytes < 10000000; bytes = bytes == 0 ? 1 : bytes * 10) run_with_a_limit_on_files(bytes);
}

/* The library's own file, once more under another name: what a part of a program that is linked statically has. */
static void *second_copy(char *path, size_t size) {
  Dl_info own;
  char command[9000];
  REQUIRE(dladdr((void *)(uintptr_t)mvm_version, &own) != 0);
  snprintf(path, size, "%s.copy", where.state);
  snprintf(command, sizeof command, "cp '%s' '%s'", own.dli_fname, path);
  REQUIRE(system(command) == 0);
  void *copy = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(copy != NULL);
  unlink(path);
  return copy;
}

static void two_copies_of_the_library_do_not_know_each_others_handles(void) {
  mvm_status (*open_other)(const char *, const char *, mvm_runtime **);
  mvm_status (*close_other)(mvm_runtime *);
  char path[5000], other_state[5000];
  mvm_runtime *own, *other;
  void *copy = second_copy(path, sizeof path);
  *(void **)&open_other = dlsym(copy, "mvm_runtime_open");
  *(void **)&close_other = dlsym(copy, "mvm_runtime_close");
  REQUIRE(open_other != mvm_runtime_open);
  snprintf(other_state, sizeof other_state, "%s.other", where.state);
  own = open_runtime();
  REQUIRE(open_other(other_state, NULL, &other) == MVM_OK);
  REQUIRE(close_other(own) == MVM_ERR_BAD_HANDLE);
  REQUIRE(mvm_runtime_close(other) == MVM_ERR_BAD_HANDLE);
  MUST(mvm_runtime_close(own));
  REQUIRE(close_other(other) == MVM_OK);
}

static atomic_int calling = 1;
static atomic_int strikes;
static mvm_runtime *shared_runtime;
static mvm_vm *shared_vm;

static void *keep_calling(void *argument) {
  while (atomic_load(&calling)) {
    mvm_event event = MVM_EVENT_INIT;
    mvm_log_line line = MVM_LOG_LINE_INIT;
    mvm_vm *vm;
    char *text;
    MUST(mvm_open(shared_runtime, "forked", &vm));
    MUST(mvm_info(vm, &text));
    mvm_string_free(text);
    MUST(mvm_runtime_metrics(shared_runtime, NULL, &text));
    mvm_string_free(text);
    MUST(mvm_log_to_queue(MVM_LOG_DEBUG, 10));
    MUST(mvm_pause(vm));
    MUST(mvm_resume(vm));
    MUST(mvm_runtime_next_event(shared_runtime, 0, &event));
    MUST(mvm_log_next(&line));
    MUST(mvm_release(vm));
  }
  return argument;
}

#define FORKED(call) require((call) == MVM_ERR_FORKED, #call)

/* Every function that takes or makes a handle, and those of the log. */
static void every_call_is_refused(void) {
  const char *argv[] = {"/bin/true", NULL};
  mvm_runtime *runtime = shared_runtime;
  mvm_vm *vm = shared_vm, *vms[1];
  mvm_pool *pool = (mvm_pool *)vm;
  mvm_process *process = (mvm_process *)vm;
  mvm_event event = MVM_EVENT_INIT;
  mvm_log_line line = MVM_LOG_LINE_INIT;
  mvm_exit how = MVM_EXIT_INIT;
  mvm_error error = MVM_ERROR_INIT;
  mvm_vm_state state = MVM_STATE_RUNNING;
  uint64_t number = 0;
  uint8_t byte;
  size_t length;
  int32_t fd = 7;
  char *text = (char *)&byte;
  alarm(30); /* a call that hangs ends the child by a signal */
  FORKED(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_NONE);
  FORKED(mvm_info(vm, &text));
  REQUIRE(text == NULL);
  FORKED(mvm_runtime_open(where.state, where.options, &runtime));
  FORKED(mvm_runtime_check(NULL, NULL, NULL, &text, NULL));
  REQUIRE(text == NULL);
  runtime = shared_runtime;
  FORKED(mvm_runtime_close(runtime));
  FORKED(mvm_runtime_list(runtime, &text));
  FORKED(mvm_runtime_report(runtime, &text));
  FORKED(mvm_runtime_reap(runtime, 0, &text));
  FORKED(mvm_runtime_interrupt(runtime, "forked"));
  FORKED(mvm_runtime_metrics(runtime, NULL, &text));
  FORKED(mvm_runtime_next_event(runtime, 0, &event));
  FORKED(mvm_runtime_events_fd(runtime, &fd));
  REQUIRE(fd == -1);
  FORKED(mvm_create(runtime, "x", "{}", &vm));
  FORKED(mvm_open(runtime, "forked", &vm));
  vm = shared_vm;
  FORKED(mvm_start(vm));
  FORKED(mvm_pause(vm));
  FORKED(mvm_resume(vm));
  FORKED(mvm_shutdown(vm, 0, 0, NULL));
  FORKED(mvm_shutdown_report(vm, &text));
  FORKED(mvm_kill(vm));
  FORKED(mvm_wait(vm, 0, &how));
  FORKED(mvm_exit_fd(vm, &fd));
  FORKED(mvm_destroy(vm));
  FORKED(mvm_rename(vm, "y"));
  FORKED(mvm_interrupt(vm));
  FORKED(mvm_request(vm, "GET", "/", NULL, NULL));
  FORKED(mvm_console_read(vm, &number, &byte, 1, &length));
  FORKED(mvm_metrics(vm, &text));
  FORKED(mvm_metrics_flush(vm));
  FORKED(mvm_release(vm));
  FORKED(mvm_snapshot_create(vm, "s", NULL, NULL));
  FORKED(mvm_snapshot_list(runtime, &text));
  FORKED(mvm_snapshot_info(runtime, "s", &text));
  FORKED(mvm_snapshot_verify(runtime, "s", MVM_FOREVER, NULL));
  FORKED(mvm_snapshot_merge(runtime, "s", NULL, NULL));
  FORKED(mvm_snapshot_delete(runtime, "s"));
  FORKED(mvm_restore(runtime, "s", "x", NULL, &vm));
  vm = shared_vm;
  FORKED(mvm_working_set_store(vm, &number));
  FORKED(mvm_clone(runtime, "s", 1, NULL, vms));
  FORKED(mvm_pool_open(runtime, "p", "{}", &pool));
  FORKED(mvm_pool_take(pool, "x", NULL, &vm));
  FORKED(mvm_pool_info(pool, &text));
  FORKED(mvm_pool_destroy((mvm_pool *)shared_vm));
  FORKED(mvm_pool_release((mvm_pool *)shared_vm));
  vm = shared_vm;
  FORKED(mvm_balloon_set(vm, 1, 0, NULL));
  FORKED(mvm_balloon_statistics(vm, &text));
  FORKED(mvm_memory_hotplug(vm, 1, 0, NULL));
  FORKED(mvm_drive_update(vm, "d", NULL, NULL));
  FORKED(mvm_network_update(vm, "n", NULL, NULL));
  FORKED(mvm_device_attach(vm, "drives", "{}"));
  FORKED(mvm_device_detach(vm, "drives", "d"));
  FORKED(mvm_log_to_queue(MVM_LOG_INFO, 1));
  FORKED(mvm_log_to_fd(MVM_LOG_INFO, 2));
  FORKED(mvm_log_next(&line));
  FORKED(mvm_log_queue_fd(&fd));
  FORKED(mvm_process_spawn(argv, NULL, NULL, NULL, &process));
  process = (mvm_process *)shared_vm;
  FORKED(mvm_process_shutdown(process, 0, 0, NULL));
  FORKED(mvm_process_wait(process, 0, &how));
  FORKED(mvm_process_pid(process, &fd));
  FORKED(mvm_process_interrupt(process));
  FORKED(mvm_process_release(process));
  mvm_cancel *token;
  FORKED(mvm_cancel_create(&token));
  token = (mvm_cancel *)shared_vm;
  FORKED(mvm_cancel_bind(token));
  FORKED(mvm_cancel_raise(token));
  FORKED(mvm_cancel_release(token));
  /* These take no lock, and tell what there is to tell. */
  REQUIRE(mvm_last_error(&error) == MVM_OK && error.status == MVM_ERR_FORKED);
  REQUIRE(mvm_version() == MVM_VERSION_NUMBER && mvm_status_name(error.status) != NULL);
  mvm_string_free(NULL);
}

static void a_child_that_was_forked_in_the_middle_of_calls_hangs_in_none(void) {
  enum { FORKS = 100, THREADS = 3 };
  pthread_t threads[THREADS];
  char spec[8192];
  shared_runtime = open_runtime();
  MUST(mvm_create(shared_runtime, "forked", example_spec(&where, "obey", spec, sizeof spec), &shared_vm));
  MUST(mvm_start(shared_vm));
  for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, keep_calling, NULL) == 0);
  for (int i = 0; i < FORKS; i++) {
    pid_t child = fork();
    if (child == 0) {
      every_call_is_refused();
      _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    REQUIRE(status == 0);
  }
  atomic_store(&calling, 0);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  MUST(mvm_destroy(shared_vm));
  MUST(mvm_runtime_close(shared_runtime));
}

static void *first_call(void *argument) {
  mvm_error error = MVM_ERROR_INIT;
  (void)mvm_last_error(&error);
  return argument;
}

/* The library makes itself ready in the very first call: a fork may come in the middle of that. */
static void fork_in_the_first_call(void) {
  pthread_t thread;
  mvm_error error = MVM_ERROR_INIT;
  REQUIRE(pthread_create(&thread, NULL, first_call, NULL) == 0);
  pid_t child = fork();
  if (child == 0) {
    alarm(30);
    (void)mvm_last_error(&error);
    (void)mvm_release((mvm_vm *)0x1234);
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  REQUIRE(status == 0);
  pthread_join(thread, NULL);
}

static void a_child_that_was_forked_in_the_very_first_call_does_not_hang(void) {
  for (int i = 0; i < 50; i++) {
    pid_t host = fork();
    if (host == 0) {
      fork_in_the_first_call();
      _exit(0);
    }
    int status = -1;
    waitpid(host, &status, 0);
    REQUIRE(status == 0);
  }
}

static void end(mvm_vm *vm) {
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

/* Every kind of operation, and some that fail with a long story. */
static void *live_on_a_small_stack(void *argument) {
  static char spec[8192];
  static mvm_error error;
  static mvm_event event;
  mvm_runtime *runtime;
  mvm_vm *vm, *vms[2];
  mvm_pool *pool;
  mvm_shutdown_outcome outcome;
  char *text;
  const char *argv[] = {"/bin/true", NULL};
  mvm_process *process;
  mvm_exit how = {.size = sizeof how};
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  example_spec(&where, "obey", spec, sizeof spec);
  memcpy(strstr(spec, "128"), " 20", 3);
  MUST(mvm_create(runtime, "small", spec, &vm));
  REQUIRE(mvm_create(runtime, "small", spec, &vms[0]) == MVM_ERR_ALREADY_EXISTS);
  REQUIRE(mvm_create(runtime, "wrong", "{\"drives\":[[[[[[[[1]]]]]]]],\"machine-config\":{}}", &vms[0]) != MVM_OK);
  REQUIRE(mvm_create(runtime, "wrong", "{\"boot-source\":{\"kernel_image_path\":\"/none\"}}", &vms[0]) != MVM_OK);
  error.size = sizeof error;
  MUST(mvm_last_error(&error));
  MUST(mvm_start(vm));
  MUST(mvm_pause(vm));
  MUST(mvm_resume(vm));
  MUST(mvm_info(vm, &text));
  mvm_string_free(text);
  MUST(mvm_metrics_flush(vm));
  MUST(mvm_metrics(vm, &text));
  mvm_string_free(text);
  MUST(mvm_snapshot_create(vm, "base", "{\"checksums\":\"taken\"}", NULL));
  MUST(mvm_snapshot_create(vm, "more", "{\"type\":\"diff\"}", NULL));
  MUST(mvm_shutdown(vm, MVM_DEFAULT_GRACE_MS, MVM_DEFAULT_POLL_MS, &outcome));
  MUST(mvm_start(vm));
  MUST(mvm_rename(vm, "renamed"));
  end(vm);
  MUST(mvm_snapshot_verify(runtime, "base", MVM_FOREVER, NULL));
  MUST(mvm_restore(runtime, "more", "restored", NULL, &vm));
  end(vm);
  MUST(mvm_snapshot_merge(runtime, "more", NULL, NULL));
  MUST(mvm_clone(runtime, "more", 2, NULL, vms));
  end(vms[0]);
  end(vms[1]);
  MUST(mvm_pool_open(runtime, "pool", "{\"snapshot\":\"more\",\"size\":1}", &pool));
  MUST(mvm_pool_take(pool, "taken", NULL, &vm));
  end(vm);
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
  MUST(mvm_snapshot_delete(runtime, "more"));
  MUST(mvm_snapshot_delete(runtime, "base"));
  MUST(mvm_process_spawn(argv, NULL, NULL, NULL, &process));
  MUST(mvm_process_wait(process, 30000, &how));
  MUST(mvm_process_release(process));
  event.size = sizeof event;
  do MUST(mvm_runtime_next_event(runtime, 0, &event));
  while (event.kind != MVM_EVENT_NONE);
  MUST(mvm_runtime_reap(runtime, 0, &text));
  mvm_string_free(text);
  MUST(mvm_runtime_close(runtime));
  return argument;
}

/* What the first page of the header promises, of a release build; a debug build needs more. */
static void a_thread_with_a_small_stack_may_make_every_call(void) {
  Dl_info own;
  REQUIRE(dladdr((void *)(uintptr_t)mvm_version, &own) != 0);
  const size_t promised = (strstr(own.dli_fname, "/debug/") != NULL ? 128 : 32) * 1024;
  size_t size = promised < (size_t)PTHREAD_STACK_MIN ? (size_t)PTHREAD_STACK_MIN : promised;
  pthread_attr_t attributes;
  pthread_t thread;
  REQUIRE(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, size) == 0);
  REQUIRE(pthread_create(&thread, &attributes, live_on_a_small_stack, NULL) == 0);
  pthread_join(thread, NULL);
}

static void strike(int signal) {
  (void)signal;
  atomic_fetch_add(&strikes, 1);
}

/* A host with a profiler, or with Go's preemption, at its worst: a signal every 30 microseconds, without SA_RESTART. */
static void a_storm_of_signals_disturbs_no_call(void) {
  struct sigaction action = {.sa_handler = strike};
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
  struct itimerspec often = {{0, 30000}, {0, 30000}};
  timer_t timer;
  sigaction(SIGALRM, &action, NULL);
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
  live_on_a_small_stack(NULL);
  timer_delete(timer);
  REQUIRE(atomic_load(&strikes) > 100);
}

int main(int argc, char **argv) {
  where = example_from(argc, argv);
  HOST(a_small_limit_on_files_is_an_error_and_no_signal);
  if (getenv("VALGRIND") == NULL) {
    HOST(a_thread_with_a_small_stack_may_make_every_call);
    HOST(a_storm_of_signals_disturbs_no_call);
    HOST(two_copies_of_the_library_do_not_know_each_others_handles);
    HOST(a_child_that_was_forked_in_the_middle_of_calls_hangs_in_none);
    HOST(a_child_that_was_forked_in_the_very_first_call_does_not_hang);
  }
  return 0;
}
