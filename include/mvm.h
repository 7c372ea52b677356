/*
 * libmvm: Firecracker microVMs from inside your own process.
 *
 * This header is the reference; docs/ tells the whole story. A first program:
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
 * Names. mvm_<verb> creates a VM or acts on one: mvm_create(), mvm_restore(), mvm_start(). mvm_<part>_<verb> acts on a
 *   part of a VM: mvm_drive_update(), mvm_console_read(). All other names begin with what they are about: mvm_runtime_,
 *   mvm_snapshot_, mvm_pool_, mvm_process_, mvm_cancel_, mvm_log_. ..._release() forgets a handle and leaves the thing;
 *   ..._destroy() removes the thing. Arguments come in the order handle, inputs, results.
 *
 * Handles. mvm_runtime, mvm_vm, mvm_pool, mvm_process and mvm_cancel are opaque. A handle has a pointer type, so that the compiler tells
 *   the kinds apart, but its value is a key that is never used twice, and nothing to dereference. A handle that is
 *   NULL, was released, is of another kind or is invented is MVM_ERR_BAD_HANDLE, never undefined behaviour.
 *   Releasing a handle never ends what it stands for; a call that runs on it meanwhile goes on.
 *
 * Errors. A call returns MVM_OK (0) or a negative mvm_status. mvm_last_error() gives the details of the calling
 *   thread's last failure: the whole message, errno, HTTP status, Firecracker's own words, the VMM's last output.
 *   A failed call leaves nothing of itself behind.
 *
 * Results. A place for a result is set to NULL, 0, -1 or its ..._NONE value first, and to the result on success.
 *   A struct that begins with `size` wants sizeof of it there; the library writes no further than that, so a
 *   program goes on working with a newer library whose struct has grown. The macro MVM_<STRUCT>_INIT initializes one.
 *
 * Strings. In: NUL-terminated UTF-8, lent for the call. Out: the caller's own, for mvm_string_free().
 *   Configuration and reports are JSON.
 *
 * Signal handlers. A handler may call mvm_cancel_raise(), mvm_interrupt(), mvm_process_interrupt(), mvm_version() and
 *   mvm_status_name(), and nothing else. They keep errno.
 *
 * Threads. Every function may be called from any thread at any time. One operation at a time runs on one VM, the
 *   others wait their turn; calls on other VMs, and all queries ("Blocks: never"), wait for nobody. The library
 *   starts no thread but these, with all signals blocked: "mvm-clone" for the time of an mvm_clone(); "mvm-pool",
 *   one for each open pool; "mvm-keeper", one for each runtime that has made a VM and whose options name no keeper;
 *   "mvm-remove", one for each runtime until the files of an interrupted snapshot are removed;
 *   and "mvm-pager", some for each VM restored with {"memory": "pager", "pager": {"run_in": "thread"}}.
 *
 * Blocking. Every call that blocks has a limit, in milliseconds on the monotonic clock: an argument (MVM_FOREVER
 *   for none), or a deadline in the VM's spec. Another thread or a signal handler ends one call by
 *   mvm_cancel_raise(), or all calls on a VM by mvm_interrupt(). A signal that arrives meanwhile does no harm.
 *
 * The host process. The library installs no signal handler and ignores none, writes nothing to stdin, stdout or
 *   stderr, never exits or aborts, raises no SIGPIPE, changes neither working directory, umask, environment,
 *   limits nor credentials, and reads no environment variable. A write that would pass RLIMIT_FSIZE is an error
 *   (MVM_ERR_NO_RESOURCES, errno EFBIG), and no SIGXFSZ. Firecracker inherits the limit, and ends by it. The calling
 *   thread holds its signals back for some microseconds while a process or a thread is started, for less than one while
 *   a handle is looked up, and SIGXFSZ alone while a file is written. Its descriptors are close-on-exec and above 2 in
 *   its children. It waits for its own children by pidfd, so a host that ignores SIGCHLD or calls waitpid(-1)
 *   disturbs nothing; only the exit status may then be known to the host alone (MVM_EXIT_REAPED_BY_HOST).
 *
 * Fork. In a forked child every call answers MVM_ERR_FORKED at once and takes no lock. Only mvm_last_error,
 *   mvm_string_free, and the functions that return constants work there. Go on in the parent, or execute a program.
 *
 * Stacks. A thread that calls needs a stack of 32 KiB, its thread-local data included (a debug build: 128 KiB).
 *
 * Copies. Two copies of the library may be loaded into one process. Each has its own handles, and answers
 *   MVM_ERR_BAD_HANDLE for those of the other.
 *
 * Versions. MVM_VERSION_NUMBER is the header's, mvm_version() the library's. "Since" says in which version a
 *   function came. The numbers of enums and the layout of structs are frozen; new ones are added at the end.
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

/** A flag of `mvm_runtime_reap`: remove nothing, and say what would be removed. */
#define MVM_REAP_DRY_RUN 1

/** A flag of `mvm_runtime_reap`: end and remove VMs whose journal is damaged too. */
#define MVM_REAP_DAMAGED 2

/** "No limit", for every time in milliseconds. */
#define MVM_FOREVER UINT64_MAX

/** A good `grace_ms`: the polite window of a shutdown. */
#define MVM_DEFAULT_GRACE_MS 2000

/** A good `poll_ms`: the longest sleep without a look. */
#define MVM_DEFAULT_POLL_MS 50

/** Room for every id of a VM, a snapshot or a pool, and its NUL. */
#define MVM_ID_SIZE 72

/** What `mvm_balloon_set` gives when the balloon tells nothing. */
#define MVM_UNKNOWN UINT64_MAX

/**
 * What a call returns: zero, or why it failed. The numbers never change; there is one for each decision that a
 * caller can take.
 */
