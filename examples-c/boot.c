/* Boots a microVM, reads its console, pauses it, resumes it, and ends it. */
#include "example.h"
#include <poll.h>

/* Reads the console until it holds `text`; the guest prints when it likes. */
static void read_console_until(mvm_vm *vm, const char *text) {
  char console[512] = "";
  uint64_t offset = 0;
  size_t length = 0, read = 0;
  while (strstr(console, text) == NULL && length < sizeof console - 1) {
    MUST(mvm_console_read(vm, &offset, (uint8_t *)console + length, sizeof console - 1 - length, &read));
    length += read;
    if (read == 0) poll(NULL, 0, 1);
  }
  printf("console: %s", console);
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  int is_simulator = strstr(where.firecracker, "firecracker-sim") != NULL;
  printf("VMM: %s%s\n", where.firecracker, is_simulator ? " (the simulator: no guest code really runs)" : "");

  mvm_runtime *runtime;
  mvm_vm *vm;
  char spec[8192], *info;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));

  MUST(mvm_create(runtime, "hello", example_spec(&where, "obey", spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  read_console_until(vm, "hello from the guest\n");

  MUST(mvm_pause(vm));
  mvm_vm_state state;
  MUST(mvm_state(vm, &state));
  printf("state: %s\n", mvm_state_name(state));
  MUST(mvm_resume(vm));

  MUST(mvm_info(vm, &info));
  printf("info: %s\n", info);
  mvm_string_free(info);

  mvm_shutdown_outcome outcome;
  char *report;
  MUST(mvm_shutdown(vm, MVM_DEFAULT_GRACE_MS, MVM_DEFAULT_POLL_MS, &outcome));
  MUST(mvm_shutdown_report(vm, &report));
  printf("shutdown: %s %s\n", mvm_outcome_name(outcome), report);
  mvm_string_free(report);

  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  MUST(mvm_runtime_close(runtime));
  return outcome == MVM_SHUTDOWN_GRACEFUL ? 0 : 1;
}
