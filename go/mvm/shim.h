/*
 * One C function for each call: it binds the call to its token, makes it, unbinds it and fetches the error, all on one
 * thread, which a goroutine may leave between two calls. Handles are keys and not addresses, so Go keeps them as
 * integers.
 */
#include <mvm.h>
#include <poll.h>
#include <stdlib.h>

/* One call: the token that ends it, or 0, and after a failure its details, for free(). */
typedef struct shim_call {
  uintptr_t cancel;
  mvm_error *error;
} shim_call;

static inline int shim_is_bound(const shim_call *call) {
  return call->cancel == 0 || mvm_cancel_bind((mvm_cancel *)call->cancel) == MVM_OK;
}

static inline mvm_status shim_end(shim_call *call, mvm_status status) {
  if (status != MVM_OK && (call->error = malloc(sizeof *call->error)) != NULL) {
    call->error->size = sizeof *call->error;
    mvm_last_error(call->error);
  }
  if (call->cancel != 0) mvm_cancel_bind(NULL);
  return status;
}

/* `made` is the call itself, which is not made when it cannot be bound. */
#define SHIM(call, made) shim_end((call), shim_is_bound(call) ? (made) : MVM_ERR_BAD_HANDLE)

#define CANCEL(key) ((mvm_cancel *)(key))

static inline mvm_status shim_cancel_create(shim_call *call) {
  mvm_cancel *cancel = NULL;
  mvm_status status = SHIM(call, mvm_cancel_create(&cancel));
  call->cancel = (uintptr_t)cancel;
  return status;
}

static inline void shim_cancel_raise(uintptr_t key) { mvm_cancel_raise(CANCEL(key)); }
static inline void shim_cancel_release(uintptr_t key) { mvm_cancel_release(CANCEL(key)); }

static inline int shim_is_readable(int fd) {
  struct pollfd polled = {.fd = fd, .events = POLLIN};
  return poll(&polled, 1, 0) == 1;
}

#define VM(key) ((mvm_vm *)(key))
#define RUNTIME(key) ((mvm_runtime *)(key))

static inline mvm_status shim_runtime_open(shim_call *call, const char *dir, const char *options, uintptr_t *key) {
  mvm_runtime *runtime = NULL;
  mvm_status status = SHIM(call, mvm_runtime_open(dir, options, &runtime));
  *key = (uintptr_t)runtime;
  return status;
}

static inline mvm_status shim_runtime_check(shim_call *call, const char *dir, const char *options, char **text,
                                            char **json) {
  return SHIM(call, mvm_runtime_check(dir, options, NULL, text, json));
}

static inline mvm_status shim_runtime_close(shim_call *call, uintptr_t key) {
  return SHIM(call, mvm_runtime_close(RUNTIME(key)));
}

static inline mvm_status shim_runtime_list(shim_call *call, uintptr_t key, char **json) {
  return SHIM(call, mvm_runtime_list(RUNTIME(key), json));
}

static inline mvm_status shim_create(shim_call *call, uintptr_t runtime, const char *id, const char *spec,
                                     uintptr_t *key) {
  mvm_vm *vm = NULL;
  mvm_status status = SHIM(call, mvm_create(RUNTIME(runtime), id, spec, &vm));
  *key = (uintptr_t)vm;
  return status;
}

static inline mvm_status shim_open(shim_call *call, uintptr_t runtime, const char *id, uintptr_t *key) {
  mvm_vm *vm = NULL;
  mvm_status status = SHIM(call, mvm_open(RUNTIME(runtime), id, &vm));
  *key = (uintptr_t)vm;
  return status;
}

static inline mvm_status shim_release(shim_call *call, uintptr_t key) { return SHIM(call, mvm_release(VM(key))); }
static inline mvm_status shim_start(shim_call *call, uintptr_t key) { return SHIM(call, mvm_start(VM(key))); }
static inline mvm_status shim_pause(shim_call *call, uintptr_t key) { return SHIM(call, mvm_pause(VM(key))); }
static inline mvm_status shim_resume(shim_call *call, uintptr_t key) { return SHIM(call, mvm_resume(VM(key))); }
static inline mvm_status shim_kill(shim_call *call, uintptr_t key) { return SHIM(call, mvm_kill(VM(key))); }
static inline mvm_status shim_destroy(shim_call *call, uintptr_t key) { return SHIM(call, mvm_destroy(VM(key))); }

