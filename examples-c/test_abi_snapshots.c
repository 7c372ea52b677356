/* The ABI of snapshots, clones, pools and devices held against callers who do everything wrong; see test_abi.c. */
#include "example.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

static void is(mvm_status got, mvm_status wanted, const char *what, const char *with) {
  if (got == wanted) return;
  tell(what);
  fprintf(stderr, "WRONG: %s with %s: %s, and %s was expected\n", what, with, mvm_status_name(got),
          mvm_status_name(wanted));
  failures++;
}
#define IS(call, wanted) is((call), (wanted), #call, "that")

static void check(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "WRONG: %s\n", what);
  failures++;
}
#define CHECK(condition) check((condition), #condition)

static char untouched[] = "untouched";

/* Every call on a VM, with one handle. */
static void calls_on_a_vm_say(mvm_vm *vm, mvm_status wanted) {
  char *text = untouched;
  uint64_t number = 7;
  IS(mvm_rename(vm, "other"), wanted);
  IS(mvm_snapshot_create(vm, "never", NULL, &text), wanted);
  CHECK(text == NULL);
  IS(mvm_snapshot_create(vm, "never", NULL, NULL), wanted);
  IS(mvm_balloon_set(vm, 8, 0, &number), wanted);
  CHECK(number == MVM_UNKNOWN);
  IS(mvm_balloon_statistics(vm, &text), wanted);
  number = 7;
  IS(mvm_memory_hotplug(vm, 8, 0, &number), wanted);
  CHECK(number != 7);
  IS(mvm_drive_update(vm, "data", "/dev/null", NULL), wanted);
  IS(mvm_network_update(vm, "eth0", "{}", NULL), wanted);
  IS(mvm_device_attach(vm, "drives", "{}"), wanted);
  IS(mvm_device_detach(vm, "drives", "data"), wanted);
}

/* Every call on a runtime, with a handle that is none. */
static void calls_on_a_bad_runtime(mvm_runtime *bad) {
  char *text = untouched;
  mvm_vm *vm, *vms[2] = {(mvm_vm *)(void *)untouched, (mvm_vm *)(void *)untouched};
  mvm_pool *pool = (mvm_pool *)(void *)untouched;
  vm = vms[0];
  IS(mvm_snapshot_list(bad, &text), MVM_ERR_BAD_HANDLE);
  CHECK(text == NULL);
  mvm_snapshot_summary summary = {.size = sizeof summary, .time_ms = 7};
  IS(mvm_snapshot_next(bad, NULL, &summary), MVM_ERR_BAD_HANDLE);
  CHECK(summary.time_ms == 0 && summary.size == sizeof summary);
  text = untouched;
  IS(mvm_snapshot_info(bad, "base", &text), MVM_ERR_BAD_HANDLE);
  CHECK(text == NULL);
  text = untouched;
  IS(mvm_snapshot_verify(bad, "base", MVM_FOREVER, &text), MVM_ERR_BAD_HANDLE);
  CHECK(text == NULL);
  text = untouched;
  IS(mvm_snapshot_merge(bad, "base", NULL, &text), MVM_ERR_BAD_HANDLE);
  CHECK(text == NULL);
  IS(mvm_snapshot_delete(bad, "base"), MVM_ERR_BAD_HANDLE);
  IS(mvm_restore(bad, "base", "new", NULL, &vm), MVM_ERR_BAD_HANDLE);
  CHECK(vm == NULL);
  IS(mvm_clone(bad, "base", 2, NULL, vms), MVM_ERR_BAD_HANDLE);
  CHECK(vms[0] == NULL && vms[1] == NULL);
  IS(mvm_pool_open(bad, "pool", "{\"snapshot\":\"base\"}", &pool), MVM_ERR_BAD_HANDLE);
  CHECK(pool == NULL);
}

static void calls_on_a_bad_pool(mvm_pool *bad) {
  char *text = untouched;
  mvm_vm *vm = (mvm_vm *)(void *)untouched;
  IS(mvm_pool_take(bad, "taken", NULL, &vm), MVM_ERR_BAD_HANDLE);
  CHECK(vm == NULL);
  IS(mvm_pool_info(bad, &text), MVM_ERR_BAD_HANDLE);
  CHECK(text == NULL);
  mvm_pool_counts counts = {.size = sizeof counts, .ready = 7, .failed = 7};
  IS(mvm_pool_count(bad, &counts), MVM_ERR_BAD_HANDLE);
  CHECK(counts.ready == 0 && counts.failed == 0 && counts.size == sizeof counts);
  IS(mvm_pool_destroy(bad), MVM_ERR_BAD_HANDLE);
  if (bad != NULL) IS(mvm_pool_release(bad), MVM_ERR_BAD_HANDLE);
}

