/*
 * libmvm: Firecracker microVMs from inside your own process.
 *
 * This header is the reference of functions, docs/json.md that of options. docs/operator-guide.md explains how to use
 * both. A first program:
 *
 *     mvm_runtime *runtime = NULL;
 *     mvm_vm *vm = NULL;
 *     mvm_shutdown_outcome outcome = MVM_SHUTDOWN_NONE;
 *     if (mvm_runtime_open("/var/lib/mvm", "{\"firecracker\":\"/usr/bin/firecracker\"}", &runtime) ||
 *         mvm_create(runtime, "web-1", "{\"boot-source\":{\"kernel_image_path\":\"/srv/vmlinux\"}}", &vm) ||
 *         mvm_start(vm) ||
 *         mvm_shutdown(vm, MVM_DEFAULT_GRACE_MS, MVM_DEFAULT_POLL_MS, &outcome) ||
 *         mvm_destroy(vm))
 *       fprintf(stderr, "%s\n", mvm_last_error_message());
 *     mvm_release(vm);
 *     mvm_runtime_close(runtime);
 *
 * THE CONTRACT, which holds for every function unless it says otherwise:
 *
 * Words. The owner is the process that has a state directory open. The VMM is the Firecracker process of one VM.
 *
 * Names. mvm_<verb> creates a VM or acts on one: mvm_create(), mvm_restore(), mvm_start(). mvm_<part>_<verb> acts on a
 *   part of a VM: mvm_drive_update(), mvm_console_read(). All other names begin with their subject: mvm_runtime_,
 *   mvm_snapshot_, mvm_pool_, mvm_process_, mvm_cancel_, mvm_log_. ..._release() releases a handle and keeps the thing;
 *   ..._destroy() removes the thing. Arguments come in the order handle, inputs, results.
 *
 * Handles. mvm_runtime, mvm_vm, mvm_pool, mvm_process and mvm_cancel are opaque. A handle has a pointer type, so the
 *   compiler tells the kinds apart. Its value is a key that is never used twice; do not dereference it. A handle that
 *   is NULL, was released, is of another kind or is invented is MVM_ERR_BAD_HANDLE, never undefined behaviour.
 *   To release a handle never ends a VM or a process. A call that is running on the handle continues.
 *
 * Errors. A call returns MVM_OK (0) or a negative mvm_status. mvm_last_error() returns the details of the calling
 *   thread's last failure: the whole message, errno, HTTP status, Firecracker's own words, the VMM's last output.
 *   A failed call leaves nothing of itself behind.
 *
 * Results. The place for a result is first set to NULL, 0, -1 or its ..._NONE value, and on success to the result.
 *   In a struct that begins with `size`, set `size` to sizeof of the struct; the macro MVM_<STRUCT>_INIT does it. The
 *   library writes no more than that. So a program works with a newer library whose struct has grown.
 *
 * Strings. In: NUL-terminated UTF-8; the library keeps no pointer to them after the call. Out: the caller's, for
 *   mvm_string_free(). Configuration and reports are JSON. docs/json.md lists every key.
 *
 * Signal handlers. A handler may call mvm_cancel_raise(), mvm_interrupt(), mvm_process_interrupt(), mvm_version() and
 *   mvm_status_name(), and nothing else. They keep errno.
 *
 * Threads. Every function may be called from any thread at any time. One operation at a time runs on one VM; others
 *   wait for their turn. Calls on other VMs, and all queries ("Blocks: never"), do not wait for it. The library
 *   starts these threads and no others, with all signals blocked: "mvm-clone" during mvm_clone(); "mvm-pool", one for
 *   each open pool; "mvm-keeper", one for each runtime that has created a VM and whose options name no keeper;
 *   "mvm-remove", one for each runtime, until the files of an interrupted snapshot are removed; and "mvm-pager",
 *   several for each VM restored with {"memory": "pager", "pager": {"run_in": "thread"}}.
 *
 * Blocking. "Blocks:" says how long a call may take. "never": microseconds, without waiting for anything. "up to" a
 *   limit: that limit, in milliseconds on the monotonic clock. It is an argument (MVM_FOREVER for none), a key of the
 *   options, or one of the VM's "deadlines". "for the disk": as long as the disk takes; no limit applies to that.
 *   Another thread or a signal handler ends one call by mvm_cancel_raise(), or all calls on a VM by mvm_interrupt().
 *   A signal that arrives during a call does no harm.
 *
 * The host process. The library installs no signal handler and ignores no signal. It writes nothing to stdin, stdout
 *   or stderr, never exits or aborts, and raises no SIGPIPE. It changes neither working directory, umask, environment,
 *   limits nor credentials, and reads no environment variable. A write beyond RLIMIT_FSIZE is an error
 *   (MVM_ERR_NO_RESOURCES, errno EFBIG), not a SIGXFSZ. Firecracker inherits the limit, and is ended by it. The calling
 *   thread blocks its signals for some microseconds while a process or a thread is started, for less than one while
 *   a handle is looked up, and SIGXFSZ alone while a file is written. The library's descriptors are close-on-exec. It
 *   waits for its own children by pidfd, so a host that ignores SIGCHLD or calls waitpid(-1) disturbs nothing; only the
 *   exit status may then be known to the host alone (MVM_EXIT_REAPED_BY_HOST). VMMs, pagers and mvm-keeper may outlive
 *   the process.
 *
 * Fork. In a forked child every call returns MVM_ERR_FORKED at once and takes no lock. Only mvm_last_error,
 *   mvm_string_free, and the functions that return constants work there. Use the parent, or execute a program.
 *
 * Stacks. A thread that calls needs a stack of 32 KiB, its thread-local data included (a debug build: 128 KiB).
 *
 * Copies. Two copies of the library may be loaded into one process. Each has its own handles. For a handle of the other
 *   copy it returns MVM_ERR_BAD_HANDLE.
 *
 * Versions. MVM_VERSION_NUMBER is the version of the header, mvm_version() that of the library. "Since" says in which
 *   version a function was added. The numbers of enums and the layout of structs never change; new ones are added at
 *   the end.
 *
 * Linux on x86_64 and aarch64, kernel 5.10 or newer. This file is generated; do not edit it.
 */

#ifndef MVM_H
#define MVM_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header; see mvm_version(). */
#define MVM_VERSION_MAJOR 0
#define MVM_VERSION_MINOR 1
#define MVM_VERSION_PATCH 0
#define MVM_VERSION_NUMBER (MVM_VERSION_MAJOR * 1000000 + MVM_VERSION_MINOR * 1000 + MVM_VERSION_PATCH)

/* A result that must not be ignored: the compiler warns. Defined before this file is included, it stays as it is. */
#ifndef MVM_MUST_USE
#if defined(__GNUC__)
#define MVM_MUST_USE __attribute__((warn_unused_result))
#else
#define MVM_MUST_USE
#endif
#endif

/** A flag of `mvm_runtime_reap`: remove nothing, and report what would be removed. */
#define MVM_REAP_DRY_RUN 1

/** A flag of `mvm_runtime_reap`: also end and remove VMs whose journal is damaged. */
#define MVM_REAP_DAMAGED 2

/** A bit of `mvm_runtime_check`: no VM can run. */
#define MVM_CHECK_RUN 1

/** A bit of `mvm_runtime_check`: no VM can be restored with `"memory": "pager"`. */
#define MVM_CHECK_PAGER 2

/** A bit of `mvm_runtime_check`: there is no usable keeper. */
#define MVM_CHECK_KEEPER 4

/** A bit of `mvm_runtime_check`: no VM can run in a jail. */
#define MVM_CHECK_JAIL 8

/** A bit of `mvm_runtime_check`: no cgroups can be created for VMs. */
#define MVM_CHECK_CGROUPS 16

/** A bit of `mvm_runtime_check`: no network interfaces can be created for VMs. */
#define MVM_CHECK_NETWORK 32

/** A bit of `mvm_runtime_check`: there are no huge pages for guests. */
#define MVM_CHECK_HUGE_PAGES 64

/** No limit, for every time in milliseconds. */
#define MVM_FOREVER UINT64_MAX

/** Default `grace_ms`: how long a shutdown waits before SIGTERM or SIGKILL follows. */
#define MVM_DEFAULT_GRACE_MS 2000

/** Default `poll_ms`: the longest time between two checks of the process. */
#define MVM_DEFAULT_POLL_MS 50

/** Room for any id of a VM, a snapshot or a pool, with its NUL. */
#define MVM_ID_SIZE 72

/** The result of `mvm_balloon_set` when the balloon reports nothing. */
#define MVM_UNKNOWN UINT64_MAX

/**
 * What a call returns: 0, or why the call failed. The numbers never change. There is one status for each decision that
 * a caller can take.
 */
