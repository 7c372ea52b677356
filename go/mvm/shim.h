/*
 * One C function for each call: it makes the call and fetches the error on the same thread, which a goroutine may
 * leave between two calls. Handles are keys and not addresses, so Go keeps them as integers.
 */
#include <mvm.h>
#include <stdlib.h>

static inline mvm_status shim_result(mvm_status status, mvm_error *error) {
  if (status != MVM_OK) {
    error->size = sizeof *error;
    mvm_last_error(error);
  }
  return status;
}

#define VM(key) ((mvm_vm *)(key))
#define RUNTIME(key) ((mvm_runtime *)(key))

static inline mvm_status shim_runtime_open(const char *dir, const char *options, uintptr_t *key, mvm_error *e) {
  mvm_runtime *runtime;
  mvm_status status = shim_result(mvm_runtime_open(dir, options, &runtime), e);
  *key = (uintptr_t)runtime;
  return status;
}

static inline mvm_status shim_runtime_close(uintptr_t key, mvm_error *e) {
  return shim_result(mvm_runtime_close(RUNTIME(key)), e);
}

static inline mvm_status shim_runtime_list(uintptr_t key, char **json, mvm_error *e) {
  return shim_result(mvm_runtime_list(RUNTIME(key), json), e);
}

static inline void shim_runtime_interrupt(uintptr_t key, const char *id) {
  mvm_runtime_interrupt(RUNTIME(key), id);
}

static inline mvm_status shim_create(uintptr_t runtime, const char *id, const char *spec, uintptr_t *key,
                                     mvm_error *e) {
  mvm_vm *vm;
  mvm_status status = shim_result(mvm_create(RUNTIME(runtime), id, spec, &vm), e);
  *key = (uintptr_t)vm;
  return status;
}

static inline mvm_status shim_open(uintptr_t runtime, const char *id, uintptr_t *key, mvm_error *e) {
  mvm_vm *vm;
  mvm_status status = shim_result(mvm_open(RUNTIME(runtime), id, &vm), e);
  *key = (uintptr_t)vm;
  return status;
}

static inline mvm_status shim_release(uintptr_t key, mvm_error *e) { return shim_result(mvm_release(VM(key)), e); }
static inline mvm_status shim_start(uintptr_t key, mvm_error *e) { return shim_result(mvm_start(VM(key)), e); }
static inline mvm_status shim_pause(uintptr_t key, mvm_error *e) { return shim_result(mvm_pause(VM(key)), e); }
static inline mvm_status shim_resume(uintptr_t key, mvm_error *e) { return shim_result(mvm_resume(VM(key)), e); }
static inline mvm_status shim_kill(uintptr_t key, mvm_error *e) { return shim_result(mvm_kill(VM(key)), e); }
static inline mvm_status shim_destroy(uintptr_t key, mvm_error *e) { return shim_result(mvm_destroy(VM(key)), e); }
static inline void shim_interrupt(uintptr_t key) { mvm_interrupt(VM(key)); }

static inline mvm_status shim_shutdown(uintptr_t key, uint64_t grace_ms, uint64_t poll_ms,
                                       mvm_shutdown_outcome *outcome, mvm_error *e) {
  return shim_result(mvm_shutdown(VM(key), grace_ms, poll_ms, outcome), e);
}

static inline mvm_status shim_shutdown_report(uintptr_t key, char **json, mvm_error *e) {
  return shim_result(mvm_shutdown_report(VM(key), json), e);
}

static inline mvm_status shim_wait(uintptr_t key, uint64_t timeout_ms, mvm_exit *how, mvm_error *e) {
  how->size = sizeof *how;
  return shim_result(mvm_wait(VM(key), timeout_ms, how), e);
}

static inline mvm_status shim_exit_fd(uintptr_t key, int32_t *fd, mvm_error *e) {
  return shim_result(mvm_exit_fd(VM(key), fd), e);
}

static inline mvm_status shim_request(uintptr_t key, const char *method, const char *path, const char *body,
                                      char **response, mvm_error *e) {
  return shim_result(mvm_request(VM(key), method, path, body, response), e);
}

static inline mvm_status shim_state(uintptr_t key, mvm_vm_state *state, mvm_error *e) {
  return shim_result(mvm_state(VM(key), state), e);
}

static inline mvm_status shim_info(uintptr_t key, char **json, mvm_error *e) {
  return shim_result(mvm_info(VM(key), json), e);
}

static inline mvm_status shim_console_read(uintptr_t key, uint64_t *offset, uint8_t *buffer, size_t length,
                                           size_t *read, mvm_error *e) {
  return shim_result(mvm_console_read(VM(key), offset, buffer, length, read), e);
}

static inline mvm_status shim_events_fd(uintptr_t key, int32_t *fd, mvm_error *e) {
  return shim_result(mvm_runtime_events_fd(RUNTIME(key), fd), e);
}

static inline mvm_status shim_next_event(uintptr_t key, mvm_event *event, mvm_error *e) {
  event->size = sizeof *event;
  return shim_result(mvm_runtime_next_event(RUNTIME(key), 0, event), e);
}

static inline mvm_status shim_runtime_report(uintptr_t key, char **json, mvm_error *e) {
  return shim_result(mvm_runtime_report(RUNTIME(key), json), e);
}

static inline mvm_status shim_runtime_reap(uintptr_t key, const char *options, char **json, mvm_error *e) {
  return shim_result(mvm_runtime_reap(RUNTIME(key), options, json), e);
}

