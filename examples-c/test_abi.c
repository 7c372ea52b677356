/* The ABI held against callers who do everything wrong: each gets a status, none gets undefined behaviour. */
#include "example.h"
#include <pthread.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

static void is(mvm_status got, mvm_status wanted, const char *what) {
  if (got == wanted) return;
  tell(what);
  fprintf(stderr, "WRONG: %s: %s, and %s was expected\n", what, mvm_status_name(got), mvm_status_name(wanted));
  failures++;
}
#define IS(call, wanted) is((call), (wanted), #call)

static void check(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "WRONG: %s\n", what);
  failures++;
}
#define CHECK(condition) check((condition), #condition)

/* Layouts and numbers are frozen. */
_Static_assert(sizeof(mvm_status) == 4 && sizeof(mvm_vm_state) == 4 && sizeof(mvm_shutdown_outcome) == 4, "enums");
_Static_assert(sizeof(mvm_exit) == 12 && offsetof(mvm_exit, kind) == 4 && offsetof(mvm_exit, value) == 8, "exit");
_Static_assert(sizeof(mvm_error) == 4184 && offsetof(mvm_error, status) == 4, "error");
_Static_assert(offsetof(mvm_error, os_errno) == 8 && offsetof(mvm_error, http_status) == 12, "error");
_Static_assert(offsetof(mvm_error, exit_kind) == 16 && offsetof(mvm_error, exit_value) == 20, "error");
_Static_assert(offsetof(mvm_error, stage) == 24 && offsetof(mvm_error, message) == 88, "error");
_Static_assert(offsetof(mvm_error, fault_message) == 1112 && offsetof(mvm_error, output) == 2136, "error");
_Static_assert(sizeof(mvm_event) == 624 && offsetof(mvm_event, kind) == 4 && offsetof(mvm_event, sequence) == 8, "event");
_Static_assert(offsetof(mvm_event, time_ms) == 16 && offsetof(mvm_event, count) == 24, "event");
_Static_assert(offsetof(mvm_event, exit_kind) == 32 && offsetof(mvm_event, exit_value) == 36, "event");
_Static_assert(offsetof(mvm_event, vm) == 40 && offsetof(mvm_event, text) == 112, "event");
_Static_assert(sizeof(mvm_log_line) == 1112 && offsetof(mvm_log_line, level) == 4, "log line");
_Static_assert(offsetof(mvm_log_line, target) == 24 && offsetof(mvm_log_line, text) == 88, "log line");
_Static_assert(sizeof(mvm_vm_summary) == 164 && offsetof(mvm_vm_summary, pid) == 8, "summary");
_Static_assert(offsetof(mvm_vm_summary, id) == 20 && offsetof(mvm_vm_summary, pool) == 92, "summary");
_Static_assert(sizeof(mvm_snapshot_summary) == 248 && offsetof(mvm_snapshot_summary, time_ms) == 8, "summary");
_Static_assert(offsetof(mvm_snapshot_summary, id) == 32 && offsetof(mvm_snapshot_summary, vm) == 176, "summary");
_Static_assert(sizeof(mvm_pool_counts) == 40 && offsetof(mvm_pool_counts, pool_size) == 8, "counts");
_Static_assert(MVM_SNAPSHOT_FULL == 1 && MVM_SNAPSHOT_UNREADABLE == 3 && MVM_REAP_DRY_RUN == 1, "snapshots");
_Static_assert(MVM_ID_SIZE == 72 && sizeof((mvm_event){0}.vm) == MVM_ID_SIZE, "ids");
_Static_assert(MVM_EVENT_NONE == 0 && MVM_EVENT_EXITED == 5 && MVM_EVENT_DROPPED == 11, "events");
_Static_assert(MVM_EVENT_RENAMED == 12 && MVM_EVENT_SNAPSHOTTED == 13, "events");
_Static_assert(MVM_EVENT_RESTORED == 14 && MVM_EVENT_PAGER_LOST == 15, "events");
_Static_assert(MVM_EVENT_OUT_OF_MEMORY == 16, "events");
_Static_assert(MVM_LOG_OFF == 0 && MVM_LOG_DEBUG == 4, "levels");
_Static_assert(MVM_OK == 0 && MVM_ERR_INTERNAL == -1 && MVM_ERR_TIMEOUT == -10 && MVM_ERR_IO == -18, "statuses");
_Static_assert(MVM_ERR_DAMAGED == -19 && MVM_UNKNOWN == UINT64_MAX, "statuses");
_Static_assert(MVM_STATE_CREATED == 1 && MVM_STATE_FAILED == 5, "states");
_Static_assert(MVM_SHUTDOWN_GRACEFUL == 1 && MVM_SHUTDOWN_ALREADY_EXITED == 3, "outcomes");
_Static_assert(MVM_FOREVER == UINT64_MAX && MVM_DEFAULT_GRACE_MS == 2000 && MVM_DEFAULT_POLL_MS == 50, "times");