enum mvm_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** The call succeeded. */
  MVM_OK = 0,
  /** A bug in the library: a panic was caught. The message has its text. */
  MVM_ERR_INTERNAL = -1,
  /** The handle is NULL, was released, is of another kind, or never existed. */
  MVM_ERR_BAD_HANDLE = -2,
  /** This process was forked after the library was first used. Only the parent may use the library. */
  MVM_ERR_FORKED = -3,
  /** An argument is NULL, not UTF-8, or not one of the allowed values. */
  MVM_ERR_INVALID_ARGUMENT = -4,
  /** A spec or options: not JSON, an unknown key, or an impossible value. The message names the key. */
  MVM_ERR_INVALID_CONFIG = -5,
  /** The call is not possible in the present state of the VM. */
  MVM_ERR_BAD_STATE = -6,
  /** There is no such VM, snapshot, pool or file. */
  MVM_ERR_NOT_FOUND = -7,
  /** There is a VM, a snapshot or a pool with this id already. */
  MVM_ERR_ALREADY_EXISTS = -8,
  /**
   * Another runtime owns the state directory; or something depends on the snapshot, or works on it; or another VM
   * uses the file, the socket or the device.
   */
  MVM_ERR_BUSY = -9,
  /** The call did not finish within its limit. */
  MVM_ERR_TIMEOUT = -10,
  /** The call was ended early: by `mvm_cancel_raise`, `mvm_interrupt`, or the closing of the runtime. */
  MVM_ERR_INTERRUPTED = -11,
  /** Firecracker refused. Its own words are in `fault_message`. */
  MVM_ERR_VMM_REFUSED = -12,
  /** The VMM ended while it was needed. The error says how, with its last output. */
  MVM_ERR_VMM_EXITED = -13,
  /** The VMM, or a program in its place, does not speak as Firecracker does. */
  MVM_ERR_VMM_PROTOCOL = -14,
  /** This machine, or this version of Firecracker, cannot do it. */
  MVM_ERR_UNSUPPORTED = -15,
  /** The operating system forbids it. See `os_errno`. */
  MVM_ERR_PERMISSION = -16,
  /** Descriptors, memory, processes or disk space have run out. The call may succeed later. */
  MVM_ERR_NO_RESOURCES = -17,
  /** The operating system reports another error. See `os_errno`. */
  MVM_ERR_IO = -18,
  /** A snapshot has changed since it was taken: a file is missing, cut off or altered. Use another snapshot. */
  MVM_ERR_DAMAGED = -19,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_status mvm_status;
#else
typedef int32_t mvm_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How a process ended. */
enum mvm_exit_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** The process has not ended. */
  MVM_EXIT_NONE = 0,
  /** The process exited, with the code in `value`. */
  MVM_EXIT_CODE = 1,
  /** The signal in `value` ended it. */
  MVM_EXIT_SIGNAL = 2,
  /**
   * The process has ended, but its status is not known. The host process took the status first (by `waitpid(-1)`, or
   * with SIGCHLD ignored) on a kernel before 6.15; or no owner noted the end.
   */
  MVM_EXIT_REAPED_BY_HOST = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_exit_kind mvm_exit_kind;
#else
typedef int32_t mvm_exit_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What a VM is doing. */
enum mvm_vm_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** Unknown: the call failed. */
  MVM_STATE_NONE = 0,
  /** Its VMM is configured; the guest has not started. */
  MVM_STATE_CREATED = 1,
  /** The guest runs. */
  MVM_STATE_RUNNING = 2,
  /** The guest is paused. */
  MVM_STATE_PAUSED = 3,
  /** A call ended the VM, or the guest powered off. The VM can be started again. */
  MVM_STATE_STOPPED = 4,
  /** The VMM ended in another way: the VMM or the guest crashed. The VM can be started again. */
  MVM_STATE_FAILED = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_vm_state mvm_vm_state;
#else
typedef int32_t mvm_vm_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How a shutdown ended. */
enum mvm_shutdown_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** Nothing has ended: the call failed. */
  MVM_SHUTDOWN_NONE = 0,
  /** The VMM ended by itself within the grace time: the guest powered off, or the VMM followed SIGTERM. */
  MVM_SHUTDOWN_GRACEFUL = 1,
  /** The VMM did not end within the grace time, or there was none, or another call killed it. */
  MVM_SHUTDOWN_FORCED = 2,
  /** The VMM had ended before the call. */
  MVM_SHUTDOWN_ALREADY_EXITED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_shutdown_outcome mvm_shutdown_outcome;
#else
typedef int32_t mvm_shutdown_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How much of the guest's memory a snapshot holds. */
enum mvm_snapshot_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** There is no snapshot. */
  MVM_SNAPSHOT_NONE = 0,
  /** All of it. */
  MVM_SNAPSHOT_FULL = 1,
  /** What changed since its parent. */
  MVM_SNAPSHOT_DIFF = 2,
  /** It is damaged or cannot be read now. Only its id is known. `mvm_snapshot_info` fails, and says why. */
  MVM_SNAPSHOT_UNREADABLE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_snapshot_kind mvm_snapshot_kind;
#else
typedef int32_t mvm_snapshot_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What has happened. */
enum mvm_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** No event within the time. */
  MVM_EVENT_NONE = 0,
  /** The VM was created. */
  MVM_EVENT_CREATED = 1,
  /** Its guest was started. */
  MVM_EVENT_STARTED = 2,
  /** The guest was paused. */
  MVM_EVENT_PAUSED = 3,
  /** The guest was resumed. */
  MVM_EVENT_RESUMED = 4,
  /** Its VMM has ended: `exit_kind` and `exit_value` say how. */
  MVM_EVENT_EXITED = 5,
  /** The VM was destroyed. */
  MVM_EVENT_DESTROYED = 6,
  /** The VM was running when the runtime was opened, and now belongs to this runtime. */
  MVM_EVENT_ADOPTED = 7,
  /** The VM had no VMM when the runtime was opened. Start it again, or see `mvm_runtime_reap`. */
  MVM_EVENT_ORPHAN_FOUND = 8,
  /** Something in the state directory is damaged or unknown, and was left alone. `text` says what. */
  MVM_EVENT_DAMAGED = 9,
  /** The keeper has ended, and no other could be started. `text` says why. */
  MVM_EVENT_KEEPER_LOST = 10,
  /** `count` events before this one were lost, because nobody took them in time. */
  MVM_EVENT_DROPPED = 11,
  /** The VM has another id. `text` is the former one. */
  MVM_EVENT_RENAMED = 12,
  /** A snapshot of the VM was taken. `text` is the snapshot's id. */
  MVM_EVENT_SNAPSHOTTED = 13,
  /** The VM was restored from the snapshot `text`, and is paused. */
  MVM_EVENT_RESTORED = 14,
  /** The pager of the VM has failed or ended, and the VM was killed. `text` says why. */
  MVM_EVENT_PAGER_LOST = 15,
  /** The kernel has killed the VM, because it had used all the memory that the spec's `limits` allow. */
  MVM_EVENT_OUT_OF_MEMORY = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_event_kind mvm_event_kind;
#else
typedef int32_t mvm_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How severe a line of the log is. */
enum mvm_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** No line. As a level to log at: nothing is logged. */
  MVM_LOG_OFF = 0,
  /** Something has failed. */
  MVM_LOG_ERROR = 1,
  /** Something needs attention. */
  MVM_LOG_WARN = 2,
  /** What happens to VMs. */
  MVM_LOG_INFO = 3,
  /** Each request to a VMM. */
  MVM_LOG_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_log_level mvm_log_level;
#else
typedef int32_t mvm_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** A cancel token. See "Handles" on the first page. */
typedef struct mvm_cancel mvm_cancel;

/** A pool of VMs. See "Handles" on the first page. */
typedef struct mvm_pool mvm_pool;

/** A child process. See "Handles" on the first page. */
typedef struct mvm_process mvm_process;

/** A state directory and the VMs in it. See "Handles" on the first page. */
typedef struct mvm_runtime mvm_runtime;

/** A microVM. See "Handles" on the first page. */
typedef struct mvm_vm mvm_vm;

/**
 * The details of a failure. Set `size` to `sizeof(mvm_error)` before the call; all texts are NUL-terminated
 * UTF-8, cut at a character where they are too long.
 */
typedef struct mvm_error {
  /** In: `sizeof(mvm_error)`. */
  uint32_t size;
  /** What the call returned. */
  mvm_status status;
  /** The `errno` behind it, or 0. */
  int32_t os_errno;
  /** The HTTP status with which Firecracker refused, or 0. */
  int32_t http_status;
  /** How the VMM ended, where it did. */
  mvm_exit_kind exit_kind;
  /** The exit code or signal, where there is one. */
  int32_t exit_value;
  /** What was going on: an operation (`start`), a step (`spawn`) or a request (`PUT /drives/rootfs`). */
  char stage[64];
  /** What was tried, on what, why it failed and what to do, with all its causes, in one line. */
  char message[1024];
  /** Firecracker's own fault message, where it refused. */
  char fault_message[1024];
  /** The last of what the VMM wrote about itself, where that explains something. */
  char output[2048];
} mvm_error;

/** An empty one, with its size: `mvm_error it = MVM_ERROR_INIT;` */
#define MVM_ERROR_INIT {sizeof(mvm_error), MVM_OK, 0, 0, MVM_EXIT_NONE, 0, {0}, {0}, {0}, {0}}

/** One of several VMs. Set `size` to `sizeof(mvm_vm_summary)` before the call. */
typedef struct mvm_vm_summary {
  /** In: `sizeof(mvm_vm_summary)`. */
  uint32_t size;
  /** What it is doing. */
  mvm_vm_state state;
  /** The process id of its VMM, or 0 while no VMM runs. */
  int32_t pid;
  /** How its last VMM ended, while no VMM runs. */
  mvm_exit_kind exit_kind;
  /** The exit code or the signal. */
  int32_t exit_value;
  /** Its id; "" when there is no VM. */
  char id[72];
  /** The pool in which it waits, or "". */
  char pool[72];
} mvm_vm_summary;

/** An empty one, with its size: `mvm_vm_summary it = MVM_VM_SUMMARY_INIT;` */
#define MVM_VM_SUMMARY_INIT {sizeof(mvm_vm_summary), MVM_STATE_NONE, 0, MVM_EXIT_NONE, 0, {0}, {0}}

/** How a process ended. Set `size` to `sizeof(mvm_exit)` before the call. */
typedef struct mvm_exit {
  /** In: `sizeof(mvm_exit)`. */
  uint32_t size;
  /** In which way. */
  mvm_exit_kind kind;
  /** The exit code or the signal. */
  int32_t value;
} mvm_exit;

