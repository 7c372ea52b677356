/*
 * Cancel tokens: one that was raised before a call, while calls run, and one that is released while it is bound.
 */
#include "example.h"
#include "hosting.h"
#include <pthread.h>
#include <signal.h>
#include <time.h>

static struct example where;

/* All that the calls are made on. */
static struct {
  mvm_runtime *runtime;
  mvm_vm *running, *paused, *stopped;
  mvm_pool *pool;
  mvm_process *process;
  char spec[8192];
} host;

static mvm_vm *boot(const char *id) {
  mvm_vm *vm;
  MUST(mvm_create(host.runtime, id, host.spec, &vm));
  MUST(mvm_start(vm));
  return vm;
}

static void open_host(void) {
  const char *argv[] = {"/bin/sleep", "1000", NULL};
  MUST(mvm_runtime_open(where.state, where.options, &host.runtime));
  example_spec(&where, "obey", host.spec, sizeof host.spec);
  host.running = boot("running");
  host.paused = boot("paused");
  MUST(mvm_snapshot_create(host.paused, "base", "{\"checksums\":\"taken\"}", NULL));
  MUST(mvm_snapshot_create(host.paused, "diff", "{\"type\":\"diff\"}", NULL));
  MUST(mvm_pause(host.paused));
  host.stopped = boot("stopped");
  MUST(mvm_kill(host.stopped));
  MUST(mvm_pool_open(host.runtime, "pool", "{\"snapshot\":\"base\",\"size\":1}", &host.pool));
  for (mvm_pool_counts counts = MVM_POOL_COUNTS_INIT; counts.ready != 1;) MUST(mvm_pool_count(host.pool, &counts));
  MUST(mvm_process_spawn(argv, NULL, NULL, NULL, &host.process));
  mvm_event event = MVM_EVENT_INIT;
  do MUST(mvm_runtime_next_event(host.runtime, 0, &event));
  while (event.kind != MVM_EVENT_NONE);
}

static void close_host(void) {
  MUST(mvm_process_shutdown(host.process, 0, 0, NULL));
  MUST(mvm_process_release(host.process));
  MUST(mvm_pool_destroy(host.pool));
  MUST(mvm_pool_release(host.pool));
  mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
  for (;;) {
    mvm_vm *handle;
    MUST(mvm_runtime_next_vm(host.runtime, "", &vm));
    if (vm.id[0] == '\0') break;
    MUST(mvm_open(host.runtime, vm.id, &handle));
    MUST(mvm_destroy(handle));
  }
  (void)mvm_snapshot_delete(host.runtime, "late");
  (void)mvm_snapshot_delete(host.runtime, "diff");
  MUST(mvm_snapshot_delete(host.runtime, "base"));
  MUST(mvm_runtime_close(host.runtime));
}

/* What there is, in a few words. */
static void describe(char *text, size_t size) {
  mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
  mvm_snapshot_summary snapshot = MVM_SNAPSHOT_SUMMARY_INIT;
  mvm_pool_counts counts = MVM_POOL_COUNTS_INIT;
  int32_t pid = 0, alive;
  size_t length = 0;
  for (;;) {
    MUST(mvm_runtime_next_vm(host.runtime, vm.id, &vm));
    if (vm.id[0] == '\0') break;
    length += (size_t)snprintf(text + length, size - length, "%s %s, ", vm.id, mvm_state_name(vm.state));
  }
  for (;;) {
    MUST(mvm_snapshot_next(host.runtime, snapshot.id, &snapshot));
    if (snapshot.id[0] == '\0') break;
    length += (size_t)snprintf(text + length, size - length, "%s %d, ", snapshot.id, (int)snapshot.kind);
  }
  MUST(mvm_pool_count(host.pool, &counts));
  MUST(mvm_process_pid(host.process, &pid));
  alive = kill(pid, 0);
  snprintf(text + length, size - length, "%d in the pool, process %d", (int)counts.ready, (int)alive);
}