static inline mvm_status shim_runtime_metrics(uintptr_t key, char **text, mvm_error *e) {
  return shim_result(mvm_runtime_metrics(RUNTIME(key), text), e);
}

static inline mvm_status shim_metrics(uintptr_t key, char **json, mvm_error *e) {
  return shim_result(mvm_metrics(VM(key), json), e);
}

static inline mvm_status shim_metrics_flush(uintptr_t key, mvm_error *e) {
  return shim_result(mvm_metrics_flush(VM(key)), e);
}

#define POOL(key) ((mvm_pool *)(key))

static inline mvm_status shim_rename(uintptr_t vm, const char *id, mvm_error *e) {
  return shim_result(mvm_rename(VM(vm), id), e);
}

static inline mvm_status shim_snapshot_create(uintptr_t vm, const char *id, const char *options, char **report,
                                              mvm_error *e) {
  return shim_result(mvm_snapshot_create(VM(vm), id, options, report), e);
}

static inline mvm_status shim_working_set_store(uintptr_t vm, uint64_t *stretches, mvm_error *e) {
  return shim_result(mvm_working_set_store(VM(vm), stretches), e);
}

static inline mvm_status shim_snapshot_list(uintptr_t runtime, char **json, mvm_error *e) {
  return shim_result(mvm_snapshot_list(RUNTIME(runtime), json), e);
}

static inline mvm_status shim_snapshot_info(uintptr_t runtime, const char *id, char **json, mvm_error *e) {
  return shim_result(mvm_snapshot_info(RUNTIME(runtime), id, json), e);
}

static inline mvm_status shim_snapshot_verify(uintptr_t runtime, const char *id, char **report, mvm_error *e) {
  return shim_result(mvm_snapshot_verify(RUNTIME(runtime), id, NULL, report), e);
}

static inline mvm_status shim_snapshot_merge(uintptr_t runtime, const char *id, char **info, mvm_error *e) {
  return shim_result(mvm_snapshot_merge(RUNTIME(runtime), id, NULL, info), e);
}

static inline mvm_status shim_snapshot_delete(uintptr_t runtime, const char *id, mvm_error *e) {
  return shim_result(mvm_snapshot_delete(RUNTIME(runtime), id), e);
}

static inline mvm_status shim_restore(uintptr_t runtime, const char *snapshot, const char *id, const char *options,
                                      uintptr_t *key, mvm_error *e) {
  mvm_vm *vm;
  mvm_status status = shim_result(mvm_restore(RUNTIME(runtime), snapshot, id, options, &vm), e);
  *key = (uintptr_t)vm;
  return status;
}

/* A handle has the size of its key, so the array of the one is filled as that of the other. */
static inline mvm_status shim_clone(uintptr_t runtime, const char *snapshot, size_t count, const char *options,
                                    uintptr_t *keys, mvm_error *e) {
  return shim_result(mvm_clone(RUNTIME(runtime), snapshot, count, options, (mvm_vm **)keys), e);
}

static inline mvm_status shim_pool_open(uintptr_t runtime, const char *name, const char *options, uintptr_t *key,
                                        mvm_error *e) {
  mvm_pool *pool;
  mvm_status status = shim_result(mvm_pool_open(RUNTIME(runtime), name, options, &pool), e);
  *key = (uintptr_t)pool;
  return status;
}

static inline mvm_status shim_pool_take(uintptr_t pool, const char *id, const char *options, uintptr_t *key,
                                        mvm_error *e) {
  mvm_vm *vm;
  mvm_status status = shim_result(mvm_pool_take(POOL(pool), id, options, &vm), e);
  *key = (uintptr_t)vm;
  return status;
}

static inline mvm_status shim_pool_info(uintptr_t pool, char **json, mvm_error *e) {
  return shim_result(mvm_pool_info(POOL(pool), json), e);
}

static inline mvm_status shim_pool_close(uintptr_t pool, mvm_error *e) {
  return shim_result(mvm_pool_close(POOL(pool)), e);
}

static inline mvm_status shim_balloon_set(uintptr_t vm, uint64_t amount, uint64_t timeout_ms, uint64_t *actual,
                                          mvm_error *e) {
  return shim_result(mvm_balloon_set(VM(vm), amount, timeout_ms, actual), e);
}

static inline mvm_status shim_balloon_statistics(uintptr_t vm, char **json, mvm_error *e) {
  return shim_result(mvm_balloon_statistics(VM(vm), json), e);
}

static inline mvm_status shim_memory_hotplug(uintptr_t vm, uint64_t size, uint64_t timeout_ms, uint64_t *plugged,
                                             mvm_error *e) {
  return shim_result(mvm_memory_hotplug(VM(vm), size, timeout_ms, plugged), e);
}

static inline mvm_status shim_drive_update(uintptr_t vm, const char *id, const char *path, const char *limiter,
                                           mvm_error *e) {
  return shim_result(mvm_drive_update(VM(vm), id, path, limiter), e);
}

static inline mvm_status shim_network_update(uintptr_t vm, const char *id, const char *rx, const char *tx,
                                             mvm_error *e) {
  return shim_result(mvm_network_update(VM(vm), id, rx, tx), e);
}

static inline mvm_status shim_device_attach(uintptr_t vm, const char *section, const char *definition, mvm_error *e) {
  return shim_result(mvm_device_attach(VM(vm), section, definition), e);
}

static inline mvm_status shim_device_detach(uintptr_t vm, const char *section, const char *id, mvm_error *e) {
  return shim_result(mvm_device_detach(VM(vm), section, id), e);
}
