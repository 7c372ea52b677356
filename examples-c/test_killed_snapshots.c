/*
 * An operator that is killed by SIGKILL while it takes, merges and deletes snapshots, restores VMs from them, clones
 * and renames them, and runs a pool: the next one finds whole snapshots and whole VMs, and nothing besides.
 *
 * A guest that was only held for a snapshot runs again; a VM has exactly one name; what waits in a pool is taken over
 * by a pool of that name, or reaped.
 */
#include "killing.h"

enum { MOST_SNAPSHOTS = 16, SNAPSHOT_ROUNDS = 200 };

/* ---- Snapshots as the library tells of them ---- */

struct snapshots {
  int count;
  mvm_snapshot_summary of[MOST_SNAPSHOTS];
};

static struct snapshots snapshots_of(mvm_runtime *runtime) {
  struct snapshots all = {0};
  mvm_snapshot_summary one = MVM_SNAPSHOT_SUMMARY_INIT;
  for (MUST(mvm_snapshot_next(runtime, NULL, &one)); one.id[0] != '\0';
       MUST(mvm_snapshot_next(runtime, one.id, &one))) {
    REQUIRE(all.count < MOST_SNAPSHOTS && one.kind != MVM_SNAPSHOT_UNREADABLE);
    all.of[all.count++] = one;
  }
  return all;
}

static const mvm_snapshot_summary *snapshot_called(const struct snapshots *all, const char *id) {
  for (int i = 0; i < all->count; i++)
    if (strcmp(all->of[i].id, id) == 0) return &all->of[i];
  return NULL;
}

static void check_snapshot_entry(const char *name, void *argument) {
  REQUIRE(snapshot_called(argument, name) != NULL); /* nothing half made, half merged or half removed */
}

static void check_name_of_file(const char *name, void *argument) {
  (void)argument;
  REQUIRE(strcmp(name, "memory") != 0); /* a merged memory is the VMM's alone once it is mapped */
}