enum mvm_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** It is done. */
  MVM_OK = 0,
  /** A defect of the library: a panic was caught. Its text is in the error. */
  MVM_ERR_INTERNAL = -1,
  /** The handle is NULL, was released, is of another kind, or never was one. */
  MVM_ERR_BAD_HANDLE = -2,
  /** The process was forked since the library was first used; only the parent can go on. */
  MVM_ERR_FORKED = -3,
  /** An argument is NULL, not UTF-8, or not one of the values that are allowed. */
  MVM_ERR_INVALID_ARGUMENT = -4,
  /** A spec or options: not JSON, an unknown key, or a value that is not possible. The message names it. */
  MVM_ERR_INVALID_CONFIG = -5,
  /** The VM is in a state in which this cannot be done. */
  MVM_ERR_BAD_STATE = -6,
  /** There is no such VM, or no such file. */
  MVM_ERR_NOT_FOUND = -7,
  /** There is a VM of this id already. */
  MVM_ERR_ALREADY_EXISTS = -8,
  /**
   * Another runtime owns the state directory; something depends on the snapshot, or works on it; or another VM uses
   * the file, the socket or the device.
   */
  MVM_ERR_BUSY = -9,
  /** It was not done within its time. */
  MVM_ERR_TIMEOUT = -10,
  /** `mvm_interrupt` or its like ended the call. */
  MVM_ERR_INTERRUPTED = -11,
  /** Firecracker refused; its own words are in the error. */
  MVM_ERR_VMM_REFUSED = -12,
  /** The VMM ended while it was needed; how, and its last words, are in the error. */
  MVM_ERR_VMM_EXITED = -13,
  /** The VMM, or what was taken for one, does not speak as Firecracker does. */
  MVM_ERR_VMM_PROTOCOL = -14,
  /** The machine, or this version of Firecracker, cannot do it. */
  MVM_ERR_UNSUPPORTED = -15,
  /** The operating system forbids it; `os_errno` is in the error. */
  MVM_ERR_PERMISSION = -16,
  /** Descriptors, memory, processes or disk space have run out; it may succeed when some are free. */
  MVM_ERR_NO_RESOURCES = -17,
  /** The operating system reports another error; `os_errno` is in the error. */
  MVM_ERR_IO = -18,
  /** A snapshot is not what it was when it was taken: a file is missing, cut off or altered. Use another one. */
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
  /** It has not ended. */
  MVM_EXIT_NONE = 0,
  /** It exited, with the code in `value`. */
  MVM_EXIT_CODE = 1,
  /** The signal in `value` ended it. */
  MVM_EXIT_SIGNAL = 2,
  /**
   * It has ended, but the host process (a `waitpid(-1)`, or SIGCHLD ignored) took its status first, on a
   * kernel that does not keep it (before 6.15).
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
  /** The guest is held. */
  MVM_STATE_PAUSED = 3,
  /** It was ended, or powered itself off. It can be started again. */
  MVM_STATE_STOPPED = 4,
  /** Its VMM ended otherwise: it crashed, or the guest did. It can be started again. */
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
  /** It ended by itself within the window: the guest powered off, or the process followed SIGTERM. */
  MVM_SHUTDOWN_GRACEFUL = 1,
  /** The window closed first, or there was none, or somebody killed it. */
  MVM_SHUTDOWN_FORCED = 2,
  /** It had ended before it was asked. */
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
  /** What changed since its parent was taken. */
  MVM_SNAPSHOT_DIFF = 2,
  /** It cannot be read now, or is damaged: nothing but its id is known. `mvm_snapshot_info` fails and says why. */
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
  /** Nothing within the time. */
  MVM_EVENT_NONE = 0,
  /** The VM was made. */
  MVM_EVENT_CREATED = 1,
  /** Its guest was started. */
  MVM_EVENT_STARTED = 2,
  /** It is held. */
  MVM_EVENT_PAUSED = 3,
  /** It goes on. */
  MVM_EVENT_RESUMED = 4,
  /** Its VMM has ended: `exit_kind` and `exit_value` say how. */
  MVM_EVENT_EXITED = 5,
  /** It was destroyed. */
  MVM_EVENT_DESTROYED = 6,
  /** It ran when the runtime was opened, and is this runtime's now. */
  MVM_EVENT_ADOPTED = 7,
  /** It had no VMM when the runtime was opened: start it again, or see `mvm_runtime_reap`. */
  MVM_EVENT_ORPHAN_FOUND = 8,
  /** Something in the state directory is not as it should be, and was left alone; `text` says what. */
  MVM_EVENT_DAMAGED = 9,
  /** The keeper is gone, and could not be replaced; `text` says why. */
  MVM_EVENT_KEEPER_LOST = 10,
  /** `count` events before this one were lost, because nobody took them. */
  MVM_EVENT_DROPPED = 11,
  /** It has another id; `text` is the former one. */
  MVM_EVENT_RENAMED = 12,
  /** A snapshot of it was made; `text` is the snapshot's id. */
  MVM_EVENT_SNAPSHOTTED = 13,
  /** It was restored from the snapshot `text`, and is held. */
  MVM_EVENT_RESTORED = 14,
  /** What served its page faults is gone or has failed, and the VM was ended; `text` says why. */
  MVM_EVENT_PAGER_LOST = 15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mvm_event_kind mvm_event_kind;
#else
typedef int32_t mvm_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How much a line of the log matters. */
enum mvm_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /** No line; as a level to log at: nothing. */
  MVM_LOG_OFF = 0,
  /** Something has failed. */
  MVM_LOG_ERROR = 1,
  /** Something needs a look. */
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
  /** The number of its VMM's process, or 0 while no VMM runs. */
  int32_t pid;
  /** How its last VMM ended, while none runs. */
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
  /** What all its files take on the disk. */
  uint64_t allocated_bytes;
  /** Its id; "" when there is no snapshot. */
  char id[72];
  /** The id of its parent, for a diff; or "". */
  char parent[72];
  /** The id of the VM that it was taken of. */
  char vm[72];
} mvm_snapshot_summary;

/** An empty one, with its size: `mvm_snapshot_summary it = MVM_SNAPSHOT_SUMMARY_INIT;` */
#define MVM_SNAPSHOT_SUMMARY_INIT {sizeof(mvm_snapshot_summary), MVM_SNAPSHOT_NONE, 0, 0, 0, {0}, {0}, {0}}

/** What a pool holds and has done. Set `size` to `sizeof(mvm_pool_counts)` before the call. */
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
  /** More in words, or "". */
  char text[512];
} mvm_event;

/** An empty one, with its size: `mvm_event it = MVM_EVENT_INIT;` */
#define MVM_EVENT_INIT {sizeof(mvm_event), MVM_EVENT_NONE, 0, 0, 0, MVM_EXIT_NONE, 0, {0}, {0}}

/** One line of the log. Set `size` to `sizeof(mvm_log_line)` before the call. */
typedef struct mvm_log_line {
  /** In: `sizeof(mvm_log_line)`. */
  uint32_t size;
  /** How much it matters; `MVM_LOG_OFF` when there is none. */
  mvm_log_level level;
  /** When it was written, in milliseconds since 1970. */
  uint64_t time_ms;
  /** How many lines before it were lost. */
  uint64_t dropped;
  /** Which part of the library says so. */
  char target[64];
  /** What it says. */
  char text[1024];
} mvm_log_line;

/** An empty one, with its size: `mvm_log_line it = MVM_LOG_LINE_INIT;` */
#define MVM_LOG_LINE_INIT {sizeof(mvm_log_line), MVM_LOG_OFF, 0, 0, {0}, {0}}

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ======== ERRORS ====================================================================================*/

/**
 * Copies the details of the calling thread's last failure into `*error`. A call that succeeds leaves them as
 * they are; with no failure so far, `error->status` is `MVM_OK` and the texts are empty.
 *
 * Ask on the thread that made the call, before its next one. A binding for a language that moves code between
 * threads makes both calls in one C function.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (NULL, or a `size` smaller than that of this struct in 0.1); these leave
 * the details alone.
 * Blocks: never. Since 0.1.
 */
mvm_status mvm_last_error(struct mvm_error *error);

/**
 * Returns the whole message of the calling thread's last failure, as a string that is never NULL; `""` when no call has
 * failed. It is the `message` of `mvm_last_error`, and is not cut.
 *
 * The string belongs to the library. It stays as it is until this thread calls this function again, or ends.
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
 * Returns the name of an `mvm_exit_kind`, the constant's own without its prefix: `"code"`, `"signal"`,
 * `"reaped_by_host"`, `"none"`; `"unknown"` for any other number. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_exit_name(int32_t kind);

/* ======== RUNTIMES, AND MAKING VMS ==================================================================*/