/** An empty one, with its size: `mvm_exit it = MVM_EXIT_INIT;` */
#define MVM_EXIT_INIT {sizeof(mvm_exit), MVM_EXIT_NONE, 0}

/** One of several snapshots. Set `size` to `sizeof(mvm_snapshot_summary)` before the call. */
typedef struct mvm_snapshot_summary {
  /** In: `sizeof(mvm_snapshot_summary)`. */
  uint32_t size;
  /** How much of the memory it holds. */
  mvm_snapshot_kind kind;
  /** When it was taken, in milliseconds since 1970. */
  uint64_t time_ms;
  /** The size of the guest's memory. */
  uint64_t memory_bytes;
  /** The disk space of all its files. */
  uint64_t allocated_bytes;
  /** Its id; "" when there is no snapshot. */
  char id[72];
  /** The id of its parent, for a diff; or "". */
  char parent[72];
  /** The id of the VM. */
  char vm[72];
} mvm_snapshot_summary;

/** An empty one, with its size: `mvm_snapshot_summary it = MVM_SNAPSHOT_SUMMARY_INIT;` */
#define MVM_SNAPSHOT_SUMMARY_INIT {sizeof(mvm_snapshot_summary), MVM_SNAPSHOT_NONE, 0, 0, 0, {0}, {0}, {0}}

/** What a pool holds, and what it did. Set `size` to `sizeof(mvm_pool_counts)` before the call. */
typedef struct mvm_pool_counts {
  /** In: `sizeof(mvm_pool_counts)`. */
  uint32_t size;
  /** How many members are ready to be taken. */
  uint32_t ready;
  /** How many members it is to have: `"size"` in its options. */
  uint64_t pool_size;
  /** How many VMs were taken out of it. */
  uint64_t taken;
  /** How often a VM was wanted and none was ready. */
  uint64_t missed;
  /** How many members could not be created; `mvm_pool_info` says why the last one could not. */
  uint64_t failed;
} mvm_pool_counts;

/** An empty one, with its size: `mvm_pool_counts it = MVM_POOL_COUNTS_INIT;` */
#define MVM_POOL_COUNTS_INIT {sizeof(mvm_pool_counts), 0, 0, 0, 0, 0}

/** One event. Set `size` to `sizeof(mvm_event)` before the call. */
typedef struct mvm_event {
  /** In: `sizeof(mvm_event)`. */
  uint32_t size;
  /** What has happened. */
  mvm_event_kind kind;
  /** 1 for the first event of the runtime, and one more for each. */
  uint64_t sequence;
  /** When it was noticed, in milliseconds since 1970. */
  uint64_t time_ms;
  /** How many events were lost, for `MVM_EVENT_DROPPED`. */
  uint64_t count;
  /** How the VMM ended, for `MVM_EVENT_EXITED`. */
  mvm_exit_kind exit_kind;
  /** The exit code or the signal. */
  int32_t exit_value;
  /** The VM's id, or "". */
  char vm[72];
  /** A text that says more, or "". */
  char text[512];
} mvm_event;

/** An empty one, with its size: `mvm_event it = MVM_EVENT_INIT;` */
#define MVM_EVENT_INIT {sizeof(mvm_event), MVM_EVENT_NONE, 0, 0, 0, MVM_EXIT_NONE, 0, {0}, {0}}

/** One line of the log. Set `size` to `sizeof(mvm_log_line)` before the call. */
typedef struct mvm_log_line {
  /** In: `sizeof(mvm_log_line)`. */
  uint32_t size;
  /** How severe the line is; `MVM_LOG_OFF` when there is no line. */
  mvm_log_level level;
  /** When it was written, in milliseconds since 1970. */
  uint64_t time_ms;
  /** How many lines before it were lost. */
  uint64_t dropped;
  /** The part of the library that wrote it. */
  char target[64];
  /** The text. */
  char text[1024];
} mvm_log_line;

/** An empty one, with its size: `mvm_log_line it = MVM_LOG_LINE_INIT;` */
#define MVM_LOG_LINE_INIT {sizeof(mvm_log_line), MVM_LOG_OFF, 0, 0, {0}, {0}}

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ======== ERRORS ====================================================================================*/

/**
 * Copies the details of the calling thread's last failure into `*error`. A call that succeeds does not change them. If
 * no call has failed, `error->status` is `MVM_OK` and the texts are empty.
 *
 * Call this on the thread that made the failed call, before its next call. In a language that moves code between
 * threads, make both calls in one C function.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (NULL, or a `size` smaller than that of this struct in 0.1). These do not change
 * the details.
 * Blocks: never. Since 0.1.
 */
mvm_status mvm_last_error(struct mvm_error *error);

/**
 * Returns the message of the calling thread's last failure. The string is never NULL, and is `""` when no call has
 * failed. It is the `message` of `mvm_last_error`, but never cut.
 *
 * The string belongs to the library. It does not change until this thread calls this function again, or ends.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_last_error_message(void);

/**
 * Returns the name of a status, such as `"MVM_ERR_TIMEOUT"`; `"unknown"` for any other number. The string is constant
 * and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_status_name(int32_t status);

/**
 * Returns the name of an `mvm_exit_kind`, as in JSON: `"code"`, `"signal"`, `"reaped_by_host"`, `"none"`. Any other
 * number is `"unknown"`. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_exit_name(int32_t kind);

/* ======== RUNTIMES, AND CREATING VMS ================================================================*/

/**
 * Opens the state directory `state_dir`, and creates it when it does not exist. As long as this runtime is open, no
 * other runtime can open the directory. Everything that the library keeps on disk is below it, readable by this user
 * alone.
 *
 * VMs of an owner that has ended are taken over. A running VM is a full VM again, for `mvm_open`. A VM that was to end
 * with its owner is killed. An unfinished creation or removal is undone. `mvm_runtime_report` and events say what was
 * found.
 *
 * `options` is a JSON object, or NULL for an empty one:
 *
 *     { "firecracker": "/usr/bin/firecracker",   the VMM of VMs whose spec names none
 *       "keeper": "/usr/libexec/mvm-keeper",     the program that bounds consoles while no owner lives, and kills VMs
 *                                                whose "on_owner_exit" is "kill"
 *       "cgroup": "/sys/fs/cgroup/vms.slice",    the cgroup of the keeper, and of VMs whose spec names none
 *       "cgroup_parent": "/mvm",                 the cgroup in which those of VMs with "limits" are created
 *       "catalogue": "/srv/images",              directory of images, for VMs whose spec names a template
 *       "tools": "/usr/sbin",                    where e2fsck and resize2fs are
 *       "event_queue": 4096 }                    how many events the queue holds
 *
 * You always name the VMM and the keeper: the library reads no search path and no environment variable. This call asks
 * the keeper program for its version, which must be that of the library. The keeper is started when the first VM needs
 * it. It ends when there is no owner and no VM that needs it. Without a keeper program, a thread of the library,
 * `mvm-keeper`, bounds consoles while the runtime is open, and `"kill"` is an error.
 *
 * Errors: `MVM_ERR_BUSY` (another runtime has the directory open, in this process or another; the message has its
 * pid), `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
 * Blocks: for the disk; up to 5 s for all adopted VMMs to say what their guests do; and up to 5 s for each VM that is
 * killed. Ownership: `*runtime` is the caller's, for `mvm_runtime_close`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_open(const char *state_dir,
                            const char *options,
                            struct mvm_runtime **runtime);

/**
 * Looks at what this host can do for a runtime that is opened with these arguments, what it cannot do, and what to do
 * about it. It changes nothing, needs no privilege, and looks with the rights of the calling thread. No runtime needs to
 * be open, and one may be.
 *
 * `state_dir` may be NULL: then it is not looked at. It need not exist. `options` are those of `mvm_runtime_open`, or
 * NULL. Firecracker, the jailer beside it and the keeper are asked for their versions; nothing else is started.
 *
 * Each of the results may be NULL:
 *
 * - `*cannot`: a sum of `MVM_CHECK_…`, what this host cannot do.
 * - `*text`: the report for people, lines of at most 200 bytes or so.
 * - `*json`: the report for programs. docs/json.md lists all findings.
 *
 *     { "can": { "run": "yes", "jail": "no", … },       the worst status of the findings for each purpose
 *       "findings": [ {
 *         "name": "kvm",                                always the same
 *         "for": "run",                                 the purpose
 *         "status": "no",                               "yes", "limited" or "no"
 *         "text": "cannot use /dev/kvm: Permission denied (os error 13)",
 *         "advice": "add user 1000 to group kvm …",     null when there is nothing to do
 *         "seen": { "path": "/dev/kvm", "errno": 13 } }, … ] }
 *
 * Errors: `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO` (no working directory). What
 * the host lacks is a finding, not an error.
 * Blocks: for the programs' answers, some milliseconds; up to 10 s when they do not answer. Ownership: `*text` and
 * `*json` are the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_check(const char *state_dir,
                             const char *options,
                             uint32_t *cannot,
                             char **text,
                             char **json);

/**
 * Closes the runtime. Calls that are running on its VMs end with `MVM_ERR_INTERRUPTED`. Handles of its VMs and pools
 * become bad handles. The state directory is free when those calls have returned.
 *
 * No VM is stopped. A VM with "on_owner_exit": "kill" still ends with this process, unless another process has opened
 * the directory first. A VM whose mvm_create is just returning keeps running; mvm_open finds it when the directory is
 * opened again. NULL is allowed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: until the keeper thread has ended, some milliseconds. Since 0.1.
 */
mvm_status mvm_runtime_close(struct mvm_runtime *runtime);