#define CALLS(DO) \
  DO(mvm_create(host.runtime, "late", host.spec, &vm)) \
  DO(mvm_start(host.stopped)) \
  DO(mvm_pause(host.running)) \
  DO(mvm_resume(host.paused)) \
  DO(mvm_shutdown(host.running, 1000, 0, NULL)) \
  DO(mvm_shutdown(host.running, 0, 0, NULL)) \
  DO(mvm_kill(host.running)) \
  DO(mvm_wait(host.running, 1000, &how)) \
  DO(mvm_destroy(host.running)) \
  DO(mvm_destroy(host.stopped)) \
  DO(mvm_rename(host.running, "late")) \
  DO(mvm_request(host.running, "PATCH", "/vm", "{\"state\":\"Paused\"}", &text)) \
  DO(mvm_snapshot_create(host.running, "late", NULL, NULL)) \
  DO(mvm_snapshot_verify(host.runtime, "base", MVM_FOREVER, NULL)) \
  DO(mvm_snapshot_merge(host.runtime, "diff", NULL, NULL)) \
  DO(mvm_restore(host.runtime, "base", "late", NULL, &vm)) \
  DO(mvm_working_set_store(host.running, &number)) \
  DO(mvm_clone(host.runtime, "base", 2, NULL, vms)) \
  DO(mvm_pool_take(host.pool, "late", NULL, &vm)) \
  DO(mvm_pool_destroy(host.pool)) \
  DO(mvm_balloon_set(host.running, 1, 0, NULL)) \
  DO(mvm_balloon_statistics(host.running, &text)) \
  DO(mvm_memory_hotplug(host.running, 1, 0, NULL)) \
  DO(mvm_drive_update(host.running, "d", NULL, NULL)) \
  DO(mvm_network_update(host.running, "n", NULL, NULL)) \
  DO(mvm_device_attach(host.running, "drives", "{\"drive_id\":\"d\",\"path_on_host\":\"/dev/null\"}")) \
  DO(mvm_device_detach(host.running, "drives", "d")) \
  DO(mvm_runtime_next_event(host.runtime, 1000, &event)) \
  DO(mvm_metrics_flush(host.running)) \
  DO(mvm_process_wait(host.process, 1000, &how)) \
  DO(mvm_process_shutdown(host.process, 0, 0, NULL))