/**
 * Opens the state directory `state_dir`, which is made if it is not there, and keeps every other runtime out of
 * it for as long as this one is open. Everything that the library keeps on disk is below it, readable by this
 * user alone.
 *
 * VMs of an owner that is gone are taken over: one that runs is a full VM again, for `mvm_open`; one that was to end
 * with its owner is ended; what was half done is undone. `mvm_runtime_report` tells, and so do events.
 *
 * `options` is a JSON object, or NULL for an empty one:
 *
 *     { "firecracker": "/usr/bin/firecracker",   the VMM of those VMs whose spec names none
 *       "keeper": "/usr/libexec/mvm-keeper",     the program that bounds consoles while no owner lives, and ends VMs
 *                                                whose "on_owner_exit" is "kill"
 *       "cgroup": "/sys/fs/cgroup/vms.slice",    the cgroup of the keeper and of VMs whose spec names none
 *       "event_queue": 4096 }                    how many events wait for somebody to take them
 *
 * VMM and keeper are always named by the caller: no search path and no environment variable is read. The keeper is
 * asked for its version here, and must be that of the library. It is
 * started when the first VM is made that needs it, and ends when neither an owner nor a VM does. Without one a thread
 * of the library, `mvm-keeper`, bounds consoles as long as the runtime is open, and `"kill"` is an error.
 *
 * Errors: `MVM_ERR_BUSY` (another runtime, in this process or another, has the directory open; its pid is in the
 * message), `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
 * Blocks: for the disk; up to 5 s in all for VMMs that were taken over to say what their guests do, and up to 5 s
 * for each that has to be ended. Ownership: `*runtime` is the caller's, for `mvm_runtime_close`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_open(const char *state_dir,
                            const char *options,
                            struct mvm_runtime **runtime);

/**
 * Closes the runtime: the calls in flight on its VMs end with `MVM_ERR_INTERRUPTED`, the handles of its VMs
 * become bad handles, and the state directory is free once those calls have returned. No VM is ended, but VMs whose
 * "on_owner_exit" is "kill" end when the process does, unless another one has taken them over by then; one whose
 * mvm_create was just about to return goes on without a handle, and is there again when the directory is opened
 * anew. NULL is fine.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: until the keeper has ended, milliseconds. Since 0.1.
 */
mvm_status mvm_runtime_close(struct mvm_runtime *runtime);

/**
 * Gives all VMs of the runtime as a JSON array, by id: `[{"id":"web-1","state":"running"}]`. A VM with owner data has one
 * more key, `"owner_data"`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_list(struct mvm_runtime *runtime,
                            char **json);

/**
 * Gives one VM after the other, in the order of their ids: the first whose id comes after `after`, or the very first when
 * `after` is NULL or "". After the last one the call succeeds, and `vm->id` is "". `after` may be `vm->id` itself:
 *
 *     mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
 *     while (mvm_runtime_next_vm(runtime, vm.id, &vm) == MVM_OK && vm.id[0] != '\0')
 *       printf("%s is %s\n", vm.id, mvm_state_name(vm.state));
 *
 * VMs may come and go meanwhile; a VM that is there all the time is given exactly once, unless it is renamed.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`; `vm->id` is "" then. Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_next_vm(struct mvm_runtime *runtime,
                               const char *after,
                               struct mvm_vm_summary *vm);

/**
 * Gives what was found when the runtime was opened, as a JSON object:
 *
 *     { "adopted": ["web-1"],                                    running, and this runtime's now
 *       "ended": [{"id": "web-2", "why": "no owner noted its end"}],  here, and without a VMM
 *       "undone": ["/var/lib/mvm/vms/web-3"],                    a creation or removal that was half done
 *       "left_alone": [{"path": "…/vms/web-4", "problem": "…"}] }   not understood, and not touched
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_report(struct mvm_runtime *runtime, char **json);

/**
 * Removes what is left of VMs whose owner is gone and that have no VMM: those that were found so when the runtime
 * was opened and were not started since. VMs that this runtime has stopped are not touched, nor is anything that is
 * not provably the library's. What `mvm_runtime_open` could not deal with is looked at once more.
 *
 * `flags` is 0 or a sum of:
 *
 * - `MVM_REAP_DRY_RUN`: nothing is removed, and the report says what would be removed.
 * - `MVM_REAP_DAMAGED`: a VM whose journal cannot be read or believed is ended and removed: every process that prints to
 *   its console or works in its `vmm` directory is killed. A VMM whose VM's directory was moved away or deleted is
 *   killed too. The report says so under `damaged`. Without this flag they are left alone.
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
 * Ends the calls in flight on the VM `id`, in whatever thread, with `MVM_ERR_INTERRUPTED`. Unlike
 * `mvm_interrupt` it reaches an `mvm_create`, `mvm_restore`, `mvm_clone` or `mvm_pool_take` that has not yet given a
 * handle. Nothing happens when there is no such VM.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
 */
mvm_status mvm_runtime_interrupt(struct mvm_runtime *runtime,
                                 const char *id);

/**
 * Makes a VM: starts its VMM and configures it. Its guest starts with `mvm_start`. An error leaves no process, no
 * socket and no file.
 *
 * `id` has 1 to 64 letters, digits and '-', and begins with a letter or a digit. `spec` is a Firecracker config file,
 * as JSON: what `firecracker --config-file` accepts, newer sections included. What the library itself does for the VM
 * stands in one more section, in which every key may be left out:
 *
 *     "mvm": {
 *       "firecracker": "/opt/firecracker",       the VMM, instead of the runtime's
 *       "arguments": ["--enable-pci"],           more arguments for it
 *       "shutdown": { "guest": "ctrl-alt-del" }, or "off": mvm_shutdown does not ask the guest
 *       "on_owner_exit": "keep",                 or "kill": the VM ends when the process that owns it does
 *       "owner_data": "tenant 7",                text of your own, kept with the VM: see mvm_owner_data_set
 *       "cgroup": "/sys/fs/cgroup/vms.slice/web-1",  a cgroup that exists, in which the VMM is started
 *       "sharing": "refused",                    or "allowed": it may use disks, files, sockets and network devices
 *                                                that another VM uses which allows that too
 *       "console": { "limit_bytes": 1048576 },   how long console and logs may grow; 0: for ever
 *       "deadlines": {                           how long calls may take, in milliseconds
 *         "create_ms": 10000,                      mvm_create
 *         "start_ms": 30000,                       mvm_start
 *         "request_ms": 30000,                     mvm_pause, mvm_resume, mvm_request
 *         "kill_ms": 5000                          the end of the process after SIGKILL
 *       }
 *     }
 *
 * Paths are host paths; relative ones are relative to the caller's working directory.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (the id), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_ALREADY_EXISTS`,
 * `MVM_ERR_BUSY` (another VM uses a disk, of which one of the two is a writer, or a file, a socket or a device),
 * `MVM_ERR_NOT_FOUND` (no such VMM), `MVM_ERR_UNSUPPORTED` (a VMM too old, or none at all), `MVM_ERR_VMM_REFUSED`,
 * `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED` (see
 * `mvm_runtime_interrupt`), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
 * Blocks: up to `create_ms`. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_create(struct mvm_runtime *runtime,
                      const char *id,
                      const char *spec,
                      struct mvm_vm **vm);

/**
 * Gives a handle to the VM `id`, a new one with each call.
 *
 * Errors: `MVM_ERR_NOT_FOUND`, `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: never. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_open(struct mvm_runtime *runtime, const char *id, struct mvm_vm **vm);

/* ======== VIRTUAL MACHINES ==========================================================================*/

