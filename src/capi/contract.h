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