/* Every call on a VM, with one handle. */
static void every_call_says(mvm_vm *vm, mvm_status wanted) {
  mvm_shutdown_outcome outcome = MVM_SHUTDOWN_FORCED;
  mvm_exit how = {.size = sizeof how, .kind = MVM_EXIT_CODE, .value = 7};
  mvm_vm_state state = MVM_STATE_RUNNING;
  char *text = (char *)"untouched";
  uint64_t offset = 0;
  uint8_t buffer[8];
  size_t read = 7;
  int32_t fd = 7;
  IS(mvm_start(vm), wanted);
  IS(mvm_pause(vm), wanted);
  IS(mvm_resume(vm), wanted);
  IS(mvm_shutdown(vm, 0, 0, &outcome), wanted);
  CHECK(outcome == MVM_SHUTDOWN_NONE);
  IS(mvm_wait(vm, 0, &how), wanted);
  CHECK(how.kind == MVM_EXIT_NONE && how.value == 0 && how.size == sizeof how);
  IS(mvm_kill(vm), wanted);
  IS(mvm_request(vm, "GET", "/", NULL, &text), wanted);
  CHECK(text == NULL);
  IS(mvm_state(vm, &state), wanted);
  CHECK(state == MVM_STATE_NONE);
  IS(mvm_info(vm, &text), wanted);
  IS(mvm_console_read(vm, &offset, buffer, sizeof buffer, &read), wanted);
  CHECK(read == 0 && offset == 0);
  IS(mvm_exit_fd(vm, &fd), wanted);
  CHECK(fd == -1);
  char id[MVM_ID_SIZE] = "untouched";
  IS(mvm_id(vm, id, sizeof id), wanted);
  CHECK(id[0] == '\0');
  text = (char *)"untouched";
  IS(mvm_owner_data(vm, &text), wanted);
  CHECK(text == NULL);
  IS(mvm_owner_data_set(vm, "data"), wanted);
  int32_t pid = 7;
  IS(mvm_pid(vm, &pid), wanted);
  CHECK(pid == 0);
  IS(mvm_metrics(vm, &text), wanted);
  CHECK(text == NULL);
  IS(mvm_metrics_flush(vm), wanted);
  if (wanted == MVM_ERR_BAD_HANDLE) {
    IS(mvm_destroy(vm), wanted);
    IS(mvm_interrupt(vm), wanted);
    IS(mvm_shutdown_report(vm, &text), wanted);
  }
}

static void handles(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm, *other, *forged;
  int on_the_stack = 0;
  every_call_says(NULL, MVM_ERR_BAD_HANDLE);
  every_call_says((mvm_vm *)(void *)&on_the_stack, MVM_ERR_BAD_HANDLE);
  every_call_says((mvm_vm *)(void *)runtime, MVM_ERR_BAD_HANDLE);
  MUST(mvm_create(runtime, "handles", spec, &vm));
  for (uintptr_t off = 1; off < 64; off++) {
    forged = (mvm_vm *)((uintptr_t)vm + off);
    IS(mvm_start(forged), MVM_ERR_BAD_HANDLE);
  }
  MUST(mvm_open(runtime, "handles", &other));
  CHECK(other != vm);
  MUST(mvm_release(vm));
  IS(mvm_release(vm), MVM_ERR_BAD_HANDLE);
  every_call_says(vm, MVM_ERR_BAD_HANDLE);
  MUST(mvm_start(other)); /* releasing one handle has ended nothing */
  MUST(mvm_destroy(other));
  MUST(mvm_destroy(other));
  every_call_says(other, MVM_ERR_NOT_FOUND);
  MUST(mvm_release(other));
  MUST(mvm_release(NULL));
  MUST(mvm_runtime_close(NULL));
  MUST(mvm_process_release(NULL));
  mvm_string_free(NULL);
  IS(mvm_open(runtime, "handles", &vm), MVM_ERR_NOT_FOUND);
  CHECK(vm == NULL);
}