/**
 * Forgets the handle. The VM goes on; `mvm_open` gives another handle. NULL is fine.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_release(struct mvm_vm *vm);

/**
 * Starts the guest. A VM that was stopped or has failed gets a new VMM first. One that runs is left alone.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is paused), `MVM_ERR_VMM_REFUSED` (a kernel that is none; the VM is as it was),
 * `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND`
 * (destroyed), `MVM_ERR_NO_RESOURCES`. A start from stopped that fails leaves it stopped.
 * Blocks: up to `start_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_start(struct mvm_vm *vm);

/**
 * Holds the guest; its memory and devices stay. One that is held is left alone.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it does not run), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pause(struct mvm_vm *vm);

/**
 * Lets the guest go on. One that runs is left alone.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is not paused), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_resume(struct mvm_vm *vm);

/**
 * Ends the VM, and says truly how. The ladder:
 *
 *  1. the guest is asked to power off by Ctrl-Alt-Del, where it can hear it: x86_64, running, not turned off in
 *     the spec, keyboard controller not disabled. A paused guest is not resumed for this;
 *  2. the VMM gets SIGTERM, which ends Firecracker at once and tells the guest nothing;
 *  3. the VMM gets SIGKILL.
 *
 * `grace_ms` is the polite window. The guest has all of it; when it closes, rungs 2 and 3 follow, 100 ms apart.
 * Without rung 1 it is exactly: SIGTERM, wait up to `grace_ms`, SIGKILL. 0 goes straight to SIGKILL.
 * `poll_ms` is the longest sleep without a look; 0 asks for none, and the end is noticed at once either way.
 *
 * The process is reaped and its socket removed; console and log stay until `mvm_destroy`, and the VM can be
 * started again. A second caller joins the first and gets the same outcome; when its own window closes before the
 * first caller's, the VM is killed then. An operation in flight on the VM is
 * waited for no longer than the window. `outcome` may be NULL; `mvm_shutdown_report` tells more.
 *
 * Errors: `MVM_ERR_INTERRUPTED` (nothing is undone: what the guest was asked, it was asked), `MVM_ERR_TIMEOUT`
 * (it outlived SIGKILL by `kill_ms`: stuck in the kernel), `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: up to `grace_ms` + 100 ms + `kill_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_shutdown(struct mvm_vm *vm,
                        uint64_t grace_ms,
                        uint64_t poll_ms,
                        mvm_shutdown_outcome *outcome);

/**
 * Returns the name of an `mvm_shutdown_outcome`, the constant's own without its prefix, as JSON has it: `"graceful"`;
 * `"unknown"` for any other number. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_outcome_name(int32_t outcome);

/**
 * Gives the report of the last shutdown of this VM as a JSON object, `null` when there was none:
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
 * Kills the VMM at once, whatever is in flight on it; that other call ends with `MVM_ERR_VMM_EXITED`. One that
 * has ended is left alone.
 *
 * Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (stuck in the kernel), `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: up to `kill_ms`. Since 0.1.
 */
mvm_status mvm_kill(struct mvm_vm *vm);

/**
 * Waits until the VMM has ended, at most `timeout_ms`; at once when none runs. `*exit` says how it ended.
 *
 * Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: up to `timeout_ms`; it holds up nobody else. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_wait(struct mvm_vm *vm,
                    uint64_t timeout_ms,
                    struct mvm_exit *exit);

/**
 * Gives a file descriptor that becomes readable when the present VMM has ended, for epoll, libuv or Go's
 * netpoller. It is a pidfd: poll it, do not read it.
 *
 * Errors: `MVM_ERR_BAD_STATE` (no VMM runs), `MVM_ERR_NO_RESOURCES`.
 * Blocks: never. Ownership: `*fd` is the caller's own, close-on-exec, for `close`; -1 after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_exit_fd(struct mvm_vm *vm,
                       int32_t *fd);

/**
 * Kills the VM if it runs, and removes all that belongs to it. All its handles stay valid and answer
 * `MVM_ERR_NOT_FOUND`, until they are released; a second destroy is fine. The id is free again.
 *
 * Errors: `MVM_ERR_TIMEOUT` (stuck in the kernel), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`; it can be tried again.
 * Blocks: up to twice `kill_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_destroy(struct mvm_vm *vm);

/**
 * Calls the VM `id` from now on, whatever it is doing: its directory and what stands in it are found under the new
 * id, and so is the VM after the owner's death. Firecracker goes on calling the VM what it was started as.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (no id), `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_TIMEOUT` (another call is in
 * flight), `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_IO`; the VM is called what it was then.
 * Blocks: for a call in flight, up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_rename(struct mvm_vm *vm,
                      const char *id);

/**
 * Ends every call in flight on this VM, whoever made it, with `MVM_ERR_INTERRUPTED`. The VM goes on. With no call in
 * flight nothing happens, now or later. To end one call and no other, see `mvm_cancel_raise`.
 *
 * This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the other calls return soon after. Since 0.1.
 */
mvm_status mvm_interrupt(struct mvm_vm *vm);

/**
 * Sends any request to the VMM's API: nothing of it is out of reach. `method` is "GET", "PUT", "PATCH" or
 * "DELETE", `path` begins with '/', `body` is JSON or NULL. `*response` is the body of the answer, often empty; it
 * may be NULL when it is not wanted.
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
 * Says what the VM is doing. The VMM is not asked, so this takes microseconds whatever else goes on.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_state(struct mvm_vm *vm, mvm_vm_state *state);

/**
 * Copies the id of the VM into `buffer`, which has room for `length` bytes; `MVM_ID_SIZE` is enough for every id. With too
 * little room `buffer` is the empty string.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (too little room), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_id(struct mvm_vm *vm,
                  char *buffer,
                  size_t length);

/**
 * Gives the number of the process of the VMM, for people to read: it may be another process's once this one has ended.
 * `mvm_exit_fd` gives what stays true.
 *
 * Errors: `MVM_ERR_BAD_STATE` (no VMM runs; `*pid` is 0), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`,
 * `MVM_ERR_NOT_FOUND` (destroyed). Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pid(struct mvm_vm *vm,
                   int32_t *pid);

/**
 * Keeps `data` with the VM: text of the owner's own, at most 4096 bytes, which the library stores and never reads. It
 * replaces what was kept before; NULL or "" keeps nothing. Bytes that are not text have to be encoded.
 *
 * The text is in the VM's journal. It stays over `mvm_rename` and every start, and the next owner of the state directory
 * finds it. `mvm_runtime_list` and `mvm_info` show it. A spec can say it for a new VM, in `"mvm": {"owner_data": "…"}`;
 * `"owner_data"` in the options of `mvm_restore`, `mvm_clone` and `mvm_pool_take` does the same. A VM that is restored from
 * a snapshot does not have the data of the VM that the snapshot was taken of.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (too long), `MVM_ERR_TIMEOUT` (another call is in flight), `MVM_ERR_INTERRUPTED`,
 * `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_NO_RESOURCES` (a full disk), `MVM_ERR_IO`; the former text stays then.
 * Blocks: for a call in flight, up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_owner_data_set(struct mvm_vm *vm,
                              const char *data);

/**
 * Gives the text that `mvm_owner_data_set` keeps with the VM; "" when there is none.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Ownership: `*data` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_owner_data(struct mvm_vm *vm, char **data);

/**
 * Returns the name of an `mvm_vm_state`, the constant's own without its prefix, as JSON has it: `"running"`; `"unknown"`
 * for any other number. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_state_name(int32_t state);

/**
 * Gives all that is known of the VM as a JSON object: id, state, pid, exit, the VMM and its version, paths of
 * directory, API socket, console and log, the times of the last start, the report of the last shutdown.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_info(struct mvm_vm *vm, char **json);

/* ======== SNAPSHOTS =================================================================================*/

