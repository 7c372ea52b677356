/* What all examples share: an error that is told in full and ends the program, and where things are. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <mvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the Makefile says that things are; an operator knows. */
struct example {
  const char *firecracker; /* the VMM */
  const char *guests;      /* the directory with the tiny guests */
  const char *state;       /* a state directory for this run */
  const char *keeper;      /* the program mvm-keeper, or NULL: then a thread bounds consoles */
  char options[8500];      /* the runtime's options */
};

/* Writes `text` into `out` as a JSON string, quotes included: a path may hold anything. Gives `out`, for printf's %s. */
static inline const char *json_string(char *out, size_t size, const char *text) {
  size_t length = 0;
  for (out[length++] = '"'; *text != '\0'; text++) {
    unsigned char byte = (unsigned char)*text;
    if (length + 8 > size) {
      fprintf(stderr, "a string is too long for the example\n");
      exit(1);
    }
    if (byte == '"' || byte == '\\') out[length++] = '\\';
    if (byte < 0x20)
      length += (size_t)sprintf(out + length, "\\u%04x", byte);
    else
      out[length++] = (char)byte;
  }
  strcpy(out + length, "\"");
  return out;
}

/* Tells a failure as the library tells it. */
static inline void tell(const char *call) {
  mvm_error error = MVM_ERROR_INIT;
  mvm_last_error(&error);
  fprintf(stderr, "%s: %s: %s\n", call, mvm_status_name(error.status), error.message);
  if (error.output[0] != '\0') fprintf(stderr, "the VMM's last words:\n%s\n", error.output);
}

/* The examples give up where an operator would decide. */
static inline void must_be_ok(mvm_status status, const char *call) {
  if (status == MVM_OK) return;
  tell(call);
  exit(1);
}
#define MUST(call) must_be_ok((call), #call)

/* Prints all VMs of the runtime, and says how many there are. */
static inline int print_vms(mvm_runtime *runtime) {
  mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
  int count = 0;
  for (;; count++) {
    MUST(mvm_runtime_next_vm(runtime, vm.id, &vm)); /* the first after "", and then each after the one before */
    if (vm.id[0] == '\0') break;
    printf("  %s is %s\n", vm.id, mvm_state_name(vm.state));
  }
  printf("%d VMs\n", count);
  return count;
}

static inline struct example example_from(int argc, char **argv) {
  struct example where;
  if (argc != 4 && argc != 5) {
    fprintf(stderr, "usage: %s FIRECRACKER GUESTS STATE_DIRECTORY [KEEPER]\n", argv[0]);
    exit(2);
  }
  where.firecracker = argv[1];
  where.guests = argv[2];
  where.state = argv[3];
  where.keeper = argc == 5 ? argv[4] : NULL;
  char firecracker[4200], keeper[4200] = "null";
  json_string(firecracker, sizeof firecracker, where.firecracker);
  if (where.keeper != NULL) json_string(keeper, sizeof keeper, where.keeper);
  snprintf(where.options, sizeof where.options, "{\"firecracker\":%s,\"keeper\":%s}", firecracker, keeper);
  return where;
}

/* A spec is a Firecracker config file. */
static inline const char *example_spec(const struct example *where, const char *guest, char *spec, size_t size) {
  char path[4096], kernel[4200];
  snprintf(path, sizeof path, "%s/%s.elf", where->guests, guest);
  snprintf(spec, size,
           "{\"boot-source\":{\"kernel_image_path\":%s},\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128}}",
           json_string(kernel, sizeof kernel, path));
  return spec;
}

#endif