static void calls_on_a_destroyed_pool(mvm_pool *pool) {
  char *text = untouched;
  mvm_vm *vm = (mvm_vm *)(void *)untouched;
  mvm_pool_counts counts = MVM_POOL_COUNTS_INIT;
  IS(mvm_pool_take(pool, "taken", NULL, &vm), MVM_ERR_NOT_FOUND);
  CHECK(vm == NULL);
  IS(mvm_pool_info(pool, &text), MVM_ERR_NOT_FOUND);
  CHECK(text == NULL);
  IS(mvm_pool_count(pool, &counts), MVM_ERR_NOT_FOUND);
}

static mvm_pool *open_pool(mvm_runtime *runtime, const char *name) {
  mvm_pool *pool;
  MUST(mvm_pool_open(runtime, name, "{\"snapshot\":\"base\",\"size\":1}", &pool));
  return pool;
}

static void handles(mvm_runtime *runtime, mvm_vm *vm, const char *spec) {
  int on_the_stack = 0;
  mvm_vm *gone;
  mvm_pool *pool = open_pool(runtime, "handles");
  void *bad[] = {NULL, &on_the_stack, runtime, vm, pool, (void *)~(uintptr_t)0};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    if (bad[i] != (void *)vm) calls_on_a_vm_say(bad[i], MVM_ERR_BAD_HANDLE);
    if (bad[i] != (void *)runtime) calls_on_a_bad_runtime(bad[i]);
    if (bad[i] != (void *)pool) calls_on_a_bad_pool(bad[i]);
  }
  for (uintptr_t off = 1; off < 64; off++) calls_on_a_bad_pool((mvm_pool *)((uintptr_t)pool + off));
  IS(mvm_release((mvm_vm *)(void *)pool), MVM_ERR_BAD_HANDLE);
  IS(mvm_runtime_close((mvm_runtime *)(void *)pool), MVM_ERR_BAD_HANDLE);
  IS(mvm_pool_release(NULL), MVM_OK);
  IS(mvm_pool_destroy(pool), MVM_OK);
  IS(mvm_pool_destroy(pool), MVM_OK);
  calls_on_a_destroyed_pool(pool);
  IS(mvm_pool_release(pool), MVM_OK);
  calls_on_a_bad_pool(pool);
  MUST(mvm_create(runtime, "gone", spec, &gone));
  MUST(mvm_destroy(gone));
  calls_on_a_vm_say(gone, MVM_ERR_NOT_FOUND);
  MUST(mvm_release(gone));
}