/**
 * Takes the snapshot `id` of a VM that runs or is paused. The guest is held while Firecracker writes its memory and
 * while disks are copied, and goes on then. The snapshot is a directory of its own below the state directory; it needs
 * neither the VM nor its files any more. `id` has 1 to 64 letters, digits and '-', and begins with a letter or a
 * digit. `options` is a JSON object, or NULL:
 *
 *     { "type": "full",           or "diff": only the pages that changed since the last snapshot that was taken of
 *                                   this VM or that it was restored from (machine-config: "track_dirty_pages"; since
 *                                   Firecracker 1.13 it works without, and holds more)
 *       "when_uncertain": "full", what happens where it is not certain that a diff would hold every changed page: a full
 *                                   snapshot is taken, and the report says why; or "fail": none is taken
 *       "after": "resume",         or "stay_paused"
 *       "disks": "copy",          or "reference": drives the guest writes to are named, not copied
 *       "checksums": "omitted",   or "taken": SHA-256 of all files, for mvm_snapshot_verify
 *       "deadline_ms": 600000 }
 *
 * `*report`, which may be NULL when it is not wanted:
 *
 *     { "id": "base", "type": "full", "wanted": "full", "parent": null, "directory": "…/snapshots/base",
 *       "why_full": null,         why "type" is "full" where "wanted" is "diff": a sentence
 *       "memory_bytes": 134217728, "memory_allocated_bytes": 134217728,
 *       "paused_us": 176304,      how long the guest was held; null when it was held before, or still is
 *       "memory_us": 175820, "disks_us": 12, "elapsed_us": 181007 }
 *
 * Firecracker cannot be stopped while it writes. A call that is interrupted, or whose deadline passes, returns at once;
 * what was written goes, and Firecracker lets the guest go on as soon as it is done. Until then the VM's state is in
 * doubt (`state_in_doubt` in `mvm_info`), and the next call on it waits.
 *
 * Whatever can be checked is checked before the guest is paused. A snapshot that fails for such a reason leaves the
 * chain of diffs as it is; after any other failure the next snapshot is a full one.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is not started, or "when_uncertain" is "fail"), `MVM_ERR_UNSUPPORTED` (a drive that is
 * not a file, or a diff that this Firecracker or file system is not good for), `MVM_ERR_ALREADY_EXISTS`,
 * `MVM_ERR_INVALID_ARGUMENT` (not an id), `MVM_ERR_INVALID_CONFIG` (the options),
 * `MVM_ERR_NO_RESOURCES` or `MVM_ERR_VMM_REFUSED` (a full disk), `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT`,
 * `MVM_ERR_VMM_EXITED`, `MVM_ERR_IO`. The guest does what it did then, and nothing is left of the snapshot.
 * Blocks: for Firecracker and the disk, up to `deadline_ms`. Ownership: `*report` is the caller's, for
 * `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_create(struct mvm_vm *vm,
                               const char *id,
                               const char *options,
                               char **report);

/**
 * Gives all snapshots of the runtime, by id, and what stands among them damaged, as a JSON object:
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
 * Gives one snapshot after the other, in the order of their ids: the first whose id comes after `after`, or the very first
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
 * Returns the name of an `mvm_snapshot_kind`, the constant's own without its prefix, as JSON has it: `"diff"`; `"unknown"`
 * for any other number. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_snapshot_kind_name(int32_t kind);

/**
 * Gives all that is known of a snapshot as a JSON object: when, of what and by which Firecracker it was taken, the CPU,
 * the machine, its drives and files with their sizes and checksums, the snapshots it builds upon (`chain`), those that
 * build upon it (`children`), and what else would miss it (`in_use_by`).
 *
 * Errors: `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: for the disk. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_info(struct mvm_runtime *runtime,
                             const char *id,
                             char **json);

/**
 * Reads every file that a restore of the snapshot needs, those of the snapshots it builds upon included, and compares
 * it with its checksum, for at most `timeout_ms`. `*report`, which may be NULL, is a JSON object that names the files.
 *
 * Errors: `MVM_ERR_DAMAGED` (which file, and how), `MVM_ERR_UNSUPPORTED` (it was taken without checksums),
 * `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED` (the runtime was closed),
 * `MVM_ERR_IO`. Blocks: for the disk, up to `timeout_ms`. Ownership: `*report` is the caller's, for
 * `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_verify(struct mvm_runtime *runtime,
                               const char *id,
                               uint64_t timeout_ms,
                               char **report);

/**
 * Turns a diff snapshot into a full one under the same id; it then needs no parent. Its memory is put together aside and
 * takes the place of the old one at once; snapshots that build upon it still do. `options` is a JSON object, or NULL:
 * `{"checksums": "kept", "deadline_ms": 600000}`. The merged snapshot has checksums when the diff had them; "taken" or
 * "omitted" decide otherwise. `*info`, which may be NULL, is what `mvm_snapshot_info` gives.
 *
 * Errors: `MVM_ERR_BAD_STATE` (it is no diff), `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_BUSY` (another call works
 * on it), `MVM_ERR_NO_RESOURCES` (a full disk), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`,
 * `MVM_ERR_IO`; it is what it was then.
 * Blocks: for the disk, up to `deadline_ms`. Ownership: `*info` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_snapshot_merge(struct mvm_runtime *runtime,
                              const char *id,
                              const char *options,
                              char **info);

/**
 * Deletes a snapshot, damaged or not. Running VMs that map its memory go on.
 *
 * Errors: `MVM_ERR_BUSY` (diffs build upon it, a pool is of it, or the pager serves a VM from it: they are named; or a VM
 * is just being made of it), `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO`. Blocks: for the disk. Since 0.1.
 */
mvm_status mvm_snapshot_delete(struct mvm_runtime *runtime,
                               const char *id);

