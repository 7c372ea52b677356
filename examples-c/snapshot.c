/* Takes two snapshots of a microVM, a full one and a diff. Ends the VM, and restores it from each of them. */
#include "example.h"
#include <inttypes.h>
#include <poll.h>

/* The guest prints its count; gives the first whole number that is above `least`. */
static uint64_t count_above(mvm_vm *vm, uint64_t least) {
  char line[64] = "";
  uint64_t offset = 0, count;
  size_t length = 0, read;
  for (;;) {
    MUST(mvm_console_read(vm, &offset, (uint8_t *)line + length, 1, &read));
    if (read == 0) {
      poll(NULL, 0, 1);
    } else if (line[length] != '\n' && length + 2 < sizeof line) {
      length++;
    } else {
      line[length] = '\0';
      /* A VM that was restored in the middle of a line begins with the rest of it. */
      if (length == 16 && sscanf(line, "%16" SCNx64, &count) == 1 && count > least) return count;
      length = 0;
    }
  }
}

/* A VMM that tracks which pages are written to keeps diffs small. */
static const char *tracking_spec(const struct example *where, char *spec, size_t size) {
  example_spec(where, "report", spec, size);
  strcpy(strrchr(spec, '}') - 1, ",\"track_dirty_pages\":true}}");
  return spec;
}

static void print_and_free(const char *what, char *json) {
  printf("%s: %s\n", what, json);
  mvm_string_free(json);
}

/* Restores a VM from a snapshot; returns the first number that it prints. */
static uint64_t resume_from(mvm_runtime *runtime, const char *snapshot, const char *id) {
  mvm_vm *vm;
  MUST(mvm_restore(runtime, snapshot, id, NULL, &vm));
  uint64_t count = count_above(vm, 0);
  printf("%s continues from \"%s\" and counts %" PRIu64 "\n", id, snapshot, count);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  return count;
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  mvm_vm *vm;
  char spec[8192], *text;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));

  MUST(mvm_create(runtime, "first", tracking_spec(&where, spec, sizeof spec), &vm));
  MUST(mvm_start(vm));
  uint64_t at_base = count_above(vm, 5);
  MUST(mvm_snapshot_create(vm, "base", "{\"checksums\":\"taken\"}", &text));
  print_and_free("a full snapshot", text);

  /* The guest was resumed. A diff holds what changed since then. */
  uint64_t at_later = count_above(vm, at_base + 10);
  MUST(mvm_snapshot_create(vm, "later", "{\"type\":\"diff\",\"checksums\":\"taken\"}", &text));
  print_and_free("a diff", text);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));

  uint64_t after_base = resume_from(runtime, "base", "second");
  uint64_t after_later = resume_from(runtime, "later", "third");

  /* Before it is trusted far from here: are all files what they were? */
  MUST(mvm_snapshot_verify(runtime, "later", MVM_FOREVER, &text));
  print_and_free("verified", text);

  /* The diff needs the snapshot that it builds upon, until it is merged with it. */
  mvm_status refused = mvm_snapshot_delete(runtime, "base");
  tell("mvm_snapshot_delete, as it should be");
  MUST(mvm_snapshot_merge(runtime, "later", NULL, NULL));
  MUST(mvm_snapshot_delete(runtime, "base"));
  uint64_t after_merge = resume_from(runtime, "later", "fourth");

  mvm_snapshot_summary left = MVM_SNAPSHOT_SUMMARY_INIT;
  MUST(mvm_snapshot_next(runtime, NULL, &left));
  printf("left: %s, %s, of %s\n", left.id, mvm_snapshot_kind_name(left.kind), left.vm);
  MUST(mvm_snapshot_delete(runtime, left.id));
  MUST(mvm_runtime_close(runtime));

  int right = refused == MVM_ERR_BUSY && after_base >= at_base && after_base < at_later && after_later >= at_later &&
              after_merge == after_later;
  return right ? 0 : 1;
}