static void nulls(mvm_runtime *runtime, mvm_vm *vm) {
  char *text = untouched;
  mvm_vm *made = (mvm_vm *)(void *)untouched, *vms[2] = {made, made};
  mvm_pool *pool = (mvm_pool *)(void *)untouched;
  IS(mvm_rename(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_create(vm, NULL, NULL, &text), MVM_ERR_INVALID_ARGUMENT);
  CHECK(text == NULL);
  IS(mvm_snapshot_list(runtime, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_info(runtime, NULL, &text), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_info(runtime, "base", NULL), MVM_ERR_INVALID_ARGUMENT);
  mvm_snapshot_summary summary = {.size = sizeof summary - 1};
  IS(mvm_snapshot_next(runtime, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_next(runtime, NULL, &summary), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_verify(runtime, "base", 0, &text), MVM_ERR_TIMEOUT);
  IS(mvm_snapshot_verify(runtime, NULL, MVM_FOREVER, &text), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_verify(runtime, "base", MVM_FOREVER, NULL), MVM_OK);
  IS(mvm_snapshot_merge(runtime, NULL, NULL, &text), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_merge(runtime, "base", NULL, NULL), MVM_ERR_BAD_STATE);
  IS(mvm_snapshot_delete(runtime, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_restore(runtime, NULL, "new", NULL, &made), MVM_ERR_INVALID_ARGUMENT);
  CHECK(made == NULL);
  IS(mvm_restore(runtime, "base", NULL, NULL, &made), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_restore(runtime, "base", "new", NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_clone(runtime, NULL, 2, NULL, vms), MVM_ERR_INVALID_ARGUMENT);
  CHECK(vms[0] == NULL && vms[1] == NULL);
  IS(mvm_clone(runtime, "base", 2, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_clone(runtime, "base", 0, NULL, NULL), MVM_OK);
  IS(mvm_pool_open(runtime, NULL, "{\"snapshot\":\"base\"}", &pool), MVM_ERR_INVALID_ARGUMENT);
  CHECK(pool == NULL);
  IS(mvm_pool_open(runtime, "nulls", NULL, &pool), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_pool_open(runtime, "nulls", "{\"snapshot\":\"base\"}", NULL), MVM_ERR_INVALID_ARGUMENT);
  pool = open_pool(runtime, "nulls");
  IS(mvm_pool_take(pool, NULL, NULL, &made), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_pool_take(pool, "new", NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_pool_info(pool, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_pool_count(pool, NULL), MVM_ERR_INVALID_ARGUMENT);
  mvm_pool_counts counts = {.size = sizeof counts - 1, .ready = 7};
  IS(mvm_pool_count(pool, &counts), MVM_ERR_INVALID_ARGUMENT);
  CHECK(counts.ready == 7);
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
  IS(mvm_balloon_statistics(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_drive_update(vm, NULL, "/dev/null", NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_network_update(vm, NULL, "{}", "{}"), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_device_attach(vm, NULL, "{}"), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_device_attach(vm, "drives", NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_device_detach(vm, NULL, "data"), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_device_detach(vm, "drives", NULL), MVM_ERR_INVALID_ARGUMENT);
}

/* The calls that take options, each with the same ones. */
struct call {
  mvm_runtime *runtime;
  mvm_vm *vm;
  mvm_pool *pool;
};

static mvm_status create_with(struct call call, const char *options) {
  char *text = untouched;
  mvm_status status = mvm_snapshot_create(call.vm, "never", options, &text);
  CHECK(text == NULL);
  return status;
}

static mvm_status merge_with(struct call call, const char *options) {
  char *text = untouched;
  mvm_status status = mvm_snapshot_merge(call.runtime, "base", options, &text);
  CHECK(text == NULL);
  return status;
}

static mvm_status restore_with(struct call call, const char *options) {
  mvm_vm *vm = (mvm_vm *)(void *)untouched;
  mvm_status status = mvm_restore(call.runtime, "base", "never", options, &vm);
  CHECK(vm == NULL);
  return status;
}

static mvm_status clone_with(struct call call, const char *options) {
  mvm_vm *vms[2] = {(mvm_vm *)(void *)untouched, (mvm_vm *)(void *)untouched};
  mvm_status status = mvm_clone(call.runtime, "base", 2, options, vms);
  CHECK(vms[0] == NULL && vms[1] == NULL);
  return status;
}

static mvm_status open_pool_with(struct call call, const char *options) {
  mvm_pool *pool = (mvm_pool *)(void *)untouched;
  mvm_status status = mvm_pool_open(call.runtime, "never", options, &pool);
  CHECK(pool == NULL);
  mvm_pool_release(pool);
  return status;
}

static mvm_status take_with(struct call call, const char *options) {
  mvm_vm *vm = (mvm_vm *)(void *)untouched;
  mvm_status status = mvm_pool_take(call.pool, "never", options, &vm);
  CHECK(vm == NULL);
  return status;
}

enum { MOST = 16 };

static const struct {
  mvm_status (*call)(struct call call, const char *options);
  const char *name;
  const char *wrong[MOST]; /* besides what is wrong everywhere */
} with_options[] = {
    {create_with, "mvm_snapshot_create",
     {"{\"type\":7}", "{\"type\":\"whole\"}", "{\"after\":\"stay\"}", "{\"disks\":[]}", "{\"checksums\":true}",
      "{\"deadline_ms\":-1}", "{\"deadline_ms\":\"soon\"}", "{\"deadline_ms\":1e300}"}},
    {merge_with, "mvm_snapshot_merge", {"{\"checksums\":\"some\"}", "{\"deadline_ms\":{}}"}},
    {restore_with, "mvm_restore",
     {"{\"memory\":\"none\"}", "{\"after\":1}", "{\"verify\":\"never\"}", "{\"drives\":{}}",
      "{\"drives\":[{\"drive_id\":\"a\"}]}", "{\"network_overrides\":[{}]}", "{\"vsock_override\":{}}",
      "{\"mmds\":[]}", "{\"mmds\":\"x\"}", "{\"pager\":7}", "{\"pager\":{\"worker\":1}}",
      "{\"pager\":{\"run_in\":\"kernel\"}}", "{\"pager\":{\"record\":{\"for\":1}}}", "{\"mvm\":7}",
      "{\"mvm\":{\"jail\":1}}", "{\"track_dirty_pages\":\"yes\"}"}},
    {clone_with, "mvm_clone",
     {"{\"ids\":\"a\"}", "{\"ids\":[\"a\"]}", "{\"ids\":[\"a\",\"b\",\"c\"]}", "{\"ids\":[1,2]}", "{\"prefix\":7}",
      "{\"each\":[{}]}", "{\"each\":[7,8]}", "{\"each\":{}}", "{\"each\":[{},{\"memory\":\"none\"}]}",
      "{\"each\":[{},{\"ids\":[]}]}", "{\"memory\":7}", "{\"{id}\":1}"}},
    {open_pool_with, "mvm_pool_open",
     {"{}", "{\"snapshot\":\"base\",\"spec\":{}}", "{\"snapshot\":7}", "{\"snapshot\":\"base\",\"size\":-1}",
      "{\"snapshot\":\"base\",\"size\":\"4\"}", "{\"snapshot\":\"base\",\"when_empty\":\"wait\"}",
      "{\"snapshot\":\"base\",\"refill_per_second\":\"many\"}", "{\"snapshot\":\"base\",\"restore\":7}",
      "{\"snapshot\":\"base\",\"restore\":{\"memories\":1}}", "{\"snapshot\":\"base\",\"pool\":1}", "{\"spec\":7}",
      "{\"spec\":{\"mvm\":{\"nothing\":1}}}"}},
    {take_with, "mvm_pool_take",
     {"{\"after\":\"later\"}", "{\"drives\":[7]}", "{\"drives\":[{\"drive_id\":\"a\"}]}", "{\"mmds\":7}"}},
};

static void bad_json(struct call call) {
  static const char *const everywhere[] = {"",     "{",   "[]",  "7",          "null",
                                           "\"x\"", "{}}", "nil", "{\"no_such_key\":1}"};
  for (size_t i = 0; i < sizeof with_options / sizeof *with_options; i++) {
    for (size_t k = 0; k < sizeof everywhere / sizeof *everywhere; k++)
      is(with_options[i].call(call, everywhere[k]), MVM_ERR_INVALID_CONFIG, with_options[i].name, everywhere[k]);
    for (size_t k = 0; k < MOST && with_options[i].wrong[k] != NULL; k++)
      is(with_options[i].call(call, with_options[i].wrong[k]), MVM_ERR_INVALID_CONFIG, with_options[i].name,
         with_options[i].wrong[k]);
    is(with_options[i].call(call, "\xff"), MVM_ERR_INVALID_ARGUMENT, with_options[i].name, "no UTF-8");
  }
  IS(mvm_drive_update(call.vm, "data", NULL, "{"), MVM_ERR_INVALID_CONFIG);
  IS(mvm_network_update(call.vm, "eth0", "{", NULL), MVM_ERR_INVALID_CONFIG);
  IS(mvm_network_update(call.vm, "eth0", NULL, "}"), MVM_ERR_INVALID_CONFIG);
  IS(mvm_device_attach(call.vm, "drives", "{"), MVM_ERR_INVALID_CONFIG);
  IS(mvm_device_attach(call.vm, "vcpus", "{}"), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_device_detach(call.vm, "vcpus", "a"), MVM_ERR_INVALID_ARGUMENT);
}

static void bad_ids(struct call call) {
  const char *ids[] = {"", "..", ".", "a/b", "a b", ".a.new", "a\n", "\xff\xfe", "\xc3\xa4",
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* 65 */};
  char *text;
  mvm_vm *vm, *vms[1];
  mvm_pool *pool;
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    IS(mvm_rename(call.vm, ids[i]), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_snapshot_create(call.vm, ids[i], NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_snapshot_info(call.runtime, ids[i], &text), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_snapshot_delete(call.runtime, ids[i]), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_restore(call.runtime, ids[i], "never", NULL, &vm), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_restore(call.runtime, "base", ids[i], NULL, &vm), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_clone(call.runtime, ids[i], 1, NULL, vms), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_pool_open(call.runtime, ids[i], "{\"snapshot\":\"base\"}", &pool), MVM_ERR_INVALID_ARGUMENT);
    IS(mvm_pool_take(call.pool, ids[i], NULL, &vm), MVM_ERR_INVALID_ARGUMENT);
  }
  IS(mvm_clone(call.runtime, "base", 1, "{\"ids\":[\"a b\"]}", vms), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_snapshot_info(call.runtime, "nobody", &text), MVM_ERR_NOT_FOUND);
  IS(mvm_snapshot_verify(call.runtime, "nobody", MVM_FOREVER, &text), MVM_ERR_NOT_FOUND);
  IS(mvm_snapshot_merge(call.runtime, "nobody", NULL, &text), MVM_ERR_NOT_FOUND);
  IS(mvm_snapshot_delete(call.runtime, "nobody"), MVM_ERR_NOT_FOUND);
  IS(mvm_restore(call.runtime, "nobody", "never", NULL, &vm), MVM_ERR_NOT_FOUND);
  IS(mvm_clone(call.runtime, "nobody", 1, NULL, vms), MVM_ERR_NOT_FOUND);
  IS(mvm_pool_open(call.runtime, "never", "{\"snapshot\":\"nobody\"}", &pool), MVM_ERR_NOT_FOUND);
  IS(mvm_rename(call.vm, "vm"), MVM_OK); /* what it is called already */
}

/* What is there already is neither replaced nor harmed. */
static void taken_ids(struct call call) {
  mvm_vm *vm, *vms[3] = {NULL, NULL, NULL};
  mvm_pool *pool;
  mvm_vm_state state;
  IS(mvm_snapshot_create(call.vm, "base", NULL, NULL), MVM_ERR_ALREADY_EXISTS);
  IS(mvm_restore(call.runtime, "base", "vm", NULL, &vm), MVM_ERR_ALREADY_EXISTS);
  IS(mvm_clone(call.runtime, "base", 3, "{\"ids\":[\"x\",\"y\",\"vm\"]}", vms), MVM_ERR_ALREADY_EXISTS);
  CHECK(vms[0] == NULL && vms[1] == NULL && vms[2] == NULL);
  IS(mvm_clone(call.runtime, "base", 3, "{\"ids\":[\"x\",\"y\",\"x\"]}", vms), MVM_ERR_ALREADY_EXISTS);
  CHECK(vms[0] == NULL && vms[1] == NULL && vms[2] == NULL);
  IS(mvm_pool_open(call.runtime, "pool", "{\"snapshot\":\"base\"}", &pool), MVM_ERR_ALREADY_EXISTS);
  IS(mvm_pool_take(call.pool, "vm", NULL, &vm), MVM_ERR_ALREADY_EXISTS);
  IS(mvm_snapshot_delete(call.runtime, "base"), MVM_ERR_BUSY); /* the pool is of it */
  IS(mvm_restore(call.runtime, "base", "late", "{\"deadline_ms\":0}", &vm), MVM_ERR_TIMEOUT);
  IS(mvm_snapshot_create(call.vm, "late", "{\"deadline_ms\":0}", NULL), MVM_ERR_TIMEOUT);
  MUST(mvm_state(call.vm, &state));
  CHECK(state == MVM_STATE_RUNNING);
}

/* Nothing of all that is left: the VM, the member of the pool, and the one snapshot. */
static void nothing_was_made(struct call call) {
  mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
  mvm_snapshot_summary snapshot = MVM_SNAPSHOT_SUMMARY_INIT;
  int vms = 0, snapshots = 0;
  for (MUST(mvm_runtime_next_vm(call.runtime, NULL, &vm)); vm.id[0] != '\0';
       MUST(mvm_runtime_next_vm(call.runtime, vm.id, &vm))) {
    CHECK(vm.pool[0] == '\0' || (strcmp(vm.pool, "pool") == 0 && strncmp(vm.id, "pool-", 5) == 0));
    vms += vm.pool[0] == '\0';
  }
  for (MUST(mvm_snapshot_next(call.runtime, NULL, &snapshot)); snapshot.id[0] != '\0';
       MUST(mvm_snapshot_next(call.runtime, snapshot.id, &snapshot))) {
    CHECK(strcmp(snapshot.id, "base") == 0 && snapshot.kind == MVM_SNAPSHOT_FULL && snapshot.parent[0] == '\0');
    CHECK(snapshot.memory_bytes == 20u << 20 && snapshot.allocated_bytes > 0 && snapshot.time_ms > 0);
    snapshots++;
  }
  CHECK(vms == 1 && snapshots == 1);
}

/* The longest name that is allowed is a name that works. */
static void a_long_name(mvm_runtime *runtime) {
  const char *name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; /* 64 */
  mvm_pool *pool;
  mvm_vm *vm;
  mvm_status status = mvm_pool_open(runtime, name, "{\"snapshot\":\"base\",\"size\":1}", &pool);
  if (status == MVM_ERR_INVALID_ARGUMENT) return;
  must_be_ok(status, "mvm_pool_open");
  IS(mvm_pool_take(pool, "long", NULL, &vm), MVM_OK);
  if (vm != NULL) MUST(mvm_destroy(vm));
  mvm_release(vm);
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
}

static void fork_test(struct call call) {
  pid_t child = fork();
  if (child == 0) {
    char *text;
    mvm_vm *vm, *vms[1];
    mvm_pool *pool;
    int wrong = mvm_pool_info(call.pool, &text) != MVM_ERR_FORKED ||
                mvm_pool_take(call.pool, "f", NULL, &vm) != MVM_ERR_FORKED ||
                mvm_pool_open(call.runtime, "f", "{}", &pool) != MVM_ERR_FORKED ||
                mvm_snapshot_create(call.vm, "f", NULL, NULL) != MVM_ERR_FORKED ||
                mvm_snapshot_list(call.runtime, &text) != MVM_ERR_FORKED ||
                mvm_restore(call.runtime, "base", "f", NULL, &vm) != MVM_ERR_FORKED ||
                mvm_clone(call.runtime, "base", 1, NULL, vms) != MVM_ERR_FORKED ||
                mvm_rename(call.vm, "f") != MVM_ERR_FORKED || mvm_pool_release(call.pool) != MVM_ERR_FORKED;
    if (wrong) _exit(wrong);
    /* Without a word to valgrind, which would miss what the pool's thread holds: a fork leaves threads behind. */
    raise(SIGKILL);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == SIGKILL);
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  struct call call;
  mvm_vm *taken;
  char spec[8192];
  MUST(mvm_runtime_open(where.state, where.options, &call.runtime));
  example_spec(&where, "halt", spec, sizeof spec);
  memcpy(strstr(spec, "128"), " 20", 3); /* small snapshots are fast ones */
  MUST(mvm_create(call.runtime, "vm", spec, &call.vm));
  MUST(mvm_start(call.vm));
  MUST(mvm_snapshot_create(call.vm, "base", "{\"checksums\":\"taken\"}", NULL));

  nulls(call.runtime, call.vm);
  handles(call.runtime, call.vm, spec);
  call.pool = open_pool(call.runtime, "pool");
  bad_json(call);
  bad_ids(call);
  taken_ids(call);
  nothing_was_made(call);
  fork_test(call);
  IS(mvm_pool_take(call.pool, "taken", NULL, &taken), MVM_OK); /* after all that it does what it is for */
  MUST(mvm_destroy(taken));
  MUST(mvm_release(taken));
  MUST(mvm_pool_destroy(call.pool));
  MUST(mvm_pool_release(call.pool));
  a_long_name(call.runtime);
  MUST(mvm_snapshot_delete(call.runtime, "base"));
  MUST(mvm_destroy(call.vm));

  /* Closing a runtime takes the handles of its pools with it. */
  snprintf(spec, sizeof spec, "{\"spec\":{\"boot-source\":{\"kernel_image_path\":\"%s/halt.elf\"}},\"size\":0}",
           where.guests);
  MUST(mvm_pool_open(call.runtime, "last", spec, &call.pool));
  MUST(mvm_runtime_close(call.runtime));
  calls_on_a_bad_pool(call.pool);
  calls_on_a_bad_runtime(call.runtime);
  calls_on_a_vm_say(call.vm, MVM_ERR_BAD_HANDLE);
  printf("test_abi_snapshots: %d wrong\n", failures);
  return failures != 0;
}