static inline mvm_status shim_shutdown(shim_call *call, uintptr_t key, uint64_t grace_ms, uint64_t poll_ms,
                                       mvm_shutdown_outcome *outcome) {
  return SHIM(call, mvm_shutdown(VM(key), grace_ms, poll_ms, outcome));
}

static inline mvm_status shim_shutdown_report(shim_call *call, uintptr_t key, char **json) {
  return SHIM(call, mvm_shutdown_report(VM(key), json));
}

static inline mvm_status shim_wait(shim_call *call, uintptr_t key, uint64_t timeout_ms, mvm_exit *how) {
  how->size = sizeof *how;
  return SHIM(call, mvm_wait(VM(key), timeout_ms, how));
}

static inline mvm_status shim_exit_fd(shim_call *call, uintptr_t key, int32_t *fd) {
  return SHIM(call, mvm_exit_fd(VM(key), fd));
}

static inline mvm_status shim_request(shim_call *call, uintptr_t key, const char *method, const char *path,
                                      const char *body, char **response) {
  return SHIM(call, mvm_request(VM(key), method, path, body, response));
}

static inline mvm_status shim_state(shim_call *call, uintptr_t key, mvm_vm_state *state) {
  return SHIM(call, mvm_state(VM(key), state));
}

static inline mvm_status shim_info(shim_call *call, uintptr_t key, char **json) {
  return SHIM(call, mvm_info(VM(key), json));
}

static inline mvm_status shim_id(shim_call *call, uintptr_t key, char *buffer, size_t length) {
  return SHIM(call, mvm_id(VM(key), buffer, length));
}

static inline mvm_status shim_pid(shim_call *call, uintptr_t key, int32_t *pid) {
  return SHIM(call, mvm_pid(VM(key), pid));
}

static inline mvm_status shim_owner_data_set(shim_call *call, uintptr_t key, const char *data) {
  return SHIM(call, mvm_owner_data_set(VM(key), data));
}

static inline mvm_status shim_owner_data(shim_call *call, uintptr_t key, char **data) {
  return SHIM(call, mvm_owner_data(VM(key), data));
}

static inline mvm_status shim_console_read(shim_call *call, uintptr_t key, uint64_t *offset, uint8_t *buffer,
                                           size_t length, size_t *read) {
  return SHIM(call, mvm_console_read(VM(key), offset, buffer, length, read));
}

static inline mvm_status shim_events_fd(shim_call *call, uintptr_t key, int32_t *fd) {
  return SHIM(call, mvm_runtime_events_fd(RUNTIME(key), fd));
}

static inline mvm_status shim_next_event(shim_call *call, uintptr_t key, mvm_event *event) {
  event->size = sizeof *event;
  return SHIM(call, mvm_runtime_next_event(RUNTIME(key), 0, event));
}

static inline mvm_status shim_runtime_report(shim_call *call, uintptr_t key, char **json) {
  return SHIM(call, mvm_runtime_report(RUNTIME(key), json));
}

static inline mvm_status shim_runtime_reap(shim_call *call, uintptr_t key, uint32_t flags, char **json) {
  return SHIM(call, mvm_runtime_reap(RUNTIME(key), flags, json));
}

static inline mvm_status shim_runtime_metrics(shim_call *call, uintptr_t key, const char *options,
                                              char **text) {
  return SHIM(call, mvm_runtime_metrics(RUNTIME(key), options, text));
}

static inline mvm_status shim_metrics(shim_call *call, uintptr_t key, char **json) {
  return SHIM(call, mvm_metrics(VM(key), json));
}

static inline mvm_status shim_metrics_flush(shim_call *call, uintptr_t key) {
  return SHIM(call, mvm_metrics_flush(VM(key)));
}

#define POOL(key) ((mvm_pool *)(key))

static inline mvm_status shim_rename(shim_call *call, uintptr_t vm, const char *id) {
  return SHIM(call, mvm_rename(VM(vm), id));
}

static inline mvm_status shim_snapshot_create(shim_call *call, uintptr_t vm, const char *id, const char *options,
                                              char **report) {
  return SHIM(call, mvm_snapshot_create(VM(vm), id, options, report));
}

static inline mvm_status shim_working_set_store(shim_call *call, uintptr_t vm, uint64_t *ranges) {
  return SHIM(call, mvm_working_set_store(VM(vm), ranges));
}

static inline mvm_status shim_snapshot_list(shim_call *call, uintptr_t runtime, char **json) {
  return SHIM(call, mvm_snapshot_list(RUNTIME(runtime), json));
}

