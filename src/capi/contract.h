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