/**
 * Makes the VM `id` of a snapshot: it goes on where the snapshot was taken. Everything that would make it fail is looked
 * for before anything is started: the files and their lengths, the version of Firecracker, the CPU, the disks, the vsock
 * socket. `options` is a JSON object, or NULL:
 *
 *     { "memory": "file",         Firecracker maps the snapshot's memory; or "pager": the library serves page faults
 *       "after": "resume",         or "stay_paused"
 *       "verify": "when_changed", the state's checksum, and that of files whose time stamp has changed;
 *                                   or "cheap": lengths only; or "always": all checksums
 *       "track_dirty_pages": false,   as in the snapshot, when left out
 *       "clock_realtime": false,      1.16: the guest's clock is advanced by the time that has gone by
 *       "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap7",      1.12
 *                              "guest_mac": "02:…"}],   told to the guest, whose device keeps the one it has
 *       "vsock_override": {"uds_path": "/run/web-2.vsock"},                      1.16
 *       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-2"}],  instead of what the snapshot holds
 *       "mmds": {…},              the guest's metadata, which no snapshot holds
 *       "pager": {
 *         "run_in": "process",    mvm-keeper, which outlives the caller; or "thread": the VM ends with the caller
 *         "workers": 1, "fault_around_bytes": 2097152,
 *         "ahead": "nothing",     or "working_set": what was recorded; or "everything"
 *         "record": {"limit_bytes": 1073741824, "for_ms": 10000} },   records the working set, for later restores
 *       "mvm": {…},               instead of that section of the snapshot's spec
 *       "deadline_ms": 30000 }
 *
 * Drives that the guest writes to and of which the snapshot holds a copy are copied once more, for this VM alone (by
 * reference where the file system can). A guest with metadata finds under `/mvm` a `generation_id` that no other restore
 * has; Firecracker gives Linux guests a new VMGenID besides. The VM's spec is that of the snapshot's VM with the
 * overrides: when it has ended, `mvm_start` boots that.
 *
 * Errors: `MVM_ERR_UNSUPPORTED` (another CPU, another format, an override this Firecracker has not),
 * `MVM_ERR_DAMAGED` (a file is missing, cut off or altered), `MVM_ERR_NOT_FOUND` (no such snapshot, or a disk that it
 * names is gone), `MVM_ERR_ALREADY_EXISTS` (the VM, or its vsock socket), `MVM_ERR_INVALID_CONFIG` (the options),
 * `MVM_ERR_VMM_EXITED` (a pager that failed included), and those of `mvm_create`. Nothing is left then.
 * Blocks: up to `deadline_ms`. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_restore(struct mvm_runtime *runtime,
                       const char *snapshot,
                       const char *id,
                       const char *options,
                       struct mvm_vm **vm);

/**
 * Has the pager of a restored VM store the working set that it has recorded so far (`"record"` in `mvm_restore`) with the
 * snapshot; later restores replay it by `"ahead": "working_set"`. Without this call it is stored when the recording's
 * limits are reached, or when the VM ends. `*stretches`, which may be NULL, says of how many stretches of memory it is.
 *
 * Errors: `MVM_ERR_BAD_STATE` (nothing is recorded), `MVM_ERR_NOT_FOUND` (no pager serves the VM), `MVM_ERR_TIMEOUT`,
 * `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_working_set_store(struct mvm_vm *vm,
                                 uint64_t *stretches);

/**
 * Makes `count` VMs of one snapshot: all of them, or none (an owner that dies meanwhile leaves those that are whole).
 * They share the snapshot's memory in the page cache, and each has its own copy of every disk it writes to, its own vsock
 * socket (`vsock.sock` in its directory, unless the options say otherwise; 1.16) and its own `generation_id`. `options` is
 * that of `mvm_restore`, and besides:
 *
 *     { "ids": ["web-1", "web-2"],   or "prefix": "web", for web-1, web-2, …; "clone" when left out
 *       "each": [{…}, {…}] }         for each VM, what differs from the rest
 *
 * In `path_on_host`, `host_dev_name` and `uds_path`, `{id}` is replaced by the VM's id and `{n}` by its number from 1:
 * `"host_dev_name": "tap{n}"`. Write `{{` and `}}` for braces there. Metadata is not changed, unless
 * `"mmds_placeholders"` is `"filled_in"`. `vms` has room for `count` handles. A few threads work for the time of the call.
 *
 * Errors: those of `mvm_restore` for the first that failed, which the message names; `MVM_ERR_INVALID_CONFIG` (a list of
 * the wrong length, or a writable disk that the snapshot does not hold and that no option replaces);
 * `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` for any VM of them that is being made).
 * Blocks: up to `deadline_ms` for each. Ownership: `vms[0]` to `vms[count - 1]` are the caller's, for `mvm_release`; all
 * are NULL after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_clone(struct mvm_runtime *runtime,
                     const char *snapshot,
                     size_t count,
                     const char *options,
                     struct mvm_vm **vms);

/* ======== WARM POOLS ================================================================================*/

/**
 * Opens the pool `name` and has it filled, by a thread of its own. `name` has 1 to 53 letters, digits and '-', and
 * begins with a letter or a digit. Members are VMs called `<name>-<number>`, which `mvm_runtime_list` shows. `options` is a JSON object:
 *
 *     { "snapshot": "base",          members are restored from it, and held; or
 *       "spec": {…},                 members are configured by it, and not started
 *       "restore": {…},              the options of mvm_restore, for "snapshot"
 *       "size": 4,                   how many wait
 *       "refill_per_second": 20,     at most so many are made
 *       "when_empty": "make" }       a taker waits while one is made; or "fail"
 *
 * Paths and host devices in "restore" and "spec" may hold the placeholders of `mvm_clone`.
 *
 * Members outlive their owner as other VMs do. Whoever opens a pool of the same name takes over those that are what it
 * wants, and destroys the others; `mvm_runtime_reap` removes those of pools that are not open.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (the name), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NOT_FOUND` (no such snapshot),
 * `MVM_ERR_ALREADY_EXISTS` (it is open), `MVM_ERR_NO_RESOURCES`. That members cannot be made is told by `mvm_pool_info`.
 * Blocks: as `mvm_destroy` for each member of a former owner's that does not fit. Ownership: `*pool` is the caller's, for `mvm_pool_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_open(struct mvm_runtime *runtime,
                         const char *name,
                         const char *options,
                         struct mvm_pool **pool);

/**
 * Takes a VM out of the pool, which is called `id` from now on, and lets its guest go on, or starts it. `options` is a
 * JSON object, or NULL:
 *
 *     { "after": "resume",            or "stay_paused": it is left as it waited
 *       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-7"}],   other files for drives
 *       "mmds": {…} }                merged into the guest's metadata
 *
 * Errors: `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NO_RESOURCES` (it is
 * empty, and "when_empty" is "fail"), `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` for `id`), and those of
 * `mvm_restore` and `mvm_start`; the VM is gone then.
 * Blocks: for one or two requests; for a restore when the pool is empty. Ownership: `*vm` is the caller's, for
 * `mvm_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_take(struct mvm_pool *pool,
                         const char *id,
                         const char *options,
                         struct mvm_vm **vm);

/**
 * Says what the pool holds and has done, as a JSON object: `{"name": "web", "snapshot": "base", "size": 4, "ready": 3,
 * "taken": 17, "missed": 1, "failed": 0, "last_error": null}`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
 * Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_info(struct mvm_pool *pool,
                         char **json);

/**
 * Gives what the pool holds and has done, in numbers.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed). Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_count(struct mvm_pool *pool,
                          struct mvm_pool_counts *counts);

/**
 * Destroys the pool and the VMs that wait in it. VMs that were taken out of it are not its any more, and run on. The
 * handle stays valid and answers `MVM_ERR_NOT_FOUND`, until it is released; a second destroy is fine.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, and those of `mvm_destroy`. The pool is closed then, and its other VMs are destroyed; it
 * can be tried again.
 * Blocks: for a member that is being made, and as `mvm_destroy` for each member. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_pool_destroy(struct mvm_pool *pool);

/**
 * Closes the pool and forgets the handle. The VMs that wait in it stay as they are: `mvm_pool_open` takes them over into
 * the next pool of this name, in this process or a later one. NULL is fine.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: for a member that is being made. Since 0.1.
 */