/**
 * Returns all VMs of the runtime as a JSON array, in the order of their ids: `[{"id":"web-1","state":"running"}]`. A
 * VM with owner data has `owner_data` too.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_list(struct mvm_runtime *runtime,
                            char **json);

/**
 * Returns one VM after the other, in the order of their ids: the first whose id comes after `after`, or the very first when
 * `after` is NULL or "". After the last one the call succeeds, and `vm->id` is "". `after` may be `vm->id` itself:
 *
 *     mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
 *     while (mvm_runtime_next_vm(runtime, vm.id, &vm) == MVM_OK && vm.id[0] != '\0')
 *       printf("%s is %s\n", vm.id, mvm_state_name(vm.state));
 *
 * VMs may be created and destroyed meanwhile. A VM that exists all the time is returned exactly once, unless it is renamed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`; `vm->id` is "" then. Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_next_vm(struct mvm_runtime *runtime,
                               const char *after,
                               struct mvm_vm_summary *vm);

/**
 * Returns what was found when the runtime was opened, as a JSON object:
 *
 *     { "adopted": ["web-1"],                                    they run, and now belong to this runtime
 *       "ended": [{"id": "web-2", "why": "no owner noted its end"}],  VMs without a VMM
 *       "undone": ["/var/lib/mvm/vms/web-3"],                    unfinished creations and removals
 *       "left_alone": [{"path": "…/vms/web-4", "problem": "…"}] }   not known to the library, and not touched
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_report(struct mvm_runtime *runtime,
                              char **json);

/**
 * Removes leftovers: VMs that had no VMM when the runtime was opened, and were not started since. VMs that this
 * runtime stopped are not touched. Nothing is touched that does not certainly belong to the library. What
 * `mvm_runtime_open` could not deal with is checked once more.
 *
 * `flags` is 0 or a sum of:
 *
 * - `MVM_REAP_DRY_RUN`: nothing is removed, and the report says what would be removed.
 * - `MVM_REAP_DAMAGED`: a VM whose journal cannot be read or believed is ended and removed. Every process that prints
 *   to its console or works in its `vmm` directory is killed. A VMM whose VM's directory was moved away or deleted is
 *   killed too; a jailed one whose directory was moved away is not found. The report lists them under `damaged`. Without this flag they are left alone.
 *
 * `*json`:
 *
 *     { "dry_run": false,
 *       "removed": [{"id": "web-2", "state": "stopped", "owns": ["/var/lib/mvm/vms/web-2", …]}],
 *       "failed": [{"id": "…", "problem": "…"}], "undone": [], "left_alone": [],
 *       "damaged": [{"path": "…/vms/web-4", "problem": "…", "ended": [4711]}] }
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (an unknown flag), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_IO`.
 * Blocks: for the disk, and as `mvm_runtime_open`. Ownership: `*json` is the caller's, for `mvm_string_free`.
 * Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_reap(struct mvm_runtime *runtime,
                            uint32_t flags,
                            char **json);

/**
 * Ends the calls that are running on the VM `id`, in any thread, with `MVM_ERR_INTERRUPTED`. Unlike `mvm_interrupt`,
 * it also ends an `mvm_create`, `mvm_restore`, `mvm_clone` or `mvm_pool_take` that has not returned a handle yet. If
 * there is no such VM, nothing happens.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
 */
mvm_status mvm_runtime_interrupt(struct mvm_runtime *runtime,
                                 const char *id);

/**
 * Creates a VM: starts its VMM and configures it. `mvm_start` starts the guest. After an error there is no process, no
 * socket and no file.
 *
 * `id` has 1 to 64 letters, digits and '-', and begins with a letter or a digit. `spec` is a Firecracker config file,
 * as JSON: whatever `firecracker --config-file` accepts, sections of newer releases included. One more section is for
 * the library itself. Each of its keys may be left out; docs/json.md lists all keys:
 *
 *     "mvm": {
 *       "firecracker": "/opt/firecracker",       the VMM, instead of the runtime's
 *       "arguments": ["--enable-pci"],           more arguments for it
 *       "shutdown": { "guest": "ctrl-alt-del" }, or "off": mvm_shutdown does not ask the guest
 *       "on_owner_exit": "keep",                 or "kill": the VM is killed when the process that owns it ends
 *       "cgroup": "/sys/fs/cgroup/vms.slice/web-1",  a cgroup that exists, in which the VMM is started
 *       "limits": {                              or a cgroup of the VM's own, with limits:
 *         "cpus": 1.5, "cpu_weight": 100,          time of so many CPUs, and the share when others want it too
 *         "cpuset_cpus": "0-3", "cpuset_mems": "0",  which CPUs and memory nodes
 *         "memory_mib": 544, "swap_mib": 0,        memory, the VMM's own included
 *         "pids": 64,                              processes and threads
 *         "io": [{                                 of one disk of the host
 *           "path": "/dev/nvme0n1", "read_bytes_per_second": 104857600, "write_bytes_per_second": 104857600,
 *           "read_ops_per_second": 5000, "write_ops_per_second": 5000 }]
 *       },
 *       "cgroup_parent": "/vms.slice",           the cgroup in which that one is created
 *       "owner_data": "tenant 7",                text of your own (mvm_owner_data_set)
 *       "catalogue": "/srv/images",              directory of images, instead of the runtime's
 *       "rootfs": {                              the root disk, made from an image:
 *         "template": "debian-12",                 one of the catalogue; or "from": the path of a file
 *         "read_only": false,                      the VM gets a copy; true: VMs share the image
 *         "size_mib": 4096,                        the copy is grown, with its ext4 file system
 *         "verify": "sha256",                      the image is compared with the digest in its manifest
 *         "keep": "/srv/kept/web.ext4"             mvm_destroy moves the copy there
 *       },
 *       "disks": { "data": { "template": "empty" } },  the same for other drives, by their ids
 *       "sharing": "refused",                    or "allowed": the VM may use disks, files, sockets and network devices
 *                                                that another VM uses, when that VM allows it too
 *       "console": { "limit_bytes": 1048576 },   how much of the console is kept; 0: everything
 *       "deadlines": {                           limits of calls, in milliseconds
 *         "create_ms": 10000,                      mvm_create
 *         "start_ms": 30000,                       mvm_start
 *         "request_ms": 30000,                     mvm_pause, mvm_resume, mvm_request and others
 *         "kill_ms": 5000                          the end of the process after SIGKILL
 *       }
 *     }
 *
 * Paths are host paths. Relative ones are relative to the caller's working directory.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (not a valid id), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_ALREADY_EXISTS`,
 * `MVM_ERR_BUSY` (another VM uses a file, a socket or a device of the spec, or a disk that one of the two writes to; or
 * an image changed while it was copied), `MVM_ERR_DAMAGED` (an image is not what its digest says),
 * `MVM_ERR_NOT_FOUND` (no such VMM), `MVM_ERR_UNSUPPORTED` (the VMM is too old, or is not Firecracker),
 * `MVM_ERR_VMM_REFUSED`, `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED` (see
 * `mvm_runtime_interrupt`), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
 * Blocks: up to `create_ms`. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_create(struct mvm_runtime *runtime,
                      const char *id,
                      const char *spec,
                      struct mvm_vm **vm);

/**
 * Returns a handle to the VM `id`, a new one with each call.
 *
 * Errors: `MVM_ERR_NOT_FOUND`, `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_open(struct mvm_runtime *runtime, const char *id, struct mvm_vm **vm);

/* ======== VIRTUAL MACHINES ==========================================================================*/

/**
 * Releases the handle. The VM keeps running; `mvm_open` returns another handle. NULL is allowed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_release(struct mvm_vm *vm);

/**
 * Starts the guest. A VM that is stopped or failed gets a new VMM first. A running VM is left as it is.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is paused), `MVM_ERR_VMM_REFUSED` (for example: the file is not a kernel; the VM is
 * unchanged), `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_BUSY` (another VM uses a disk, a file, a socket
 * or a device of this one), `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed),
 * `MVM_ERR_NO_RESOURCES`. If the start of a stopped VM fails, the VM is stopped.
 * Blocks: up to `start_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_start(struct mvm_vm *vm);

/**
 * Pauses the guest. Its memory and devices stay. A paused VM is left as it is.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is not running), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pause(struct mvm_vm *vm);

/**
 * Resumes the guest. A running VM is left as it is.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is not paused), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_resume(struct mvm_vm *vm);

/**
 * Ends the VM in up to three steps, and reports how it ended:
 *
 * 1. The guest gets Ctrl-Alt-Del, which asks it to power off. This step is skipped when the guest cannot receive it:
 *    not on x86_64, not running, turned off in the spec, or keyboard controller disabled. A paused guest is not
 *    resumed for this.
 * 2. The VMM gets SIGTERM. It ends Firecracker at once, and the guest is not told.
 * 3. The VMM gets SIGKILL.
 *
 * `grace_ms` is the grace time. With step 1, the guest has all of it; then steps 2 and 3 follow, 100 ms apart. Without
 * step 1, SIGTERM comes first and SIGKILL after `grace_ms`. With 0, SIGKILL comes at once. `poll_ms` is the longest
 * time between two checks of the process; 0 sets no such limit. The end of the process is noticed at once either way.
 *
 * The process is reaped, and its sockets are removed. Console and log stay until `mvm_destroy`. The VM can be started
 * again. A second caller joins the first, and gets the same outcome. If the second caller's grace time ends first, the
 * VM is killed then. If another operation runs on the VM, the shutdown waits for it, but not longer than the grace
 * time. `outcome` may be NULL. `mvm_shutdown_report` returns more.
 *
 * Errors: `MVM_ERR_INTERRUPTED` (a power-off request that the guest already received stays in effect),
 * `MVM_ERR_TIMEOUT` (the VMM outlived SIGKILL by `kill_ms`: it is stuck in the kernel), `MVM_ERR_NOT_FOUND`
 * (destroyed).
 * Blocks: up to `grace_ms` + 100 ms + `kill_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_shutdown(struct mvm_vm *vm,
                        uint64_t grace_ms,
                        uint64_t poll_ms,
                        mvm_shutdown_outcome *outcome);

/**
 * Returns the name of an `mvm_shutdown_outcome`, as in JSON: the constant without its prefix, in lower case, such as
 * `"graceful"`. Any other number is `"unknown"`. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_outcome_name(int32_t outcome);

/**
 * Returns the report of the last shutdown of this VM as a JSON object, or `null` when there was none:
 *
 *     { "outcome": "graceful", "rung": "guest", "exit": {"code": 0}, "guest_powered_off": true,
 *       "asked": [{"rung": "guest", "at_us": 3, "delivered": true}], "elapsed_us": 81234 }
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_shutdown_report(struct mvm_vm *vm, char **json);

/**
 * Kills the VMM at once. A call that is running on the VM ends with `MVM_ERR_VMM_EXITED`. A VM without a VMM is left
 * as it is.
 *
 * Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (stuck in the kernel), `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: up to `kill_ms`. Since 0.1.
 */
