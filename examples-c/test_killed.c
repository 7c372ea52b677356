/*
 * An operator that is killed by SIGKILL, at any instant, leaves nothing that the next start does not find: VMs that
 * are made, started, held and ended, and those that are taken over from another. Snapshots are another test's.
 *
 * An optional fourth argument names the keeper: then VMs that are to end with their owner are gone before anybody
 * opens the runtime again.
 */
#include "killing.h"

/* ---- A script, and what each of its calls may leave ---- */

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
  DO(mvm_runtime_reap(runtime, 0, &json));
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

static const struct play first_life = {NULL, script, inspect_after_script};
static const struct play second_life = {leave_remains, take_over, inspect_after_taking_over};

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

/* ---- Killed at random ---- */

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

static const struct life any_life = {do_anything, look_and_go, look_and_clear};

static void test(void) {
  at_any_system_call(&first_life, "first",
                     "an_operator_killed_at_any_of_%ld_system_calls_leaves_nothing_unfound%s");
  at_any_system_call(&second_life, "second",
                     "an_operator_killed_at_any_of_%ld_system_calls_of_taking_over_leaves_nothing_unfound%s");
  while_it_starts_a_vmm();
  at_random(&any_life, "random", ROUNDS, "leaves_nothing_unfound");
}

int main(int argc, char **argv) { return run_tester(argc, argv, test); }
