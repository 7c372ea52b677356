/* What goes wrong on an operator's first day, and what the library says about it. No failure leaves anything behind. */
#include "example.h"

static int failures;

/* Shows the error of the call before, which has to be `wanted`. */
static void shows(mvm_status got, mvm_status wanted, const char *what) {
  const char *message = mvm_last_error_message();
  printf("%s\n  %s: %s\n", what, mvm_status_name(got), message);
  if (got != wanted || message[0] == '\0') {
    printf("  WRONG: %s was expected\n", mvm_status_name(wanted));
    failures++;
  }
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime, *second;
  mvm_vm *vm;
  char spec[8192];

  shows(mvm_runtime_open(where.state, "{\"firecraker\":\"/x\"}", &runtime), MVM_ERR_INVALID_CONFIG,
        "a misspelt option");
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  shows(mvm_runtime_open(where.state, where.options, &second), MVM_ERR_BUSY, "two owners of one state directory");

  example_spec(&where, "halt", spec, sizeof spec);
  shows(mvm_create(runtime, "../etc", spec, &vm), MVM_ERR_INVALID_ARGUMENT, "an id that is none");
  shows(mvm_create(runtime, "a", "{\"boot-source\":", &vm), MVM_ERR_INVALID_CONFIG, "JSON that breaks off");
  shows(mvm_create(runtime, "a", "{\"mvm\":{\"shutdwn\":{}}}", &vm), MVM_ERR_INVALID_CONFIG, "an unknown key");
  shows(mvm_create(runtime, "a", "{\"mvm\":{\"firecracker\":\"/nowhere/firecracker\"}}", &vm), MVM_ERR_NOT_FOUND,
        "a VMM that is not there");
  shows(mvm_create(runtime, "a", "{\"mvm\":{\"firecracker\":\"/bin/true\"}}", &vm), MVM_ERR_UNSUPPORTED,
        "a VMM that is none");
  shows(mvm_create(runtime, "a", "{\"boot-source\":{\"kernel_image_path\":\"/nowhere/vmlinux\"}}", &vm),
        MVM_ERR_VMM_REFUSED, "a kernel that is not there");
  shows(mvm_create(runtime, "a", "{\"machine-config\":{\"vcpu_count\":99,\"mem_size_mib\":128}}", &vm),
        MVM_ERR_VMM_REFUSED, "more vCPUs than Firecracker has");

  MUST(mvm_create(runtime, "a", spec, &vm));
  mvm_vm *again;
  shows(mvm_create(runtime, "a", spec, &again), MVM_ERR_ALREADY_EXISTS, "an id that is taken");
  shows(mvm_pause(vm), MVM_ERR_BAD_STATE, "a pause before the start");
  shows(mvm_request(vm, "PUT", "/vm\r\nX: y", "{}", NULL), MVM_ERR_INVALID_ARGUMENT, "a path with a line break");
  shows(mvm_request(vm, "PUT", "/nosuch", "{}", NULL), MVM_ERR_VMM_REFUSED, "an endpoint that there is not");
  mvm_exit how = MVM_EXIT_INIT;
  shows(mvm_wait(vm, 1, &how), MVM_ERR_TIMEOUT, "a wait that is too short");
  MUST(mvm_destroy(vm));
  shows(mvm_start(vm), MVM_ERR_NOT_FOUND, "a VM that was destroyed");
  MUST(mvm_release(vm));
  shows(mvm_start(vm), MVM_ERR_BAD_HANDLE, "a handle that was released");
  shows(mvm_start((mvm_vm *)(void *)runtime), MVM_ERR_BAD_HANDLE, "a runtime taken for a VM");
  shows(mvm_start(NULL), MVM_ERR_BAD_HANDLE, "no handle at all");

  printf("left behind: ");
  failures += print_vms(runtime);
  MUST(mvm_runtime_close(runtime));
  return failures;
}