static void nulls(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm;
  mvm_runtime *none;
  char *text;
  uint64_t offset = 0;
  uint8_t buffer[8];
  size_t read;
  IS(mvm_runtime_open(NULL, NULL, &none), MVM_ERR_INVALID_ARGUMENT);
  CHECK(none == NULL);
  IS(mvm_runtime_open("/tmp", NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  MUST(mvm_runtime_check(NULL, NULL, NULL, NULL, NULL));
  uint32_t cannot = 7;
  char *report = text = (char *)&cannot;
  IS(mvm_runtime_check(NULL, "{\"keeperr\":1}", &cannot, &report, &text), MVM_ERR_INVALID_CONFIG);
  CHECK(cannot == 0 && report == NULL && text == NULL);
  IS(mvm_runtime_check("\xff", NULL, &cannot, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  MUST(mvm_runtime_check("/nowhere/at/all", NULL, &cannot, &report, &text));
  CHECK(cannot & MVM_CHECK_RUN ? strstr(text, "\"run\":\"no\"") != NULL : strstr(text, "\"run\":\"no\"") == NULL);
  CHECK(strstr(report, "kernel") != NULL);
  mvm_string_free(report);
  mvm_string_free(text);
  IS(mvm_runtime_list(runtime, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_list(NULL, &text), MVM_ERR_BAD_HANDLE);
  IS(mvm_runtime_interrupt(runtime, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_report(runtime, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_report(NULL, &text), MVM_ERR_BAD_HANDLE);
  IS(mvm_runtime_reap(runtime, 0, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_reap(runtime, MVM_REAP_DRY_RUN | 0x80, &text), MVM_ERR_INVALID_ARGUMENT);
  CHECK(text == NULL);
  IS(mvm_runtime_metrics(runtime, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_events_fd(runtime, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_next_event(runtime, 0, NULL), MVM_ERR_INVALID_ARGUMENT);
  mvm_vm_summary summary = {.size = sizeof summary - 1, .pid = 7};
  IS(mvm_runtime_next_vm(runtime, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_runtime_next_vm(runtime, NULL, &summary), MVM_ERR_INVALID_ARGUMENT);
  CHECK(summary.pid == 7);
  summary.size = sizeof summary;
  IS(mvm_runtime_next_vm(runtime, "\xff", &summary), MVM_ERR_INVALID_ARGUMENT);
  CHECK(summary.pid == 0);
  summary.pid = 7;
  IS(mvm_runtime_next_vm(NULL, NULL, &summary), MVM_ERR_BAD_HANDLE);
  CHECK(summary.pid == 0);
  mvm_event event = {.size = sizeof event - 1};
  IS(mvm_runtime_next_event(runtime, 0, &event), MVM_ERR_INVALID_ARGUMENT);
  event = (mvm_event){.size = sizeof event, .kind = MVM_EVENT_EXITED};
  IS(mvm_runtime_next_event(NULL, 0, &event), MVM_ERR_BAD_HANDLE);
  CHECK(event.kind == MVM_EVENT_NONE);
  IS(mvm_create(runtime, NULL, spec, &vm), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_create(runtime, "a", NULL, &vm), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_create(runtime, "a", spec, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_create(NULL, "a", spec, &vm), MVM_ERR_BAD_HANDLE);
  IS(mvm_open(runtime, NULL, &vm), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_open(runtime, "a", NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_last_error(NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_process_spawn(NULL, NULL, NULL, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  mvm_process *process;
  IS(mvm_process_spawn(NULL, NULL, NULL, NULL, &process), MVM_ERR_INVALID_ARGUMENT);
  CHECK(process == NULL);

  MUST(mvm_create(runtime, "nulls", spec, &vm));
  IS(mvm_wait(vm, 0, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_state(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_info(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_exit_fd(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_id(vm, NULL, 72), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_id(vm, NULL, 0), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_pid(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_owner_data(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_owner_data_set(vm, NULL), MVM_OK);
  IS(mvm_shutdown_report(vm, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_request(vm, NULL, "/", NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_request(vm, "GET", NULL, NULL, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_request(vm, "GET", "/", NULL, NULL), MVM_OK);
  IS(mvm_console_read(vm, NULL, buffer, sizeof buffer, &read), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_console_read(vm, &offset, NULL, 8, &read), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_console_read(vm, &offset, NULL, 0, &read), MVM_OK);
  IS(mvm_console_read(vm, &offset, buffer, sizeof buffer, NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_shutdown(vm, 0, 0, NULL), MVM_OK);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

/* VM by VM, whatever comes and goes meanwhile. */
static void enumeration(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vms[3];
  mvm_vm_summary next = MVM_VM_SUMMARY_INIT;
  char id[MVM_ID_SIZE], seen[64] = "";
  int32_t pid;
  IS(mvm_runtime_next_vm(runtime, NULL, &next), MVM_OK);
  CHECK(next.id[0] == '\0' && next.state == MVM_STATE_NONE);
  MUST(mvm_create(runtime, "b", spec, &vms[0]));
  MUST(mvm_create(runtime, "c", spec, &vms[1]));
  MUST(mvm_create(runtime, "a", spec, &vms[2]));
  MUST(mvm_start(vms[1]));
  for (;;) {
    MUST(mvm_runtime_next_vm(runtime, next.id, &next));
    if (next.id[0] == '\0') break;
    strcat(strcat(strcat(seen, next.id), mvm_state_name(next.state)), " ");
    CHECK(next.pid > 0 && next.exit_kind == MVM_EXIT_NONE && next.pool[0] == '\0');
    if (strcmp(next.id, "b") == 0) MUST(mvm_destroy(vms[0])); /* the loop goes on from where it was */
  }
  CHECK(strcmp(seen, "acreated bcreated crunning ") == 0);
  MUST(mvm_pid(vms[1], &pid));
  MUST(mvm_runtime_next_vm(runtime, "bz", &next));
  CHECK(strcmp(next.id, "c") == 0 && next.pid == pid);
  MUST(mvm_kill(vms[1]));
  IS(mvm_pid(vms[1], &pid), MVM_ERR_BAD_STATE);
  CHECK(pid == 0);
  MUST(mvm_runtime_next_vm(runtime, "b", &next));
  CHECK(next.pid == 0 && next.exit_kind == MVM_EXIT_SIGNAL && next.exit_value == 9);

  IS(mvm_id(vms[1], id, 1), MVM_ERR_INVALID_ARGUMENT);
  CHECK(id[0] == '\0');
  IS(mvm_id(vms[1], id, 2), MVM_OK);
  CHECK(strcmp(id, "c") == 0);
  char longest[65] = {0};
  memset(longest, 'x', 64);
  MUST(mvm_rename(vms[1], longest));
  MUST(mvm_id(vms[1], id, sizeof id));
  CHECK(strcmp(id, longest) == 0);
  for (int i = 0; i < 3; i++) {
    MUST(mvm_destroy(vms[i]));
    MUST(mvm_release(vms[i]));
  }
}

/* What the owner keeps with a VM. */
static void owner_data(mvm_runtime *runtime, const char *spec) {
  static char longest[4098];
  mvm_vm *vm;
  char *text;
  MUST(mvm_create(runtime, "kept", spec, &vm));
  MUST(mvm_owner_data(vm, &text));
  CHECK(text[0] == '\0');
  mvm_string_free(text);
  memset(longest, 'x', 4097);
  IS(mvm_owner_data_set(vm, longest), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_owner_data_set(vm, "\xff"), MVM_ERR_INVALID_ARGUMENT);
  longest[4096] = '\0';
  MUST(mvm_owner_data_set(vm, longest));
  MUST(mvm_owner_data(vm, &text));
  CHECK(strcmp(text, longest) == 0);
  mvm_string_free(text);
  MUST(mvm_owner_data_set(vm, "{\"tenant\": 7}"));
  MUST(mvm_runtime_list(runtime, &text));
  CHECK(strcmp(text, "[{\"id\":\"kept\",\"state\":\"created\",\"owner_data\":\"{\\\"tenant\\\": 7}\"}]") == 0);
  mvm_string_free(text);
  MUST(mvm_owner_data_set(vm, NULL));
  MUST(mvm_owner_data(vm, &text));
  CHECK(text[0] == '\0');
  mvm_string_free(text);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

/* The log: to a queue, to a pipe, to a pipe that nobody reads, and to nobody. */
static void the_log(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm;
  mvm_log_line line = MVM_LOG_LINE_INIT;
  int32_t fd;
  int ends[2], lines = 0;
  char text[4096];
  IS(mvm_log_to_queue(99, 8), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_log_to_fd(MVM_LOG_INFO, -1), MVM_ERR_IO);
  IS(mvm_log_queue_fd(&fd), MVM_ERR_IO);
  IS(mvm_log_next(NULL), MVM_ERR_INVALID_ARGUMENT);
  MUST(mvm_log_to_queue(MVM_LOG_DEBUG, 3));
  MUST(mvm_log_queue_fd(&fd));
  CHECK(close(fd) == 0);
  MUST(mvm_create(runtime, "log", spec, &vm));
  MUST(mvm_start(vm));
  for (MUST(mvm_log_next(&line)); line.level != MVM_LOG_OFF; MUST(mvm_log_next(&line))) {
    CHECK(lines > 0 || line.dropped > 0); /* the first of the three says that there were more */
    lines++;
  }
  CHECK(lines == 3);
  CHECK(pipe(ends) == 0);
  MUST(mvm_log_to_fd(MVM_LOG_INFO, ends[1]));
  MUST(mvm_kill(vm));
  ssize_t length = read(ends[0], text, sizeof text - 1);
  text[length > 0 ? length : 0] = '\0';
  CHECK(strstr(text, "VM log: its VMM has ended (signal 9)\n") != NULL);
  close(ends[0]);
  MUST(mvm_destroy(vm)); /* raises no SIGPIPE */
  MUST(mvm_log_to_fd(MVM_LOG_OFF, -1));
  MUST(mvm_release(vm));
  close(ends[1]);
}

/* Strings that no honest caller sends. */
static void strings(mvm_runtime *runtime, const char *spec) {
  static char huge[(1 << 20) + 1];
  mvm_vm *vm;
  memset(huge, 'a', sizeof huge - 1);
  const char *ids[] = {"", "..", ".", "a/b", "_", "a b", "a\n", "\xff\xfe", "\xc3\xa4", huge,
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* 65 */};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    IS(mvm_create(runtime, ids[i], spec, &vm), MVM_ERR_INVALID_ARGUMENT);
    CHECK(vm == NULL);
    IS(mvm_open(runtime, ids[i], &vm), MVM_ERR_INVALID_ARGUMENT);
  }
  const char *specs[] = {"", "{", "[]", "null", "7", "{}}", huge, "{\"mvm\":7}", "{\"mvm\":{\"shutdown\":{\"x\":1}}}",
                         "{\"drives\":[{\"drive_id\":7}]}", "{\"mvm\":{\"owner_data\":7}}"};
  for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
    IS(mvm_create(runtime, "strings", specs[i], &vm), MVM_ERR_INVALID_CONFIG);
  /* A config file may have any id, and sections that Firecracker ignores. A drive without a file is Firecracker's to refuse. */
  IS(mvm_create(runtime, "strings", "{\"drives\":[{\"drive_id\":\"a/b\"}]}", &vm), MVM_ERR_VMM_REFUSED);
  MUST(mvm_create(runtime, "strings", "{\"a\\r\\nb\":{}}", &vm));
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  IS(mvm_create(runtime, "strings", "\xff", &vm), MVM_ERR_INVALID_ARGUMENT);

  MUST(mvm_create(runtime, "strings", spec, &vm));
  const char *paths[] = {"", "x", "/a b", "/a\r\nX: y", "/\x01", "/\xc3\xa4", huge};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    IS(mvm_request(vm, "PUT", paths[i], "{}", NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_request(vm, "put", "/vm", "{}", NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_request(vm, huge, "/vm", "{}", NULL), MVM_ERR_INVALID_ARGUMENT);
  IS(mvm_request(vm, "PUT", "/mmds", huge, NULL), MVM_ERR_VMM_REFUSED);
  IS(mvm_state(vm, &(mvm_vm_state){MVM_STATE_NONE}), MVM_OK); /* it is still there after all that */
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

/* A struct that is smaller than the library's, and one that is larger. */
static void sizes(mvm_runtime *runtime) {
  struct {
    mvm_error error;
    unsigned char beyond[64];
  } large;
  mvm_vm *vm;
  IS(mvm_open(runtime, "nobody", &vm), MVM_ERR_NOT_FOUND);
  memset(&large, 0xAA, sizeof large);
  large.error.size = 4;
  IS(mvm_last_error(&large.error), MVM_ERR_INVALID_ARGUMENT);
  CHECK(large.error.message[0] == (char)0xAA);
  CHECK(strstr(mvm_last_error_message(), "nobody") != NULL);
  large.error.size = sizeof large;
  IS(mvm_last_error(&large.error), MVM_OK);
  CHECK(large.error.status == MVM_ERR_NOT_FOUND && strstr(large.error.message, "nobody") != NULL);
  CHECK(large.error.size == sizeof large && large.beyond[0] == 0xAA);
}

/* The message as a string: whole, the thread's own, and there until it is asked for again. */
static void messages(mvm_runtime *runtime) {
  mvm_vm *vm;
  mvm_error error = MVM_ERROR_INIT;
  char spec[4096] = "{\"mvm\":{\"firecracker\":\"";
  for (int i = 0; i < 1000; i++) strcat(spec, "/v");
  strcat(spec, "\"}}");
  IS(mvm_create(runtime, "a", spec, &vm), MVM_ERR_NOT_FOUND);
  MUST(mvm_last_error(&error));
  const char *message = mvm_last_error_message();
  CHECK(strlen(message) > 2000 && strncmp(message, error.message, strlen(error.message)) == 0);
  char *copy = strdup(message);
  IS(mvm_open(runtime, "b", &vm), MVM_ERR_NOT_FOUND);
  CHECK(strcmp(message, copy) == 0);
  CHECK(strstr(mvm_last_error_message(), " b") != NULL);
  free(copy);
}

static void *last_error_of_a_new_thread(void *argument) {
  mvm_error error = MVM_ERROR_INIT;
  (void)argument;
  MUST(mvm_last_error(&error));
  CHECK(error.status == MVM_OK && error.message[0] == '\0' && mvm_last_error_message()[0] == '\0');
  return NULL;
}

/* In a forked child every handle is refused, and the parent goes on. */
static void fork_test(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm;
  MUST(mvm_create(runtime, "forked", spec, &vm));
  pid_t child = fork();
  if (child == 0) {
    mvm_vm_state state;
    char *text;
    int wrong = mvm_state(vm, &state) != MVM_ERR_FORKED || mvm_runtime_list(runtime, &text) != MVM_ERR_FORKED ||
                mvm_start(vm) != MVM_ERR_FORKED || mvm_release(vm) != MVM_ERR_FORKED;
    _exit(wrong);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  MUST(mvm_start(vm));
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  mvm_runtime *runtime;
  mvm_vm *vm;
  pthread_t thread;
  char spec[8192];
  CHECK(mvm_version() == MVM_VERSION_NUMBER);
  CHECK(strcmp(mvm_status_name(-10), "MVM_ERR_TIMEOUT") == 0 && strcmp(mvm_status_name(99), "unknown") == 0);
  CHECK(strcmp(mvm_status_name(-19), "MVM_ERR_DAMAGED") == 0 && strcmp(mvm_status_name(-20), "unknown") == 0);
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  example_spec(&where, "halt", spec, sizeof spec);

  nulls(runtime, spec);
  handles(runtime, spec);
  strings(runtime, spec);
  enumeration(runtime, spec);
  owner_data(runtime, spec);
  the_log(runtime, spec);
  sizes(runtime);
  messages(runtime);
  if (pthread_create(&thread, NULL, last_error_of_a_new_thread, NULL) == 0) pthread_join(thread, NULL);
  fork_test(runtime, spec);

  /* Closing a runtime takes the handles of its VMs with it; here it has none that runs. */
  MUST(mvm_create(runtime, "last", spec, &vm));
  MUST(mvm_destroy(vm));
  MUST(mvm_runtime_close(runtime));
  IS(mvm_release(vm), MVM_ERR_BAD_HANDLE);
  IS(mvm_runtime_close(runtime), MVM_ERR_BAD_HANDLE);
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  MUST(mvm_runtime_close(runtime));
  printf("test_abi: %d wrong\n", failures);
  return failures != 0;
}