mvm_status mvm_kill(struct mvm_vm *vm);

/**
 * Waits until the VMM has ended, at most `timeout_ms`. Returns at once when no VMM runs. `*exit` receives how the VMM
 * ended.
 *
 * Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_BAD_STATE` (no end of a VMM is known),
 * `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: up to `timeout_ms`. No other call waits for this one. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_wait(struct mvm_vm *vm,
                    uint64_t timeout_ms,
                    struct mvm_exit *exit);

/**
 * Returns a file descriptor that becomes readable when the present VMM has ended, for epoll, libuv or Go's netpoller.
 * It is a pidfd: poll it, do not read it.
 *
 * Errors: `MVM_ERR_BAD_STATE` (no VMM runs), `MVM_ERR_NO_RESOURCES`.
 * Blocks: never. Ownership: `*fd` is the caller's, close-on-exec, for `close`; -1 after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_exit_fd(struct mvm_vm *vm,
                       int32_t *fd);

/**
 * Kills the VM if it runs, and removes everything that belongs to it. All its handles stay valid until they are
 * released; calls on them return `MVM_ERR_NOT_FOUND`. A second destroy succeeds. The id can be used again. A disk with
 * "keep" is moved to its place first.
 *
 * Errors: `MVM_ERR_TIMEOUT` (stuck in the kernel, or a large disk that is to be kept), `MVM_ERR_ALREADY_EXISTS`
 * (something is where a disk is to be kept), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. The call can be repeated.
 * Blocks: up to twice `kill_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_destroy(struct mvm_vm *vm);

/**
 * Changes the VM's id to `id`, in any state. Its directory is renamed. The next owner finds the VM under the new id.
 * Firecracker itself keeps the id that it was started with.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (not a valid id), `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_TIMEOUT` (another call is
 * running on the VM), `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_IO`. After an error the VM has
 * its former id.
 * Blocks: up to `request_ms` while another call is running on the VM. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_rename(struct mvm_vm *vm,
                      const char *id);

/**
 * Ends every call that is running on this VM, in any thread, with `MVM_ERR_INTERRUPTED`. The VM keeps running. If no
 * call is running, nothing happens, now or later. `mvm_cancel_raise` ends the calls of one task only.
 *
 * This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the other calls return soon after. Since 0.1.
 */
mvm_status mvm_interrupt(struct mvm_vm *vm);

/**
 * Sends any request to Firecracker's API. `method` is "GET", "PUT", "PATCH" or "DELETE". `path` begins with '/'.
 * `body` is JSON, or NULL. `*response` receives the body of the answer, which is often empty. `response` may be NULL.
 *
 * Errors: `MVM_ERR_VMM_REFUSED` (with `http_status` and `fault_message`), `MVM_ERR_INVALID_ARGUMENT`,
 * `MVM_ERR_BAD_STATE` (no VMM runs), and those of `mvm_start`.
 * Blocks: up to `request_ms`. Ownership: `*response` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_request(struct mvm_vm *vm,
                       const char *method,
                       const char *path,
                       const char *body,
                       char **response);

/**
 * Returns what the VM is doing. The VMM is not asked, so this takes microseconds.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_state(struct mvm_vm *vm, mvm_vm_state *state);

/**
 * Copies the id of the VM into `buffer`, which has room for `length` bytes. `MVM_ID_SIZE` bytes are enough for every
 * id. If there is too little room, `buffer` receives the empty string.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (too little room), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_id(struct mvm_vm *vm,
                  char *buffer,
                  size_t length);

/**
 * Returns the process id of the VMM. It is for people to read: once the VMM has ended, another process may have this
 * id. `mvm_exit_fd` returns a descriptor that always means this VMM.
 *
 * Errors: `MVM_ERR_BAD_STATE` (no VMM runs; `*pid` is 0), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`,
 * `MVM_ERR_NOT_FOUND` (destroyed). Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pid(struct mvm_vm *vm,
                   int32_t *pid);

/**
 * Keeps `data` with the VM: text of your own, at most 4096 bytes, which the library stores and never reads. It
 * replaces the former text. NULL or "" removes it. Encode bytes that are not text.
 *
 * The text is in the VM's journal. It stays over `mvm_rename` and every start, and the next owner of the state
 * directory finds it. `mvm_runtime_list` and `mvm_info` show it. For a new VM it may stand in the spec: `"mvm":
 * {"owner_data": "…"}`. For `mvm_restore`, `mvm_clone` and `mvm_pool_take` it may stand in the options:
 * `"owner_data"`. A restored VM does not get the text of the VM in the snapshot.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (too long), `MVM_ERR_TIMEOUT` (another call is running on the VM),
 * `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_NO_RESOURCES` (the disk is full), `MVM_ERR_IO`.
 * After an error the former text stays.
 * Blocks: up to `request_ms` while another call is running on the VM. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_owner_data_set(struct mvm_vm *vm,
                              const char *data);

/**
 * Returns the text that `mvm_owner_data_set` keeps with the VM, or "".
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Ownership: `*data` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_owner_data(struct mvm_vm *vm, char **data);

/**
 * Returns the name of an `mvm_vm_state`, as in JSON: the constant without its prefix, in lower case, such as
 * `"running"`. Any other number is `"unknown"`. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_state_name(int32_t state);

/**
 * Returns everything that is known of the VM as a JSON object: id, state, pid, exit, the VMM and its version, paths of
 * directory, API socket, console and log, the times of the last start, the report of the last shutdown. docs/json.md
 * lists all keys.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_info(struct mvm_vm *vm,
                    char **json);

/* ======== SNAPSHOTS =================================================================================*/