static void a_raised_token_ends_every_call_before_it_does_anything(void) {
  mvm_cancel *token;
  mvm_vm *vm, *vms[2];
  mvm_exit how = MVM_EXIT_INIT;
  mvm_event event = MVM_EVENT_INIT;
  uint64_t number;
  char *text, before[4096], after[4096];
  int wrong = 0;
  open_host();
  MUST(mvm_cancel_create(&token));
  MUST(mvm_cancel_raise(token));
  describe(before, sizeof before);
#define REFUSED(call) \
  { \
    MUST(mvm_cancel_bind(token)); \
    mvm_status status = (call); \
    MUST(mvm_cancel_bind(NULL)); \
    describe(after, sizeof after); \
    if (status != MVM_ERR_INTERRUPTED || strcmp(before, after) != 0) { \
      fprintf(stderr, "WRONG: %s: %s\n  before: %s\n  after:  %s\n", #call, mvm_status_name(status), before, after); \
      strcpy(before, after); \
      wrong = 1; \
    } \
  }
  CALLS(REFUSED)
  REQUIRE(!wrong);
  MUST(mvm_cancel_release(token));
  close_host();
}

static void *raise_later(void *token) {
  static _Atomic long round;
  struct timespec delay = {0, round++ % 40 * 250000};
  nanosleep(&delay, NULL);
  MUST(mvm_cancel_raise(token));
  return NULL;
}

/* Half handed over, or half made, is nobody's: nothing is left of it, and the call ends soon. */
static void a_call_that_is_cancelled_midway_leaves_nothing(void) {
  mvm_vm *vm, *vms[2];
  mvm_cancel *token;
  pthread_t thread;
  int done = 0, cancelled = 0;
  open_host();
  for (int i = 0; i < 120; i++) {
    mvm_status status;
    vm = NULL;
    MUST(mvm_cancel_create(&token));
    MUST(mvm_cancel_bind(token));
    REQUIRE(pthread_create(&thread, NULL, raise_later, token) == 0);
    switch (i % 4) {
      case 0: status = mvm_pool_take(host.pool, "late", NULL, &vm); break;
      case 1: status = mvm_clone(host.runtime, "base", 2, NULL, vms); break;
      case 2: status = mvm_restore(host.runtime, "base", "late", NULL, &vm); break;
      default: status = mvm_snapshot_create(host.running, "late", NULL, NULL); break;
    }
    pthread_join(thread, NULL);
    MUST(mvm_cancel_bind(NULL));
    MUST(mvm_cancel_release(token));
    REQUIRE(status == MVM_OK || status == MVM_ERR_INTERRUPTED);
    if (status == MVM_OK) {
      done++;
      if (vm != NULL) MUST(mvm_destroy(vm));
      if (i % 4 == 1) for (int n = 0; n < 2; n++) MUST(mvm_destroy(vms[n]));
      if (i % 4 == 3) MUST(mvm_snapshot_delete(host.runtime, "late"));
    } else {
      cancelled++;
      mvm_snapshot_summary snapshot = MVM_SNAPSHOT_SUMMARY_INIT;
      mvm_vm_summary last = MVM_VM_SUMMARY_INIT;
      int others = 0;
      for (;;) {
        MUST(mvm_runtime_next_vm(host.runtime, last.id, &last));
        if (last.id[0] == '\0') break;
        others += strncmp(last.id, "pool-", 5) != 0;
      }
      REQUIRE(others == 3);
      MUST(mvm_snapshot_next(host.runtime, "diff", &snapshot));
      REQUIRE(snapshot.id[0] == '\0');
    }
  }
  printf("      %d done, %d cancelled\n", done, cancelled);
  fflush(stdout);
  mvm_vm_state state;
  MUST(mvm_pause(host.running));
  MUST(mvm_resume(host.running));
  MUST(mvm_state(host.running, &state));
  REQUIRE(state == MVM_STATE_RUNNING);
  close_host();
}

static void *end_while_bound(void *token) {
  (void)mvm_cancel_bind(token); /* which may be released by now */
  return NULL;
}

/* Threads come and go with tokens bound to them, and tokens are released while calls run. */
static void a_token_may_be_released_while_it_is_bound(void) {
  mvm_cancel *token;
  mvm_exit how = MVM_EXIT_INIT;
  pthread_t thread;
  open_host();
  for (int i = 0; i < 100; i++) {
    MUST(mvm_cancel_create(&token));
    REQUIRE(pthread_create(&thread, NULL, end_while_bound, token) == 0);
    if (i % 2 == 0) pthread_join(thread, NULL);
    mvm_status released = mvm_cancel_release(token);
    if (i % 2 != 0) pthread_join(thread, NULL);
    REQUIRE(released == MVM_OK && mvm_cancel_raise(token) == MVM_ERR_BAD_HANDLE);
  }
  MUST(mvm_cancel_create(&token));
  MUST(mvm_cancel_bind(token));
  MUST(mvm_cancel_release(token));
  REQUIRE(mvm_wait(host.running, 10, &how) == MVM_ERR_TIMEOUT);
  REQUIRE(mvm_cancel_bind(token) == MVM_ERR_BAD_HANDLE);
  MUST(mvm_cancel_bind(NULL));
  close_host();
}

int main(int argc, char **argv) {
  where = example_from(argc, argv);
  HOST(a_raised_token_ends_every_call_before_it_does_anything);
  HOST(a_call_that_is_cancelled_midway_leaves_nothing);
  HOST(a_token_may_be_released_while_it_is_bound);
  return 0;
}
