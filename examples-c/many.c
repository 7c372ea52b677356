/* Boots many VMs at once, from as many threads, and ends them all. Nothing here locks: the library does. */
#include "example.h"
#include <pthread.h>

enum { MANY = 16 };

struct job {
  const struct example *where;
  mvm_runtime *runtime;
  int number;
};

static void *boot_and_end(void *argument) {
  struct job *job = argument;
  char id[32], spec[8192];
  mvm_vm *vm;
  mvm_shutdown_outcome outcome;
  snprintf(id, sizeof id, "many-%d", job->number);
  MUST(mvm_create(job->runtime, id, example_spec(job->where, "halt", spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  MUST(mvm_shutdown(vm, 0, 0, &outcome)); /* this guest hears nothing: no window */
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  return outcome == MVM_SHUTDOWN_FORCED ? NULL : argument;
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  pthread_t threads[MANY];
  struct job jobs[MANY];
  int failed = 0;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  for (int i = 0; i < MANY; i++) {
    jobs[i] = (struct job){&where, runtime, i};
    if (pthread_create(&threads[i], NULL, boot_and_end, &jobs[i]) != 0) return 1;
  }
  for (int i = 0; i < MANY; i++) {
    void *bad;
    pthread_join(threads[i], &bad);
    failed += bad != NULL;
  }
  printf("%d VMs came and went, %d badly; left: ", MANY, failed);
  failed += print_vms(runtime);
  MUST(mvm_runtime_close(runtime));
  return failed;
}
