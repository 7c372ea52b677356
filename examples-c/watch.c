/* Learns what happens without asking each VM: events from one descriptor, the console by offset, metrics, the log. */
#include "example.h"
#include <poll.h>
#include <unistd.h>

/* Prints what the guest has printed since the last time, and says what was lost of it. */
static void follow(mvm_vm *vm, uint64_t *offset) {
  uint8_t piece[256];
  size_t length;
  do {
    uint64_t before = *offset;
    MUST(mvm_console_read(vm, offset, piece, sizeof piece, &length));
    uint64_t lost = *offset - length - before;
    if (lost > 0) printf("(%llu bytes were not kept)\n", (unsigned long long)lost);
    fwrite(piece, 1, length, stdout);
  } while (length > 0);
}

static void print_log(void) {
  mvm_log_line line = MVM_LOG_LINE_INIT;
  for (MUST(mvm_log_next(&line)); line.level != MVM_LOG_OFF; MUST(mvm_log_next(&line)))
    printf("log: %s: %s: %s\n", mvm_log_level_name(line.level), line.target, line.text);
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  mvm_vm *vm;
  char spec[8192], *text;
  uint64_t offset = 0;
  int32_t fd;
  MUST(mvm_log_to_queue(MVM_LOG_INFO, 64));
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  MUST(mvm_runtime_events_fd(runtime, &fd));
  MUST(mvm_create(runtime, "watched", example_spec(&where, "obey", spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  MUST(mvm_metrics_flush(vm));
  MUST(mvm_request(vm, "PUT", "/actions", "{\"action_type\":\"SendCtrlAltDel\"}", NULL));

  mvm_event event = MVM_EVENT_INIT;
  while (event.kind != MVM_EVENT_EXITED) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, 30000) != 1) return 1;
    for (MUST(mvm_runtime_next_event(runtime, 0, &event)); event.kind != MVM_EVENT_NONE;
         MUST(mvm_runtime_next_event(runtime, 0, &event))) {
      printf("%llu %s: %s\n", (unsigned long long)event.sequence, event.vm, mvm_event_name(event.kind));
      if (event.kind == MVM_EVENT_EXITED) break;
    }
  }
  if (event.exit_kind != MVM_EXIT_CODE || event.exit_value != 0) return 1;

  follow(vm, &offset); /* the console stays readable after the end */
  MUST(mvm_metrics(vm, &text));
  printf("metrics: %.60s...\n", text);
  mvm_string_free(text);
  print_log();
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  close(fd);
  MUST(mvm_runtime_close(runtime));
  return 0;
}
