/* Ends four VMs in four ways, and shows what the library reports for each. */
#include "example.h"

static int end(mvm_vm *vm, const char *what, uint64_t grace_ms, mvm_shutdown_outcome wanted) {
  mvm_shutdown_outcome outcome;
  char *report;
  MUST(mvm_shutdown(vm, grace_ms, MVM_DEFAULT_POLL_MS, &outcome));
  MUST(mvm_shutdown_report(vm, &report));
  printf("%s: %s\n  %s\n", what, mvm_outcome_name(outcome), report);
  mvm_string_free(report);
  return outcome != wanted;
}

static mvm_vm *boot(const struct example *where, mvm_runtime *runtime, const char *guest) {
  mvm_vm *vm;
  char spec[8192];
  MUST(mvm_create(runtime, guest, example_spec(where, guest, spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  return vm;
}

static void forget(mvm_vm *vm) {
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  mvm_vm *vm;
  int wrong = 0;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));

  vm = boot(&where, runtime, "obey");
  wrong += end(vm, "a guest that obeys Ctrl-Alt-Del", 10000, MVM_SHUTDOWN_GRACEFUL);
  wrong += end(vm, "the same once more", 10000, MVM_SHUTDOWN_ALREADY_EXITED);
  MUST(mvm_start(vm)); /* what was stopped starts again */
  wrong += end(vm, "without a window", 0, MVM_SHUTDOWN_FORCED);
  forget(vm);

  vm = boot(&where, runtime, "halt");
  wrong += end(vm, "a guest that hears nothing", 300, MVM_SHUTDOWN_FORCED);
  forget(vm);

  vm = boot(&where, runtime, "off");
  mvm_exit how = MVM_EXIT_INIT;
  MUST(mvm_wait(vm, 30000, &how));
  wrong += end(vm, "a guest that had powered itself off", 300, MVM_SHUTDOWN_ALREADY_EXITED);
  forget(vm);

  MUST(mvm_runtime_close(runtime));
  return wrong;
}