mvm_status mvm_pool_release(struct mvm_pool *pool);

/* ======== DEVICES ===================================================================================*/

/**
 * Has the guest give `amount_mib` of its memory to the balloon, or take back what is more, and waits up to `timeout_ms`
 * until it has; 0 does not wait. `*actual_mib`, which may be NULL, is what the balloon holds then: `MVM_UNKNOWN` when its
 * statistics are off (`stats_polling_interval_s`), and then nothing is waited for.
 *
 * Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it may still), `MVM_ERR_BAD_STATE` (not started),
 * `MVM_ERR_VMM_REFUSED` (no balloon, or more than there is memory), and those of `mvm_request`.
 * Blocks: up to `timeout_ms` and `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_balloon_set(struct mvm_vm *vm,
                           uint64_t amount_mib,
                           uint64_t timeout_ms,
                           uint64_t *actual_mib);

/**
 * Gives what the guest says of its memory, as the JSON object that Firecracker's `GET /balloon/statistics` answers.
 *
 * Errors: `MVM_ERR_VMM_REFUSED` (no balloon, or its statistics are off), and those of `mvm_request`.
 * Blocks: up to `request_ms`. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_balloon_statistics(struct mvm_vm *vm,
                                  char **json);

/**
 * Plugs memory in or out until `size_mib` of the spec's `memory-hotplug` are plugged in, and waits up to `timeout_ms`
 * until the guest has followed; 0 does not wait. `*plugged_mib`, which may be NULL, is how much is plugged in then.
 *
 * Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it may still), `MVM_ERR_BAD_STATE`, `MVM_ERR_VMM_REFUSED` (no
 * such memory, or not so much), and those of `mvm_request`. Blocks: up to `timeout_ms` and `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_memory_hotplug(struct mvm_vm *vm,
                              uint64_t size_mib,
                              uint64_t timeout_ms,
                              uint64_t *plugged_mib);

/**
 * Gives the drive `drive_id` another file, another rate limit, or both; NULL leaves what there is. A file that has grown
 * is given once more, and the guest sees its new size. `rate_limiter` is JSON, as in a spec.
 *
 * Errors: `MVM_ERR_NOT_FOUND` (no such file), `MVM_ERR_VMM_REFUSED` (no such drive), `MVM_ERR_BAD_STATE` (not started),
 * `MVM_ERR_INVALID_CONFIG` (no JSON), and those of `mvm_request`; the drive is what it was then.
 * Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_drive_update(struct mvm_vm *vm,
                            const char *drive_id,
                            const char *path_on_host,
                            const char *rate_limiter);

/**
 * Limits the rates of the network interface `iface_id`: what the guest receives and what it sends, each JSON as in a
 * spec; NULL leaves what there is.
 *
 * Errors: `MVM_ERR_VMM_REFUSED` (no such interface), `MVM_ERR_BAD_STATE` (not started), `MVM_ERR_INVALID_CONFIG` (no JSON),
 * and those of `mvm_request`. Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_network_update(struct mvm_vm *vm,
                              const char *iface_id,
                              const char *rx_rate_limiter,
                              const char *tx_rate_limiter);

/**
 * Plugs a device into a VM that runs (Firecracker 1.16, started with `--enable-pci`); the guest finds it when it scans
 * its PCI bus anew. `section` is where the device would stand in a spec: "drives", "pmem" or "network-interfaces";
 * `definition` is the JSON that would stand there.
 *
 * Errors: `MVM_ERR_UNSUPPORTED` (an older Firecracker), `MVM_ERR_VMM_REFUSED`, `MVM_ERR_BAD_STATE` (not started),
 * `MVM_ERR_INVALID_ARGUMENT` (the section), `MVM_ERR_INVALID_CONFIG` (no JSON), and those of `mvm_request`.
 * Blocks: up to `request_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_device_attach(struct mvm_vm *vm,
                             const char *section,
                             const char *definition);

/**
 * Plugs out a device that the guest has let go of before (Firecracker 1.16, started with `--enable-pci`).
 *
 * Errors: `MVM_ERR_UNSUPPORTED` (an older Firecracker), `MVM_ERR_VMM_REFUSED` (no such device), `MVM_ERR_BAD_STATE`,
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
 * Binds the calls that this thread makes from now on to the token, instead of the one that was bound before. NULL binds
 * them to none. Only calls that can block heed a token. A language that moves code between threads binds, calls and
 * unbinds in one C function.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`; the former token stays bound then. Blocks: never. Since 0.1.
 */
mvm_status mvm_cancel_bind(struct mvm_cancel *cancel);

/**
 * Raises the token, for good: every call that is bound to it ends with `MVM_ERR_INTERRUPTED`, and so does every later
 * one, before it does anything. An interrupted call undoes its own effects; the VM goes on.
 *
 * This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the calls return soon after. Since 0.1.
 */
mvm_status mvm_cancel_raise(struct mvm_cancel *cancel);

/**
 * Releases the handle. Threads that are bound to the token stay bound to it. NULL is fine.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_cancel_release(struct mvm_cancel *cancel);

/* ======== EVENTS ====================================================================================*/

/**
 * Takes the next event, and waits for it at most `timeout_ms`; 0 does not wait. When there is none in that time the
 * call succeeds and `event->kind` is `MVM_EVENT_NONE`. The ends of VMMs are noticed and reaped here, and by every
 * other query on their VM. The end of a VMM is in the VM's journal before its event is returned, unless another call is
 * at work on the VM: then it follows. So the next owner is told the same.
 *
 * The queue holds 4,096 events (the option `event_queue`); when nobody takes them the oldest make room, and
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
 * Gives a file descriptor that is readable while there is an event to take, for epoll, libuv or Go's netpoller:
 * poll it, do not read it, and take events until there are none. It may wake without an event. Closing the
 * runtime does not wake it: tell whoever polls.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NO_RESOURCES`.
 * Blocks: never. Ownership: `*fd` is the caller's own, close-on-exec, for `close`; -1 after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_runtime_events_fd(struct mvm_runtime *runtime,
                                 int32_t *fd);

/**
 * Returns the name of an `mvm_event_kind`, the constant's own without its prefix: `"exited"`, `"pager_lost"`;
 * `"unknown"` for any other number, such as the kind of an event that is newer than the caller. The string is constant
 * and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_event_name(int32_t kind);

/* ======== THE CONSOLE ===============================================================================*/

