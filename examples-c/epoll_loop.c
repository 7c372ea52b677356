/* Watches several VMs from one epoll loop, as a control plane does, and sees each power itself off. */
#include "example.h"
#include <sys/epoll.h>
#include <unistd.h>

enum { VMS = 4 };

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  mvm_vm *vms[VMS];
  int fds[VMS], loop = epoll_create1(EPOLL_CLOEXEC), ended = 0;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));

  for (int i = 0; i < VMS; i++) {
    char id[32], spec[8192];
    snprintf(id, sizeof id, "loop-%d", i);
    MUST(mvm_create(runtime, id, example_spec(&where, "off", spec, sizeof spec), &vms[i]));
    MUST(mvm_exit_fd(vms[i], &fds[i])); /* ours, before the guest can be quicker than we are */
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = (uint32_t)i}};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fds[i], &event) != 0) return 1;
    MUST(mvm_start(vms[i]));
  }

  while (ended < VMS) {
    struct epoll_event event;
    if (epoll_wait(loop, &event, 1, 30000) != 1) return 1;
    uint32_t i = event.data.u32;
    mvm_exit how = MVM_EXIT_INIT;
    MUST(mvm_wait(vms[i], 0, &how));
    printf("loop-%u: %s %d\n", i, mvm_exit_name(how.kind), how.value);
    close(fds[i]); /* epoll forgets it with this */
    MUST(mvm_destroy(vms[i]));
    MUST(mvm_release(vms[i]));
    if (how.kind != MVM_EXIT_CODE || how.value != 0) return 1;
    ended++;
  }
  close(loop);
  MUST(mvm_runtime_close(runtime));
  return 0;
}