/* Whole is what a VM can be made of. */
static void restore_and_destroy(mvm_runtime *runtime, const char *snapshot) {
  mvm_vm *vm;
  mvm_vm_state is;
  MUST(mvm_restore(runtime, snapshot, "probe-keep", NULL, &vm));
  MUST(mvm_state(vm, &is));
  REQUIRE(is == MVM_STATE_RUNNING);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

static struct snapshots check_snapshots(mvm_runtime *runtime, const struct list *list) {
  struct snapshots all = snapshots_of(runtime);
  each_name(in_state("snapshots"), check_snapshot_entry, &all);
  for (int i = 0; i < all.count; i++) restore_and_destroy(runtime, all.of[i].id);
  for (int i = 0; i < list->count; i++)
    if (is_alive(&list->of[i])) each_name(path_of(list->of[i].id, ""), check_name_of_file, NULL);
  return all;
}

static void delete_snapshots(mvm_runtime *runtime) {
  for (int left = 1; left > 0;) {
    struct snapshots all = snapshots_of(runtime);
    left = all.count;
    for (int i = 0; i < all.count; i++) {
      mvm_status status = mvm_snapshot_delete(runtime, all.of[i].id);
      if (status != MVM_ERR_BUSY) must_be_ok(status, "mvm_snapshot_delete"); /* a diff to it goes first */
    }
  }
  REQUIRE(count_entries(in_state("snapshots")) == 0);
}

/* Small, so that a full snapshot takes milliseconds. */
static const char *small_spec(char *spec, size_t size) {
  snprintf(spec, size,
           "{\"boot-source\":{\"kernel_image_path\":\"%s/halt.elf\"},"
           "\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":20,\"track_dirty_pages\":true}}",
           where.guests);
  return spec;
}

static mvm_vm *boot(mvm_runtime *runtime, const char *id) {
  mvm_vm *vm;
  char spec[8192];
  MUST(mvm_create(runtime, id, small_spec(spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  return vm;
}

/* What may be found: a VM by its state's first letter, a snapshot by its type's; "-" is not at all. */
static void check_snapshot_promise(const struct snapshots *all, const char *id, const char *allowed) {
  const mvm_snapshot_summary *snapshot = snapshot_called(all, id);
  char is = snapshot == NULL ? '-' : *mvm_snapshot_kind_name(snapshot->kind);
  if (strchr(allowed, is) == NULL)
    fprintf(stderr, "snapshot %s is found as '%c', may be '%s' after %d calls\n", id, is, allowed,
            atomic_load(&diary->calls_done));
  REQUIRE(strchr(allowed, is) != NULL);
}

/* Nothing may be there but what is spoken of. */
static void none_but(const struct list *list, const char *const *ids, size_t count) {
  for (int i = 0; i < list->count; i++) {
    size_t known = 0;
    while (known < count && strcmp(list->of[i].id, ids[known]) != 0) known++;
    REQUIRE(known < count);
  }
}

/* ---- Taking, merging and deleting ---- */

static void leave_a_vm(void) {
  boot(open_runtime(), "a-keep");
  raise(SIGKILL);
}

static void take_snapshots(void) {
  mvm_runtime *runtime;
  mvm_vm *a;
  DO(mvm_runtime_open(state, where.options, &runtime));
  DO(mvm_open(runtime, "a-keep", &a));
  DO(mvm_snapshot_create(a, "full", NULL, NULL));
  DO(mvm_snapshot_create(a, "diff", "{\"type\":\"diff\"}", NULL));
  DO(mvm_snapshot_merge(runtime, "diff", NULL, NULL));
  DO(mvm_snapshot_delete(runtime, "full"));
  DO(mvm_pause(a));
  DO(mvm_snapshot_create(a, "held", "{\"type\":\"diff\"}", NULL));
  DO(mvm_resume(a));
  DO(mvm_runtime_close(runtime));
}

static const struct {
  const char *a, *full, *diff, *held;
} may_be_taken[] = {
    {"r", "-", "-", "-"},    /* opening */
    {"r", "-", "-", "-"},    /* a handle */
    {"r", "-f", "-", "-"},   /* a full snapshot */
    {"r", "f", "-d", "-"},   /* a diff */
    {"r", "f", "df", "-"},   /* merging it */
    {"r", "f-", "f", "-"},   /* deleting the full one */
    {"rp", "-", "f", "-"},   /* pausing */
    {"p", "-", "f", "-d"},   /* a diff of a guest that is held */
    {"pr", "-", "f", "d"},   /* resuming */
    {"r", "-", "f", "d"},    /* closing */
    {"r", "-", "f", "d"},    /* closed */
};

static void inspect_after_taking(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  struct snapshots all = check_snapshots(runtime, &list);
  int done = atomic_load(&diary->calls_done);
  check_promise(&list, "a-keep", may_be_taken[done].a);
  check_snapshot_promise(&all, "full", may_be_taken[done].full);
  check_snapshot_promise(&all, "diff", may_be_taken[done].diff);
  check_snapshot_promise(&all, "held", may_be_taken[done].held);
  none_but(&list, (const char *const[]){"a-keep"}, 1);
  control(runtime, &list);
  delete_snapshots(runtime);
  leave_nothing(runtime);
}

/* ---- Restoring, renaming and cloning ---- */

static void leave_snapshots(void) {
  mvm_runtime *runtime = open_runtime();
  mvm_vm *a = boot(runtime, "a-keep");
  MUST(mvm_snapshot_create(a, "full", NULL, NULL));
  MUST(mvm_snapshot_create(a, "diff", "{\"type\":\"diff\"}", NULL));
  MUST(mvm_destroy(a));
  raise(SIGKILL);
}

static void restore_rename_and_clone(void) {
  const char *names = "{\"ids\":[\"c1-keep\",\"c2-keep\"]}";
  mvm_runtime *runtime;
  mvm_vm *vm, *clones[2];
  DO(mvm_runtime_open(state, where.options, &runtime));
  DO(mvm_restore(runtime, "full", "r-keep", NULL, &vm));
  DO(mvm_rename(vm, "n-keep"));
  DO(mvm_clone(runtime, "diff", 2, names, clones));
  DO(mvm_snapshot_create(vm, "again", "{\"type\":\"diff\"}", NULL));
  END("n-keep", mvm_destroy(vm));
  DO(mvm_runtime_close(runtime));
}

static const struct {
  const char *r, *n, *c, *again;
} may_be_restored[] = {
    {"-", "-", "-", "-"},    /* opening */
    {"-r", "-", "-", "-"},   /* restoring */
    {"r-", "-r", "-", "-"},  /* renaming */
    {"-", "r", "-r", "-"},   /* cloning */
    {"-", "r", "r", "-d"},   /* a diff to what it was restored from */
    {"-", "rs-", "r", "d"},  /* destroying */
    {"-", "-", "r", "d"},    /* closing */
    {"-", "-", "r", "d"},    /* closed */
};

static void inspect_after_restoring(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  struct snapshots all = check_snapshots(runtime, &list);
  int done = atomic_load(&diary->calls_done);
  check_promise(&list, "r-keep", may_be_restored[done].r);
  check_promise(&list, "n-keep", may_be_restored[done].n);
  check_promise(&list, "c1-keep", may_be_restored[done].c);
  check_promise(&list, "c2-keep", may_be_restored[done].c);
  check_snapshot_promise(&all, "full", "f");
  check_snapshot_promise(&all, "diff", "d");
  check_snapshot_promise(&all, "again", may_be_restored[done].again);
  if (done == 2) REQUIRE((find(&list, "r-keep") == NULL) != (find(&list, "n-keep") == NULL));
  none_but(&list, (const char *const[]){"r-keep", "n-keep", "c1-keep", "c2-keep"}, 4);
  control(runtime, &list);
  delete_snapshots(runtime);
  leave_nothing(runtime);
}

/* ---- A pool ---- */

static const char POOL[] = "{\"snapshot\":\"full\",\"size\":2,\"refill_per_second\":1000}";

static void use_a_pool(void) {
  mvm_runtime *runtime;
  mvm_pool *pool;
  mvm_vm *vm;
  DO(mvm_runtime_open(state, where.options, &runtime));
  DO(mvm_pool_open(runtime, "w", POOL, &pool));
  DO(mvm_pool_take(pool, "one-keep", NULL, &vm));
  DO(mvm_pool_take(pool, "two-keep", "{\"after\":\"stay_paused\"}", &vm));
  DO(mvm_pool_destroy(pool));
  DO(mvm_pool_release(pool));
  DO(mvm_runtime_close(runtime));
}

static const struct {
  const char *one, *two;
} may_be_taken_out[] = {
    {"-", "-"},   /* opening */
    {"-", "-"},   /* opening the pool */
    {"-r", "-"},  /* taking one: half taken is not at all */
    {"r", "-p"},  /* taking another */
    {"r", "p"},   /* destroying the pool */
    {"r", "p"},   /* releasing it */
    {"r", "p"},   /* closing */
    {"r", "p"},   /* closed */
};

static int is_member(const mvm_vm_summary *vm) { return strncmp(vm->id, "w-", 2) == 0; }

static int members_in(const struct list *list, int alive) {
  int count = 0;
  for (int i = 0; i < list->count; i++) {
    if (!is_member(&list->of[i])) continue;
    if (alive && !is_alive(&list->of[i])) continue;
    count++;
  }
  return count;
}

static int ready_in(mvm_pool *pool) {
  mvm_pool_counts counts = MVM_POOL_COUNTS_INIT;
  MUST(mvm_pool_count(pool, &counts));
  return (int)counts.ready;
}

/* No member is made in its stead: those that wait are taken over, and go with the pool. */
static void reopen_pool(mvm_runtime *runtime, const struct list *list) {
  mvm_pool *pool;
  int alive = members_in(list, 1);
  char options[128];
  snprintf(options, sizeof options, "{\"snapshot\":\"full\",\"size\":%d}", alive);
  MUST(mvm_pool_open(runtime, "w", options, &pool));
  if (ready_in(pool) != alive) fprintf(stderr, "%d members live, and %d are taken over\n", alive, ready_in(pool));
  REQUIRE(ready_in(pool) == alive);
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
  struct list after = list_of(runtime);
  REQUIRE(members_in(&after, 1) == 0);
}

static void reap_members(mvm_runtime *runtime) {
  char *json;
  MUST(mvm_runtime_reap(runtime, 0, &json));
  REQUIRE(strstr(json, "\"failed\":[]") != NULL);
  mvm_string_free(json);
  struct list after = list_of(runtime);
  if (members_in(&after, 0) != 0) fprintf(stderr, "%d members are neither in a pool nor reaped\n", members_in(&after, 0));
  REQUIRE(members_in(&after, 0) == 0);
}

static void check_members(const struct list *list) {
  for (int i = 0; i < list->count; i++)
    if (is_member(&list->of[i]) && is_alive(&list->of[i])) REQUIRE(list->of[i].state == MVM_STATE_PAUSED);
}

static void inspect_after_pool(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  struct snapshots all = check_snapshots(runtime, &list);
  int done = atomic_load(&diary->calls_done);
  check_promise(&list, "one-keep", may_be_taken_out[done].one);
  check_promise(&list, "two-keep", may_be_taken_out[done].two);
  check_snapshot_promise(&all, "full", "f");
  check_members(&list);
  if (atomic_load(&shared->kills) % 2 == 0) reopen_pool(runtime, &list);
  reap_members(runtime);
  list = list_of(runtime);
  none_but(&list, (const char *const[]){"one-keep", "two-keep"}, 2);
  control(runtime, &list);
  delete_snapshots(runtime);
  leave_nothing(runtime);
}

static const struct play taking = {leave_a_vm, take_snapshots, inspect_after_taking};
static const struct play restoring = {leave_snapshots, restore_rename_and_clone, inspect_after_restoring};
static const struct play pooling = {leave_snapshots, use_a_pool, inspect_after_pool};

/* ---- Killed at random ---- */

/* What a call may answer to which another thread, or chance, leaves nothing to do. */
static void may_be_idle(mvm_status status, const char *call) {
  if (status == MVM_ERR_BAD_STATE || status == MVM_ERR_NOT_FOUND || status == MVM_ERR_ALREADY_EXISTS ||
      status == MVM_ERR_BUSY)
    return;
  must_be_ok(status, call);
}
#define MAY(call) may_be_idle((call), #call)

static void release(mvm_vm *vm) {
  if (vm != NULL) MUST(mvm_release(vm));
}

/* A VM of this thread's, made if it is not there, with something done to it. */
static void do_to_a_vm(const char *id, const char *other, const char *snapshot, uint64_t drawn) {
  mvm_vm *vm;
  mvm_status status = mvm_open(running, id, &vm);
  if (status == MVM_ERR_NOT_FOUND) {
    char spec[8192];
    MUST(mvm_create(running, id, small_spec(spec, sizeof spec), &vm));
    MUST(mvm_start(vm));
  } else {
    must_be_ok(status, "mvm_open");
  }
  switch (drawn % 6) {
    case 0: case 1: MAY(mvm_snapshot_create(vm, snapshot, NULL, NULL)); break;
    case 2: case 3: MAY(mvm_snapshot_create(vm, snapshot, "{\"type\":\"diff\"}", NULL)); break;
    case 4: MAY(mvm_rename(vm, other)); break;
    default: MUST(mvm_destroy(vm)); break;
  }
  MUST(mvm_release(vm));
}

static void do_to_snapshots(const char *id, const char *other, const char *snapshot, uint64_t drawn) {
  mvm_vm *vms[2] = {NULL, NULL};
  char ids[200];
  switch (drawn % 5) {
    case 0: case 1: MAY(mvm_restore(running, snapshot, id, NULL, &vms[0])); break;
    case 2:
      snprintf(ids, sizeof ids, "{\"ids\":[\"%s\",\"%s\"]}", id, other);
      MAY(mvm_clone(running, snapshot, 2, ids, vms));
      break;
    case 3: MAY(mvm_snapshot_merge(running, snapshot, NULL, NULL)); break;
    default: MAY(mvm_snapshot_delete(running, snapshot)); break;
  }
  release(vms[0]);
  release(vms[1]);
}

/* "w<thread>-<n>" waits in a pool, "t<thread>-0" was taken out of one. */
static void do_with_a_pool(int thread, const char *snapshot, uint64_t drawn) {
  mvm_pool *pool;
  mvm_vm *vm;
  char name[8], id[16], options[160];
  snprintf(name, sizeof name, "w%d", thread);
  snprintf(id, sizeof id, "t%d-0", thread);
  snprintf(options, sizeof options, "{\"snapshot\":\"%s\",\"size\":2}", snapshot);
  if (mvm_pool_open(running, name, options, &pool) != MVM_OK) return;
  if (drawn % 2 == 0 && mvm_pool_take(pool, id, NULL, &vm) == MVM_OK) {
    MUST(mvm_destroy(vm));
    MUST(mvm_release(vm));
  }
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
}

static void *do_anything(void *argument) {
  uint64_t *seed = argument;
  int thread = (int)(seed - seeds);
  for (;;) {
    uint64_t drawn = draw(seed);
    char id[32], other[32], snapshot[32];
    snprintf(id, sizeof id, "v%d-%d-keep", thread, (int)(drawn % 2));
    snprintf(other, sizeof other, "v%d-%d-keep", thread, (int)(drawn % 2 + 1));
    snprintf(snapshot, sizeof snapshot, "s%d-%d", thread, (int)(drawn / 2 % 3));
    drawn >>= 8;
    switch (drawn % 8) {
      case 0: do_with_a_pool(thread, snapshot, drawn >> 8); break;
      case 1: case 2: case 3: do_to_snapshots(id, other, snapshot, drawn >> 8); break;
      default: do_to_a_vm(id, other, snapshot, drawn >> 8); break;
    }
  }
  return NULL;
}

/* Nobody pauses anything here but the library itself: to take snapshots, and in pools. */
static void check_that_guests_run(const struct list *list) {
  for (int i = 0; i < list->count; i++)
    if (list->of[i].id[0] == 'v') REQUIRE(list->of[i].state != MVM_STATE_PAUSED);
}

static mvm_runtime *look_at_random(void) {
  mvm_runtime *runtime = open_as_inspector();
  struct list list = look(runtime);
  check_snapshots(runtime, &list);
  check_that_guests_run(&list);
  return runtime;
}

static void look_and_go(void) { MUST(mvm_runtime_close(look_at_random())); }

static void look_and_clear(void) {
  mvm_runtime *runtime = look_at_random();
  delete_snapshots(runtime);
  leave_nothing(runtime);
}

static const struct life any_life = {do_anything, look_and_go, look_and_clear};

static void test(void) {
  at_any_system_call(&taking, "taking",
                     "an_operator_killed_at_any_of_%ld_system_calls_of_taking_snapshots_leaves_whole_ones%s");
  at_any_system_call(&restoring, "restoring",
                     "an_operator_killed_at_any_of_%ld_system_calls_of_restoring_and_cloning_leaves_whole_vms%s");
  at_any_system_call(&pooling, "pooling",
                     "an_operator_killed_at_any_of_%ld_system_calls_of_a_pool_leaves_it_to_the_next%s");
  at_random(&any_life, "snapshots-random", SNAPSHOT_ROUNDS, "leaves_whole_snapshots_and_vms");
}

int main(int argc, char **argv) { return run_tester(argc, argv, test); }