/**
 * Takes the snapshot `id` of a running or paused VM. The guest is paused while Firecracker writes its memory and while
 * disks are copied, and is then resumed. The snapshot is a directory of its own below the state directory. It needs
 * neither the VM nor its files any more. `id` has 1 to 64 letters, digits and '-', and begins with a letter or a
 * digit. `options` is a JSON object, or NULL:
 *
 *     { "type": "full",           or "diff": only the pages that changed since the parent, which is the last snapshot of
 *                                   this VM, or the one that it was restored from (machine-config: "track_dirty_pages";
 *                                   since Firecracker 1.13 it works without, and holds more)
 *       "when_uncertain": "full", when a diff might lack a changed page, a full snapshot is taken, and the report says
 *                                   why; or "fail": the call fails
 *       "after": "resume",        or "stay_paused"
 *       "disks": "copy",          or "reference": drives that the guest writes to are named, not copied
 *       "checksums": "omitted",   or "taken": SHA-256 of all files, for mvm_snapshot_verify
 *       "deadline_ms": 600000 }
 *
 * `*report` (`report` may be NULL):
 *
 *     { "id": "base", "type": "full", "wanted": "full", "parent": null, "directory": "…/snapshots/base",
 *       "why_full": null,         why "type" is "full" although "wanted" is "diff": a sentence
 *       "memory_bytes": 134217728, "memory_allocated_bytes": 134217728,
 *       "paused_us": 176304,      how long the guest was paused; null when it was paused before, or still is
 *       "memory_us": 175820, "disks_us": 12, "elapsed_us": 181007 }
 *
 * Firecracker cannot be stopped while it writes. A call that is interrupted, or whose deadline passes, returns at
 * once. Its files are removed, and Firecracker resumes the guest when it has finished. Until then the VM's state is in
 * doubt (`state_in_doubt` in `mvm_info`), and the next call on the VM waits.
 *
 * Everything that can be checked is checked before the guest is paused. A snapshot that fails such a check does not
 * affect later diffs. After any other failure the next snapshot is a full one.
 *
 * Errors: `MVM_ERR_BAD_STATE` (the VM is not started, or "when_uncertain" is "fail"), `MVM_ERR_UNSUPPORTED` (a drive
 * is not a file; or this Firecracker or file system cannot do diffs), `MVM_ERR_ALREADY_EXISTS`,
 * `MVM_ERR_INVALID_ARGUMENT` (not a valid id), `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_NO_RESOURCES` or
 * `MVM_ERR_VMM_REFUSED` (the disk is full), `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT`, `MVM_ERR_VMM_EXITED`,
 * `MVM_ERR_IO`. After an error there is no snapshot and no leftovers, and the guest runs or is paused as before.
 * Blocks: for Firecracker and the disk, up to `deadline_ms`. Ownership: `*report` is the caller's, for
 * `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_create(struct mvm_vm *vm,
                               const char *id,
                               const char *options,
                               char **report);

/**
 * Returns all snapshots of the runtime, in the order of their ids, and damaged ones, as a JSON object:
 *
 *     { "snapshots": [{"id": "base", "type": "full", "parent": null, "created_unix_ms": 1764000000000, "vm": "web-1",
 *                      "memory_bytes": 134217728, "allocated_bytes": 134217728}],
 *       "damaged": [{"path": "…/snapshots/odd", "problem": "…"}] }
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: for the disk. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_list(struct mvm_runtime *runtime,
                             char **json);

/**
 * Returns one snapshot after the other, in the order of their ids: the first whose id comes after `after`, or the very first
 * when `after` is NULL or "". After the last one the call succeeds, and `snapshot->id` is "". `after` may be `snapshot->id`
 * itself, as in `mvm_runtime_next_vm`. Each call lists the directory of the snapshots.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO`; `snapshot->id` is "" then.
 * Blocks: for the disk. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_next(struct mvm_runtime *runtime,
                             const char *after,
                             struct mvm_snapshot_summary *snapshot);

/**
 * Returns the name of an `mvm_snapshot_kind`, as in JSON: the constant without its prefix, in lower case, such as
 * `"diff"`. Any other number is `"unknown"`. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_snapshot_kind_name(int32_t kind);

/**
 * Returns everything that is known of a snapshot, as a JSON object: its VM, its release of Firecracker, the CPU, the
 * machine, its drives and files with sizes and checksums; the snapshots that a restore needs (`chain`), the diffs
 * whose parent it is (`children`), and what else uses it (`in_use_by`). docs/json.md lists all keys.
 *
 * Errors: `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: for the disk. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_info(struct mvm_runtime *runtime,
                             const char *id,
                             char **json);

/**
 * Reads every file that a restore of the snapshot needs, its parents' files included, and compares it with its
 * checksum. `*report` (`report` may be NULL) receives a JSON object that names the files.
 *
 * Errors: `MVM_ERR_DAMAGED` (the message says which file, and how), `MVM_ERR_UNSUPPORTED` (the snapshot has no
 * checksums), `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`.
 * Blocks: for the disk, up to `timeout_ms`. Ownership: `*report` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_verify(struct mvm_runtime *runtime,
                               const char *id,
                               uint64_t timeout_ms,
                               char **report);

/**
 * Turns a diff snapshot into a full one under the same id; it then needs no parent. The full one replaces the diff at
 * once, when it is complete. Diffs whose parent it is stay valid. `options` is a JSON object, or NULL: `{"checksums":
 * "kept", "deadline_ms": 600000}`. With "kept", the merged snapshot has checksums when the diff had them; "taken" and
 * "omitted" decide otherwise. `*info` (`info` may be NULL) receives what `mvm_snapshot_info` returns.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is not a diff), `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_BUSY` (another call
 * works on it), `MVM_ERR_NO_RESOURCES` (the disk is full), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_TIMEOUT`,
 * `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. After an error the snapshot is unchanged.
 * Blocks: for the disk, up to `deadline_ms`. Ownership: `*info` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_merge(struct mvm_runtime *runtime,
                              const char *id,
                              const char *options,
                              char **info);

/**
 * Deletes a snapshot, damaged or not. Running VMs that map its memory keep running.
 *
 * Errors: `MVM_ERR_BUSY` (it is the parent of diffs, a pool uses it, or a pager serves a VM from it, which the message
 * names; or a VM is just being restored from it), `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO`.
 * Blocks: for the disk. Since 0.1.
 */
mvm_status mvm_snapshot_delete(struct mvm_runtime *runtime,
                               const char *id);

/**
 * Creates the VM `id` from a snapshot and resumes it. Everything that could make this fail is checked first: the files
 * and their lengths, the version of Firecracker, the CPU, the disks, the vsock socket. `options` is a JSON object, or
 * NULL; docs/json.md lists all keys:
 *
 *     { "memory": "file",         Firecracker maps the snapshot's memory; or "pager": the library serves page faults
 *       "after": "resume",        or "stay_paused"
 *       "verify": "when_changed", the state's checksum, and that of files whose time stamp has changed;
 *                                   or "cheap": lengths only; or "always": all checksums
 *       "track_dirty_pages": false,   as in the snapshot, when left out
 *       "clock_realtime": false,      1.16: the guest's clock is advanced by the time since the snapshot
 *       "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap7",      1.12
 *                              "guest_mac": "02:…"}],   for the guest's metadata; the device keeps its old address
 *       "vsock_override": {"uds_path": "/run/web-2.vsock"},                      1.16
 *       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-2"}],  instead of the snapshot's files
 *       "mmds": {…},              the guest's metadata, which no snapshot holds
 *       "pager": {
 *         "run_in": "process",    mvm-keeper, which outlives the caller; or "thread": the VM ends with the caller
 *         "workers": 1, "fault_around_bytes": 2097152,
 *         "ahead": "nothing",     or "working_set": what was recorded; or "everything"
 *         "record": {"limit_bytes": 1073741824, "for_ms": 10000} },   records the working set, for later restores
 *       "mvm": {…},               instead of that section of the snapshot's spec
 *       "owner_data": "tenant 7", text of your own (mvm_owner_data_set)
 *       "deadline_ms": 30000 }
 *
 * If the guest writes to a drive and the snapshot holds a copy of it, the VM gets its own copy (a reflink where the
 * file system can do it). A guest with metadata finds under `/mvm` a `generation_id` that no other restore has.
 * Firecracker also gives Linux guests a new VMGenID. The VM's spec is that of the snapshot, with the overrides. When
 * the VM has ended, `mvm_start` boots that spec.
 *
 * Errors: `MVM_ERR_UNSUPPORTED` (another CPU, another format, or an override that this Firecracker does not support),
 * `MVM_ERR_DAMAGED` (a file is missing, cut off or altered), `MVM_ERR_NOT_FOUND` (no such snapshot, or a disk that it
 * names does not exist), `MVM_ERR_ALREADY_EXISTS` (the VM, or its vsock socket), `MVM_ERR_INVALID_CONFIG` (the
 * options), `MVM_ERR_VMM_EXITED` (also when the pager failed), and those of `mvm_create`. After an error there are no
 * leftovers.
 * Blocks: up to `deadline_ms`. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_restore(struct mvm_runtime *runtime,
                       const char *snapshot,
                       const char *id,
                       const char *options,
                       struct mvm_vm **vm);

/**
 * Stores the working set that the pager of a restored VM has recorded so far (`"record"` in `mvm_restore`) with the
 * snapshot. Later restores replay it with `"ahead": "working_set"`. Without this call, it is stored when a limit of
 * the recording is reached, or when the VM ends. `*ranges` (`ranges` may be NULL) receives the number of contiguous
 * ranges stored.
 *
 * Errors: `MVM_ERR_BAD_STATE` (nothing is recorded), `MVM_ERR_NOT_FOUND` (no pager serves the VM), `MVM_ERR_TIMEOUT`,
 * `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_working_set_store(struct mvm_vm *vm,
                                 uint64_t *ranges);

/**
 * Creates `count` VMs from one snapshot, all or none. (If the owner dies during the call, the complete ones stay.)
 * They share the snapshot's memory in the page cache. Each has its own copy of every disk that it writes to, and its
 * own `generation_id`. With Firecracker 1.16, each has its own vsock socket too: `vsock.sock` in its directory, unless
 * the options say otherwise. `options` has the keys of `mvm_restore`, and:
 *
 *     { "ids": ["web-1", "web-2"],   or "prefix": "web", for web-1, web-2, …; "clone" when left out
 *       "each": [{…}, {…}] }         options that differ, one object for each VM
 *
 * In `path_on_host`, `host_dev_name` and `uds_path`, `{id}` is replaced by the VM's id and `{n}` by its number from 1:
 * `"host_dev_name": "tap{n}"`. Write `{{` and `}}` for braces there. Metadata is not changed, unless
 * `"mmds_placeholders"` is `"filled_in"`. `vms` has room for `count` handles. A few threads work during the call.
 *
 * Errors: those of `mvm_restore` for the first VM that failed, which the message names; `MVM_ERR_INVALID_CONFIG` (a
 * list of the wrong length, or a writable disk that the snapshot does not hold and that no option replaces);
 * `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` with the id of a clone that is just being created).
 * Blocks: up to `deadline_ms` for each VM. Ownership: `vms[0]` to `vms[count - 1]` are the caller's, for
 * `mvm_release`; all are NULL after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_clone(struct mvm_runtime *runtime,
                     const char *snapshot,
                     size_t count,
                     const char *options,
                     struct mvm_vm **vms);

/* ======== WARM POOLS ================================================================================*/

