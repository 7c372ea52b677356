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
  char options[8400];      /* the runtime's options */
};

/* Tells a failure as the library tells it. */
static inline void tell(const char *call) {
  mvm_error error;
  memset(&error, 0, sizeof error);
  error.size = sizeof error;
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
  if (where.keeper == NULL)
    snprintf(where.options, sizeof where.options, "{\"firecracker\":\"%s\"}", where.firecracker);
  else
    snprintf(where.options, sizeof where.options, "{\"firecracker\":\"%s\",\"keeper\":\"%s\"}", where.firecracker,
             where.keeper);
  return where;
}

/* A spec is a Firecracker config file. */
static inline const char *example_spec(const struct example *where, const char *guest, char *spec, size_t size) {
  snprintf(spec, size,
           "{\"boot-source\":{\"kernel_image_path\":\"%s/%s.elf\"},"
           "\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128}}",
           where->guests, guest);
  return spec;
}

#endif
