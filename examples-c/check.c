/* What can this host do for VMs, what not, and what is to be done about it? The exit status is 0 when VMs can run. */
#include "example.h"

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  uint32_t cannot;
  char *text;
  MUST(mvm_runtime_check(where.state, where.options, &cannot, &text, NULL));
  fputs(text, stdout);
  mvm_string_free(text);
  printf("%s\n", cannot & MVM_CHECK_RUN ? "VMs cannot run here" : "VMs can run here");
  return cannot & MVM_CHECK_RUN ? 1 : 0;
}
