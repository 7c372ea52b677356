/* A VM outlives the control plane that created it. The next one finds it, adopts it, and removes leftovers. */
#include "example.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* A control plane that is killed in the middle of its work. */
static void first_operator(const struct example *where) {
  mvm_runtime *runtime;
  mvm_vm *kept, *brief;
  char spec[8192];
  MUST(mvm_runtime_open(where->state, where->options, &runtime));
  MUST(mvm_create(runtime, "kept", example_spec(where, "obey", spec, sizeof spec), &kept));
  MUST(mvm_start(kept));
  strcpy(strrchr(spec, '}'), ",\"mvm\":{\"on_owner_exit\":\"kill\"}}");
  MUST(mvm_create(runtime, "brief", spec, &brief));
  MUST(mvm_start(brief));
  raise(SIGKILL);
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  mvm_vm *vm;
  mvm_vm_state state;
  mvm_shutdown_outcome outcome;
  char *text;
  pid_t first = fork(); /* before the library is first used here */
  if (first == 0) first_operator(&where);
  waitpid(first, NULL, 0);

  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  MUST(mvm_runtime_report(runtime, &text));
  printf("found: %s\n", text);
  mvm_string_free(text);
  MUST(mvm_open(runtime, "kept", &vm));
  MUST(mvm_state(vm, &state));
  printf("kept is %s\n", mvm_state_name(state));
  MUST(mvm_shutdown(vm, 30000, 0, &outcome));
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));

  MUST(mvm_runtime_reap(runtime, 0, &text));
  printf("reaped: %.60s...\n", text);
  mvm_string_free(text);
  printf("left: ");
  int left = print_vms(runtime);
  MUST(mvm_runtime_close(runtime));
  return state == MVM_STATE_RUNNING && outcome == MVM_SHUTDOWN_GRACEFUL && left == 0 ? 0 : 1;
}