/**
 * Opens the pool `name`. A thread of the pool creates its members. `name` has 1 to 53 letters, digits and '-', and
 * begins with a letter or a digit. Members are VMs with the id `<name>-<number>`, which `mvm_runtime_list` shows.
 * `options` is a JSON object:
 *
 *     { "snapshot": "base",          members are restored from it, and wait paused; or
 *       "spec": {…},                 members are configured by it, and wait without being started
 *       "restore": {…},              with "snapshot": the options of mvm_restore
 *       "size": 4,                   how many members wait
 *       "refill_per_second": 20,     the most members that are created in a second
 *       "when_empty": "make" }       mvm_pool_take waits while a member is created; or "fail"
 *
 * Paths and host devices in "restore" and "spec" may hold the placeholders of `mvm_clone`.
 *
 * Members outlive their owner, as other VMs do. The next pool of the same name takes over members that were created
 * with the same options, and destroys the others. `mvm_runtime_reap` removes members of pools that are not open.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (the name), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NOT_FOUND` (no such snapshot),
 * `MVM_ERR_ALREADY_EXISTS` (the pool is open), `MVM_ERR_NO_RESOURCES`. If members cannot be created, `mvm_pool_info`
 * reports why.
 * Blocks: as `mvm_destroy` for each former member that is destroyed. Ownership: `*pool` is the caller's, for
 * `mvm_pool_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_open(struct mvm_runtime *runtime,
                         const char *name,
                         const char *options,
                         struct mvm_pool **pool);

/**
 * Takes a VM out of the pool and gives it the id `id`. Its guest is resumed, or started when it was not started.
 * `options` is a JSON object, or NULL:
 *
 *     { "after": "resume",           or "stay_paused": the VM stays as it waited
 *       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-7"}],   other files for drives
 *       "mmds": {…},                 merged into the guest's metadata
 *       "owner_data": "tenant 7" }   text of your own (mvm_owner_data_set)
 *
 * Errors: `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NO_RESOURCES` (the
 * pool is empty, and "when_empty" is "fail"), `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` with `id`), and those of
 * `mvm_restore` and `mvm_start`. A VM that could not be handed over is destroyed.
 * Blocks: for one or two requests; for a restore when the pool is empty. Ownership: `*vm` is the caller's, for
 * `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_take(struct mvm_pool *pool,
                         const char *id,
                         const char *options,
                         struct mvm_vm **vm);

/**
 * Returns what the pool holds, and what it did, as a JSON object: `{"name": "web", "snapshot": "base", "size": 4,
 * "ready": 3, "taken": 17, "missed": 1, "failed": 0, "last_error": null}`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_info(struct mvm_pool *pool,
                         char **json);

/**
 * Returns what the pool holds, and what it did, in numbers.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed). Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_count(struct mvm_pool *pool,
                          struct mvm_pool_counts *counts);

/**
 * Destroys the pool and its members. VMs that were taken out of it are not members any more, and keep running. The
 * handle stays valid until it is released; calls on it return `MVM_ERR_NOT_FOUND`. A second destroy succeeds.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, and those of `mvm_destroy`. After an error the pool is closed, and all other members
 * are destroyed. The call can be repeated.
 * Blocks: for a member that is just being created, and as `mvm_destroy` for each member. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_destroy(struct mvm_pool *pool);

/**
 * Closes the pool and releases the handle. Its members stay as they are. `mvm_pool_open` takes them over into the next
 * pool of this name, in this process or a later one. NULL is allowed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: for a member that is just being created. Since 0.1.
 */
mvm_status mvm_pool_release(struct mvm_pool *pool);

/* ======== DEVICES ===================================================================================*/

/**
 * Sets the size of the balloon to `amount_mib`: the guest gives that much memory to the balloon, or takes back what is
 * more. Waits up to `timeout_ms` until the guest has followed; 0 does not wait. `*actual_mib` (`actual_mib` may be
 * NULL) receives the size of the balloon after the call. It is `MVM_UNKNOWN` when the balloon's statistics are off
 * (`stats_polling_interval_s`); the call then does not wait.
 *
 * Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it still may), `MVM_ERR_BAD_STATE` (not started),
 * `MVM_ERR_VMM_REFUSED` (no balloon, or more than the memory), and those of `mvm_request`.
 * Blocks: up to `timeout_ms` and `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_balloon_set(struct mvm_vm *vm,
                           uint64_t amount_mib,
                           uint64_t timeout_ms,
                           uint64_t *actual_mib);

/**
 * Returns what the guest reports about its memory: the JSON object of Firecracker's `GET /balloon/statistics`.
 *
 * Errors: `MVM_ERR_VMM_REFUSED` (no balloon, or its statistics are off), and those of `mvm_request`.
 * Blocks: up to `request_ms`. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_balloon_statistics(struct mvm_vm *vm,
                                  char **json);

/**
 * Plugs memory in or out until `size_mib` of the spec's `memory-hotplug` are plugged in. Waits up to `timeout_ms`
 * until the guest has followed; 0 does not wait. `*plugged_mib` (`plugged_mib` may be NULL) receives how much is
 * plugged in after the call.
 *
 * Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it still may), `MVM_ERR_BAD_STATE`, `MVM_ERR_VMM_REFUSED` (no
 * such memory, or not so much), and those of `mvm_request`. Blocks: up to `timeout_ms` and `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_memory_hotplug(struct mvm_vm *vm,
                              uint64_t size_mib,
                              uint64_t timeout_ms,
                              uint64_t *plugged_mib);

/**
 * Gives the drive `drive_id` another file, another rate limit, or both. NULL keeps the present one. When a file has
 * grown, pass its path again: the guest then sees the new size. `rate_limiter` is JSON, as in a spec.
 *
 * Errors: `MVM_ERR_NOT_FOUND` (no such file), `MVM_ERR_VMM_REFUSED` (no such drive), `MVM_ERR_BAD_STATE` (not
 * started), `MVM_ERR_BUSY` (another VM uses the file), `MVM_ERR_INVALID_CONFIG` (not JSON), and those of
 * `mvm_request`. After an error the drive is unchanged.
 * Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_drive_update(struct mvm_vm *vm,
                            const char *drive_id,
                            const char *path_on_host,
                            const char *rate_limiter);

/**
 * Limits the rates of the network interface `iface_id`: of what the guest receives and of what it sends. Each limit is
 * JSON, as in a spec. NULL keeps the present one.
 *
 * Errors: `MVM_ERR_VMM_REFUSED` (no such interface), `MVM_ERR_BAD_STATE` (not started), `MVM_ERR_INVALID_CONFIG` (not
 * JSON), and those of `mvm_request`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_network_update(struct mvm_vm *vm,
                              const char *iface_id,
                              const char *rx_rate_limiter,
                              const char *tx_rate_limiter);

/**
 * Plugs a device into a running VM (Firecracker 1.16, started with `--enable-pci`). The guest finds the device at its
 * next scan of the PCI bus. `section` is the device's section of a spec: "drives", "pmem" or "network-interfaces".
 * `definition` is the device's JSON in that section.
 *
 * Errors: `MVM_ERR_UNSUPPORTED` (Firecracker is too old), `MVM_ERR_VMM_REFUSED`, `MVM_ERR_BAD_STATE` (not started),
 * `MVM_ERR_BUSY` (another VM uses the file or network device), `MVM_ERR_INVALID_ARGUMENT` (the section),
 * `MVM_ERR_INVALID_CONFIG` (not JSON), and those of `mvm_request`.
 * Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_device_attach(struct mvm_vm *vm,
                             const char *section,
                             const char *definition);

/**
 * Plugs out a device (Firecracker 1.16, started with `--enable-pci`). The guest must have removed the device first.
 *
 * Errors: `MVM_ERR_UNSUPPORTED` (Firecracker is too old), `MVM_ERR_VMM_REFUSED` (no such device), `MVM_ERR_BAD_STATE`,
 * `MVM_ERR_INVALID_ARGUMENT` (the section), and those of `mvm_request`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_device_detach(struct mvm_vm *vm,
                             const char *section,
                             const char *id);

/* ======== ENDING CALLS EARLY ========================================================================*/

/**
 * Creates a cancel token. A call that is bound to a token ends with `MVM_ERR_INTERRUPTED` when the token is raised, and
 * no other call does:
 *
 *     mvm_cancel_create(&cancel);
 *     mvm_cancel_bind(cancel);               on the thread that makes the call
 *     status = mvm_snapshot_create(vm, "s1", NULL, NULL);
 *     mvm_cancel_bind(NULL);
 *     mvm_cancel_release(cancel);
 *
 * Another thread, or a signal handler, ends the snapshot by `mvm_cancel_raise(cancel)`. One token may be bound on
 * several threads, for all calls of one task. `mvm_interrupt` ends all calls on a VM, whoever made them.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Ownership: `*cancel` is the caller's, for `mvm_cancel_release`.
 * Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_cancel_create(struct mvm_cancel **cancel);

/**
 * Binds the later calls of this thread to the token, instead of the token that was bound before. NULL binds them to
 * none. Only calls that can block check a token. In a language that moves code between threads, bind, call and unbind
 * in one C function.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. After an error the former token stays bound. Blocks: never. Since 0.1.
 */
mvm_status mvm_cancel_bind(struct mvm_cancel *cancel);

/**
 * Raises the token for good. Every call that is bound to it ends with `MVM_ERR_INTERRUPTED`. Every later call that is
 * bound to it returns `MVM_ERR_INTERRUPTED` before it does anything. The VM keeps running.
 *
 * This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the calls return soon after. Since 0.1.
 */
mvm_status mvm_cancel_raise(struct mvm_cancel *cancel);

/**
 * Releases the handle. Threads that are bound to the token stay bound to it. NULL is allowed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_cancel_release(struct mvm_cancel *cancel);

/* ======== EVENTS ====================================================================================*/