static inline mvm_status shim_snapshot_info(shim_call *call, uintptr_t runtime, const char *id, char **json) {
  return SHIM(call, mvm_snapshot_info(RUNTIME(runtime), id, json));
}

static inline mvm_status shim_snapshot_verify(shim_call *call, uintptr_t runtime, const char *id, char **report) {
  return SHIM(call, mvm_snapshot_verify(RUNTIME(runtime), id, MVM_FOREVER, report));
}

static inline mvm_status shim_snapshot_merge(shim_call *call, uintptr_t runtime, const char *id, const char *options,
                                             char **info) {
  return SHIM(call, mvm_snapshot_merge(RUNTIME(runtime), id, options, info));
}

static inline mvm_status shim_snapshot_delete(shim_call *call, uintptr_t runtime, const char *id) {
  return SHIM(call, mvm_snapshot_delete(RUNTIME(runtime), id));
}

static inline mvm_status shim_restore(shim_call *call, uintptr_t runtime, const char *snapshot, const char *id,
                                      const char *options, uintptr_t *key) {
  mvm_vm *vm = NULL;
  mvm_status status = SHIM(call, mvm_restore(RUNTIME(runtime), snapshot, id, options, &vm));
  *key = (uintptr_t)vm;
  return status;
}

/* A handle has the size of its key, so the array of the one is filled as that of the other. */
static inline mvm_status shim_clone(shim_call *call, uintptr_t runtime, const char *snapshot, size_t count,
                                    const char *options, uintptr_t *keys) {
  return SHIM(call, mvm_clone(RUNTIME(runtime), snapshot, count, options, (mvm_vm **)keys));
}

static inline mvm_status shim_pool_open(shim_call *call, uintptr_t runtime, const char *name, const char *options,
                                        uintptr_t *key) {
  mvm_pool *pool = NULL;
  mvm_status status = SHIM(call, mvm_pool_open(RUNTIME(runtime), name, options, &pool));
  *key = (uintptr_t)pool;
  return status;
}

static inline mvm_status shim_pool_take(shim_call *call, uintptr_t pool, const char *id, const char *options,
                                        uintptr_t *key) {
  mvm_vm *vm = NULL;
  mvm_status status = SHIM(call, mvm_pool_take(POOL(pool), id, options, &vm));
  *key = (uintptr_t)vm;
  return status;
}

static inline mvm_status shim_pool_info(shim_call *call, uintptr_t pool, char **json) {
  return SHIM(call, mvm_pool_info(POOL(pool), json));
}

static inline mvm_status shim_pool_destroy(shim_call *call, uintptr_t pool) {
  return SHIM(call, mvm_pool_destroy(POOL(pool)));
}

static inline mvm_status shim_pool_release(shim_call *call, uintptr_t pool) {
  return SHIM(call, mvm_pool_release(POOL(pool)));
}

static inline mvm_status shim_balloon_set(shim_call *call, uintptr_t vm, uint64_t amount, uint64_t timeout_ms,
                                          uint64_t *actual) {
  return SHIM(call, mvm_balloon_set(VM(vm), amount, timeout_ms, actual));
}

static inline mvm_status shim_balloon_statistics(shim_call *call, uintptr_t vm, char **json) {
  return SHIM(call, mvm_balloon_statistics(VM(vm), json));
}

static inline mvm_status shim_memory_hotplug(shim_call *call, uintptr_t vm, uint64_t size, uint64_t timeout_ms,
                                             uint64_t *plugged) {
  return SHIM(call, mvm_memory_hotplug(VM(vm), size, timeout_ms, plugged));
}

static inline mvm_status shim_drive_update(shim_call *call, uintptr_t vm, const char *id, const char *path,
                                           const char *limiter) {
  return SHIM(call, mvm_drive_update(VM(vm), id, path, limiter));
}

static inline mvm_status shim_network_update(shim_call *call, uintptr_t vm, const char *id, const char *rx,
                                             const char *tx) {
  return SHIM(call, mvm_network_update(VM(vm), id, rx, tx));
}

static inline mvm_status shim_device_attach(shim_call *call, uintptr_t vm, const char *section,
                                            const char *definition) {
  return SHIM(call, mvm_device_attach(VM(vm), section, definition));
}

static inline mvm_status shim_device_detach(shim_call *call, uintptr_t vm, const char *section, const char *id) {
  return SHIM(call, mvm_device_detach(VM(vm), section, id));
}