/**
 * Reads what the guest has printed on its serial console, from the absolute offset `*offset`, into `buffer`, and
 * moves `*offset` past it. `*read` is 0 when nothing has been printed beyond `*offset` yet. Offsets count from
 * the VM's creation and go on over its restarts; the text stays readable after the VM has ended, until
 * `mvm_destroy`, and after another owner has taken the VM over. The bytes are the guest's: they need not be UTF-8.
 *
 * The last `console.limit_bytes` are kept (at least three quarters of them). Where `*offset` lies before those the
 * call reads from the first byte that is kept: what was lost is `*offset - *read` after the call, less `*offset`
 * before it. A guest whose spec leads its console elsewhere (`serial.serial_out_path`) is read from there.
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
 * Gives what the VM has counted since it was made, over all its starts and owners, and what its VMM's process uses
 * now, as a JSON object:
 *
 *     { "id": "web-1", "state": "running",
 *       "host": { "cpu_user_us": 120000, "cpu_system_us": 40000, "rss_bytes": 52428800, "threads": 3, "cgroup": "/…" },
 *       "flushes": 12,
 *       "core": { "vcpu_exits": {…}, "block": {…}, "net": {…}, "vsock": {…}, "uart": {…}, "lost": {…}, … },
 *       "totals": {…} }      Firecracker's own document, its numbers added up over all flushes
 *
 * Firecracker tells what it has counted once a minute, when the guest powers off, and on `mvm_metrics_flush`; one
 * that is killed takes the last minute with it. `core.lost` says what Firecracker itself has lost, and how many lines
 * were damaged. `host` is null while no VMM runs; the rest is null for a VM whose spec has a `metrics` section of its
 * own. What a VMM writes beyond all measure is not read: `core.lost.skipped_bytes` says how much.
 *
 * Errors: `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_TIMEOUT` (another process was reading the same metrics all the
 * time), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`, `MVM_ERR_NO_RESOURCES`.
 * Blocks: for the disk, and up to `request_ms` while another process reads the same metrics. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_metrics(struct mvm_vm *vm,
                       char **json);

/**
 * Has the VMM write down what it has counted, for `mvm_metrics` to read.
 *
 * Errors: `MVM_ERR_BAD_STATE` (its guest was not started), and those of `mvm_start`. Blocks: up to `request_ms`.
 * Since 0.1.
 */
mvm_status mvm_metrics_flush(struct mvm_vm *vm);

/**
 * Gives what the VMs of the runtime have counted and use, and what the runtime itself has done, in the text format of
 * Prometheus (0.0.4), for whoever serves it. `options` is a JSON object, or NULL:
 *
 *     { "set": "core",           what operators watch; "all" adds every number that Firecracker counts
 *       "ids": ["web-1"],        these VMs and no others
 *       "prefix": "web-",        VMs whose ids begin so
 *       "deadline_ms": 5000 }    for the whole call
 *
 * `mvm_vm_…` is about one VM: the label `vm` is its id, `device` a drive or interface. `mvm_firecracker_<group>_<field>`
 * is Firecracker's own number, in "all". Other `mvm_…` families are about the runtime. docs/json.md lists them.
 *
 * A VM whose figures cannot be read in time has those that were read last, or none; `mvm_late_vms` says how many do.
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
 * Has the library's log, lines of `level` (an `mvm_log_level`) and those that matter more, kept in a queue of
 * `capacity` lines for `mvm_log_next`; the oldest make room. `MVM_LOG_OFF` makes it silent again, as it is at first.
 * There is one log for the process.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT` (no such level), `MVM_ERR_BAD_STATE` (a Rust program has led the log elsewhere),
 * `MVM_ERR_NO_RESOURCES`. Blocks: never. Since 0.1.
 */
mvm_status mvm_log_to_queue(int32_t level,
                            size_t capacity);

/**
 * Has the log written to a duplicate of `fd`, a file, a pipe, a socket or a terminal: one line at a time, in one
 * call. A line that would have to wait is dropped, and the next one says how many were. No SIGPIPE is raised.
 *
 * Errors: as `mvm_log_to_queue`; `MVM_ERR_IO` (`fd` is not open). Blocks: never. Since 0.1.
 */
mvm_status mvm_log_to_fd(int32_t level,
                         int32_t fd);

/**
 * Takes the next line from the queue. When there is none the call succeeds and `line->level` is `MVM_LOG_OFF`.
 *
 * Errors: `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_log_next(struct mvm_log_line *line);

/**
 * Gives a file descriptor that is readable while the queue holds lines: poll it, do not read it.
 *
 * Errors: `MVM_ERR_IO` (the log does not go to a queue), `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NO_RESOURCES`.
 * Blocks: never. Ownership: `*fd` is the caller's own, close-on-exec, for `close`; -1 after an error. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_log_queue_fd(int32_t *fd);

/**
 * Returns the name of an `mvm_log_level`, the constant's own without its prefix: `"warn"`; `"unknown"` for any other
 * number. The string is constant and never freed.
 *
 * Blocks: never. Since 0.1.
 */
const char *mvm_log_level_name(int32_t level);

/* ======== PROCESSES OF YOUR OWN =====================================================================*/

/**
 * Starts a program as a child, held by a pidfd. `argv` is NULL-terminated; its first string is the path of the
 * executable (no search path is consulted). `envp` is the child's whole environment, NULL-terminated; NULL is an
 * empty one: pass `environ` for the caller's own. `stdio` is three descriptors for the child's input, output and
 * error, -1 for `/dev/null`; NULL is three times that. They stay the caller's.
 *
 * The child begins with all signals at their default and none held back, inherits no other descriptor, and is in
 * a session of its own, so that a Ctrl-C at the terminal does not reach it. `options` is a JSON object, or NULL:
 *
 *     { "directory": "/srv", "session": "new" or "inherited", "kill_ms": 5000 }
 *
 * Errors: `MVM_ERR_NOT_FOUND` (no such program or directory), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`,
 * `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_IO`; no process is left then.
 * Blocks: until the program executes. Ownership: `*process` is the caller's, for `mvm_process_release`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_spawn(const char *const *argv,
                             const char *const *envp,
                             const int32_t *stdio,
                             const char *options,
                             struct mvm_process **process);

/**
 * Ends the process: SIGTERM, up to `grace_ms` for it to end, SIGKILL; 0 goes straight to SIGKILL. `poll_ms` and
 * `outcome` are as for `mvm_shutdown`. The child is reaped.
 *
 * Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (it outlived SIGKILL by `kill_ms`), `MVM_ERR_PERMISSION`.
 * Blocks: up to `grace_ms` + `kill_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_shutdown(struct mvm_process *process,
                                uint64_t grace_ms,
                                uint64_t poll_ms,
                                mvm_shutdown_outcome *outcome);

/**
 * Waits until the process has ended, at most `timeout_ms`. `*exit` says how; the child is reaped.
 *
 * Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_INVALID_ARGUMENT`.
 * Blocks: up to `timeout_ms`. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_wait(struct mvm_process *process,
                            uint64_t timeout_ms,
                            struct mvm_exit *exit);

/**
 * Gives the process's number, for people to read: it may be another process's once this one was reaped.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
 */
MVM_MUST_USE
mvm_status mvm_process_pid(struct mvm_process *process, int32_t *pid);

/**
 * Ends every call in flight on this process, whoever made it, with `MVM_ERR_INTERRUPTED`. The process goes on. This
 * function may be called in a signal handler; its failures leave no details.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_process_interrupt(struct mvm_process *process);

/**
 * Forgets the handle. The process goes on, and its end is then the caller's to reap. NULL is fine.
 *
 * Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
 */
mvm_status mvm_process_release(struct mvm_process *process);

/* ======== THE LIBRARY ===============================================================================*/

/**
 * The version of the library that is loaded: `major * 1000000 + minor * 1000 + patch`, to compare with
 * `MVM_VERSION_NUMBER`, the header's.
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
 * Frees a string that the library has given. NULL is fine; the C library's `free` is not.
 *
 * Blocks: never. Since 0.1.
 */
void mvm_string_free(char *string);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MVM_H */