/**
 * Takes the next event. If there is none, the call waits at most `timeout_ms`; 0 does not wait. If there is no event
 * in that time, the call succeeds, and `event->kind` is `MVM_EVENT_NONE`. This call notices and reaps VMMs that have
 * ended; other queries do so for their own VM. The end of a VMM is written to the VM's journal before its event is
 * returned, so the next owner reports the same. If another call is running on the VM just then, the journal is written
 * when that call ends.
 *
 * The queue holds 4,096 events (the option `event_queue`). When it is full, the oldest events are dropped, and
 * `MVM_EVENT_DROPPED` says how many.
 *
 * Errors: `MVM_ERR_INTERRUPTED` (the runtime was closed), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: up to `timeout_ms`, and for the disk when a VMM has ended. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_next_event(struct mvm_runtime *runtime,
                                  uint64_t timeout_ms,
                                  struct mvm_event *event);

/**
 * Returns a file descriptor that is readable while there is an event to take, for epoll, libuv or Go's netpoller. Poll it,
 * do not read it, and take events until there are none. It may wake up without an event. Closing the
 * runtime does not wake it: tell whoever polls.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NO_RESOURCES`.
 * Blocks: never. Ownership: `*fd` is the caller's own, close-on-exec, for `close`; -1 after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_events_fd(struct mvm_runtime *runtime,
                                 int32_t *fd);

/**
 * Returns the name of an `mvm_event_kind`: the constant without its prefix, in lower case, such as `"exited"` or
 * `"pager_lost"`. Any other number is `"unknown"`, such as the kind of an event of a newer library. The string is
 * constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_event_name(int32_t kind);

/* ======== THE CONSOLE ===============================================================================*/

/**
 * Reads the guest's serial console from the absolute offset `*offset` into `buffer`, and adds the number of bytes to
 * `*offset`. `*read` receives that number. It is 0 when the guest has printed nothing beyond `*offset` yet. Offsets
 * count from the VM's creation, over all its starts and owners. The text can be read until `mvm_destroy`, also after
 * the VM has ended. The bytes come from the guest and need not be UTF-8.
 *
 * The last `console.limit_bytes` are kept (at least three quarters of them). If `*offset` is before those, the call
 * reads from the first byte that is kept. Bytes lost = (new `*offset` - `*read`) - old `*offset`. When the spec puts
 * the console elsewhere (`serial.serial_out_path`), the call reads that file.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_IO`.
 * Blocks: for the disk. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_console_read(struct mvm_vm *vm,
                            uint64_t *offset,
                            uint8_t *buffer,
                            size_t length,
                            size_t *read);

/* ======== METRICS ===================================================================================*/

/**
 * Returns what the VM has counted since it was created, over all its starts and owners, and what its VMM's process
 * uses now, as a JSON object:
 *
 *     { "id": "web-1", "state": "running",
 *       "host": { "cpu_user_us": 120000, "cpu_system_us": 40000, "rss_bytes": 52428800, "threads": 3, "cgroup": "/…" },
 *       "cgroup": { "memory_bytes": 104857600, "oom_kills": 0, "cpu_us": 160000, "pids": 4, … },
 *       "flushes": 12,
 *       "core": { "vcpu_exits": {…}, "block": {…}, "net": {…}, "vsock": {…}, "uart": {…}, "lost": {…}, … },
 *       "totals": {…} }      Firecracker's own document, its numbers added up over all flushes
 *
 * Firecracker writes its counts once a minute, when the guest powers off, and on `mvm_metrics_flush`. When it is
 * killed, the last minute is lost. `core.lost` says what Firecracker itself lost, how many lines were damaged, and how
 * many bytes were not read because there were too many (`skipped_bytes`). `host` is null while no VMM runs, and `cgroup`
 * also for a VM without `limits`. The rest
 * is null for a VM whose spec has a `metrics` section.
 *
 * Errors: `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_TIMEOUT` (another process was reading the same metrics all the
 * time), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`, `MVM_ERR_NO_RESOURCES`.
 * Blocks: for the disk, and up to `request_ms` while another process reads the same metrics. Ownership: `*json` is the
 * caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_metrics(struct mvm_vm *vm,
                       char **json);

/**
 * Makes the VMM write its counts now, for `mvm_metrics` to read.
 *
 * Errors: `MVM_ERR_BAD_STATE` (its guest was not started), and those of `mvm_start`. Blocks: up to `request_ms`.
 * Since 0.1.
 */
mvm_status mvm_metrics_flush(struct mvm_vm *vm);

/**
 * Returns the counts of the runtime's VMs, what their processes use, and what the runtime itself did, in the text
 * format of Prometheus (0.0.4). `options` is a JSON object, or NULL:
 *
 *     { "set": "core",           the most useful numbers; "all" adds every number that Firecracker counts
 *       "ids": ["web-1"],        only these VMs
 *       "prefix": "web-",        only VMs whose ids begin with this
 *       "deadline_ms": 5000 }    for the whole call
 *
 * `mvm_vm_…` is about one VM: the label `vm` is its id, `device` a drive or interface.
 * `mvm_firecracker_<group>_<field>` is Firecracker's own number, with "all". Other `mvm_…` families are about the
 * runtime. docs/json.md lists them.
 *
 * A VM whose metrics cannot be read in time is given with the last metrics that were read, or without any.
 * `mvm_late_vms` counts such VMs.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG` (the options).
 * Blocks: for the disk, up to `deadline_ms`. Ownership: `*text` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_metrics(struct mvm_runtime *runtime,
                               const char *options,
                               char **text);

/* ======== THE LOG ===================================================================================*/

/**
 * Keeps the library's log in a queue of `capacity` lines, for `mvm_log_next`. Lines less severe than `level` (an
 * `mvm_log_level`) are discarded. When the queue is full, the oldest lines are dropped. `MVM_LOG_OFF` turns the log
 * off; it is off at first. There is one log for the process.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (not a level), `MVM_ERR_BAD_STATE` (a Rust program has already set a logger of
 * its own), `MVM_ERR_NO_RESOURCES`. Blocks: never. Since 0.1.
 */
mvm_status mvm_log_to_queue(int32_t level,
                            size_t capacity);

/**
 * Writes the log to a duplicate of `fd`: a file, a pipe, a socket or a terminal. Each line is one write. A line that
 * would have to wait is dropped, and the next line says how many were dropped. No SIGPIPE is raised.
 *
 * Errors: as `mvm_log_to_queue`; `MVM_ERR_IO` (`fd` is not open). Blocks: never. Since 0.1.
 */
mvm_status mvm_log_to_fd(int32_t level,
                         int32_t fd);

/**
 * Takes the next line from the queue. If there is none, the call succeeds, and `line->level` is `MVM_LOG_OFF`.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_log_next(struct mvm_log_line *line);

/**
 * Returns a file descriptor that is readable while the queue holds lines. Poll it, do not read it.
 *
 * Errors: `MVM_ERR_IO` (the log does not go to a queue), `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NO_RESOURCES`.
 * Blocks: never. Ownership: `*fd` is the caller's, close-on-exec, for `close`; -1 after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_log_queue_fd(int32_t *fd);

/**
 * Returns the name of an `mvm_log_level`: the constant without its prefix, in lower case, such as `"warn"`. Any other
 * number is `"unknown"`. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_log_level_name(int32_t level);

/* ======== PROCESSES OF YOUR OWN =====================================================================*/

/**
 * Starts a program as a child, held by a pidfd. `argv` is NULL-terminated. Its first string is the path of the
 * executable; no search path is used. `envp` is the child's whole environment, NULL-terminated. NULL is an empty one;
 * pass `environ` for your own. `stdio` is three descriptors for the child's input, output and error; -1 is
 * `/dev/null`. NULL is three times `/dev/null`. The descriptors stay yours.
 *
 * The child starts with all signals at their default and none blocked. It inherits no other descriptor. It has a
 * session of its own, so a Ctrl-C at the terminal does not reach it. `options` is a JSON object, or NULL:
 *
 *     { "directory": "/srv", "session": "new" or "inherited", "kill_ms": 5000 }
 *
 * Errors: `MVM_ERR_NOT_FOUND` (no such program or directory), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`,
 * `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_IO`. After an error there is no process.
 * Blocks: until the program executes. Ownership: `*process` is the caller's, for `mvm_process_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_spawn(const char *const *argv,
                             const char *const *envp,
                             const int32_t *stdio,
                             const char *options,
                             struct mvm_process **process);

/**
 * Ends the process: sends SIGTERM, waits up to `grace_ms`, then sends SIGKILL. With `grace_ms` 0, SIGKILL comes at
 * once. `poll_ms` and `outcome` are as for `mvm_shutdown`. The child is reaped.
 *
 * Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (the process outlived SIGKILL by `kill_ms`), `MVM_ERR_PERMISSION`.
 * Blocks: up to `grace_ms` + `kill_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_shutdown(struct mvm_process *process,
                                uint64_t grace_ms,
                                uint64_t poll_ms,
                                mvm_shutdown_outcome *outcome);

/**
 * Waits until the process has ended, at most `timeout_ms`. `*exit` receives how it ended. The child is reaped.
 *
 * Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: up to `timeout_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_wait(struct mvm_process *process,
                            uint64_t timeout_ms,
                            struct mvm_exit *exit);

/**
 * Returns the process id. It is for people to read: once this process was reaped, another one may have this id.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_pid(struct mvm_process *process,
                           int32_t *pid);

/**
 * Ends every call that is running on this process, in any thread, with `MVM_ERR_INTERRUPTED`. The process keeps
 * running. This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_process_interrupt(struct mvm_process *process);

/**
 * Releases the handle. The process keeps running, and you must reap it when it ends. NULL is allowed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_process_release(struct mvm_process *process);

/* ======== THE LIBRARY ===============================================================================*/

/**
 * Returns the version of the library that is loaded: `major * 1000000 + minor * 1000 + patch`. `MVM_VERSION_NUMBER` is
 * the version of the header.
 *
 * Blocks: never. Since 0.1.
 */
uint32_t mvm_version(void);

/**
 * The same as text, such as `"0.1.0"`. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_version_string(void);

/**
 * Frees a string that the library has returned. NULL is allowed. Do not use the C library's `free`.
 *
 * Blocks: never. Since 0.1.
 */
void mvm_string_free(char *string);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MVM_H */
