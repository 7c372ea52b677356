// Package mvm drives Firecracker microVMs from inside a Go process, through libmvm.
//
// Build with the header and the library at hand, for instance
//
//	CGO_CFLAGS="-I/usr/include" CGO_LDFLAGS="-L/usr/lib" go build
//
// Every method may be called from any goroutine at any time. A method that blocks takes a context. When the context
// ends, the call ends, and the method returns after it. Other calls on the same VM continue.
// Such a method holds an OS thread while it blocks, but for VM.Wait and Events.Next, which hold none. Closing a handle
// never ends a VM. A string with a NUL byte in it is ErrInvalidArgument.
package mvm

/*
#cgo LDFLAGS: -lmvm
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"os"
	"time"
	"unsafe"
)

// Defaults for Shutdown.
const (
	DefaultGrace = C.MVM_DEFAULT_GRACE_MS * time.Millisecond
	DefaultPoll  = C.MVM_DEFAULT_POLL_MS * time.Millisecond
)

// State is what a VM is doing.
type State int

// The states.
const (
	Created State = C.MVM_STATE_CREATED
	Running State = C.MVM_STATE_RUNNING
	Paused  State = C.MVM_STATE_PAUSED
	Stopped State = C.MVM_STATE_STOPPED
	Failed  State = C.MVM_STATE_FAILED
)

func (s State) String() string {
	if name, ok := map[State]string{Created: "created", Running: "running", Paused: "paused",
		Stopped: "stopped", Failed: "failed"}[s]; ok {
		return name
	}
	return "unknown"
}

// Outcome is how a shutdown ended.
type Outcome int

// The outcomes.
const (
	Graceful      Outcome = C.MVM_SHUTDOWN_GRACEFUL
	Forced        Outcome = C.MVM_SHUTDOWN_FORCED
	AlreadyExited Outcome = C.MVM_SHUTDOWN_ALREADY_EXITED
)

func (o Outcome) String() string {
	if name, ok := map[Outcome]string{Graceful: "graceful", Forced: "forced",
		AlreadyExited: "already exited"}[o]; ok {
		return name
	}
	return "none"
}

// ExitStatus is how a VMM ended: by its code, by a signal, or in a way that only the host's own reaper knows.
type ExitStatus struct {
	Code         int
	Signal       int
	ReapedByHost bool
}

// Version is the version of the library that is loaded.
func Version() string { return C.GoString(C.mvm_version_string()) }

// Runtime owns a state directory and finds the VMs in it.
type Runtime struct {
	key C.uintptr_t
	// open ends with ErrClosed when the runtime is closed.
	open  context.Context
	close context.CancelCauseFunc
}

// Options are the options of a runtime.
type Options struct {
	// Firecracker is the path of the VMM for VMs whose spec names none.
	Firecracker string `json:"firecracker,omitempty"`
	// Keeper is the program mvm-keeper. Without it consoles are bounded only while the runtime is open, and no VM can
	// end with its owner.
	Keeper string `json:"keeper,omitempty"`
	// EventQueue is how many events the queue holds; zero means 4096.
	EventQueue uint64 `json:"event_queue,omitempty"`
}

// Open opens the state directory, and keeps every other runtime out of it until Close.
func Open(stateDir string, options Options) (*Runtime, error) {
	var in arguments
	defer in.free()
	dir, opts := in.text("stateDir", stateDir), in.json("options", options)
	var runtime Runtime
	err := query(&in, func(c *C.shim_call) C.mvm_status {
		return C.shim_runtime_open(c, dir, opts, &runtime.key)
	})
	if err != nil {
		return nil, err
	}
	runtime.open, runtime.close = context.WithCancelCause(context.Background())
	return &runtime, nil
}

// Close releases the state directory. The VMs keep running; running calls on them end.
func (r *Runtime) Close() error {
	err := query(&arguments{}, func(c *C.shim_call) C.mvm_status { return C.shim_runtime_close(c, r.key) })
	r.close(ErrClosed)
	return err
}

// Create creates a VM: its VMM runs and is configured, its guest has not started. The spec is a Firecracker config
// file, as JSON, with an optional section "mvm". When ctx ends first, there are no leftovers.
func (r *Runtime) Create(ctx context.Context, id string, spec []byte) (*VM, error) {
	var in arguments
	defer in.free()
	cid, cspec := in.text("id", id), in.text("spec", string(spec))
	return r.newVM(ctx, &in, func(c *C.shim_call, key *C.uintptr_t) C.mvm_status {
		return C.shim_create(c, r.key, cid, cspec, key)
	})
}

// VM returns a handle to the VM with this id.
func (r *Runtime) VM(id string) (*VM, error) {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return r.newVM(context.Background(), &in, func(c *C.shim_call, key *C.uintptr_t) C.mvm_status {
		return C.shim_open(c, r.key, cid, key)
	})
}

// newVM makes one call that gives a handle to a VM.
func (r *Runtime) newVM(ctx context.Context, in *arguments, made func(*C.shim_call, *C.uintptr_t) C.mvm_status) (*VM, error) {
	vm := &VM{runtime: r}
	err := call(ctx, in, func(c *C.shim_call) C.mvm_status { return made(c, &vm.key) })
	if err != nil {
		return nil, err
	}
	return vm, nil
}

// Summary is one line of a list.
type Summary struct {
	ID    string `json:"id"`
	State string `json:"state"`
	// OwnerData is what SetOwnerData keeps.
	OwnerData string `json:"owner_data"`
}

// List returns all VMs of the runtime, in the order of their ids.
func (r *Runtime) List() ([]Summary, error) {
	return documentOf[[]Summary](context.Background(), &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_runtime_list(c, r.key, text)
	})
}

// VM is a handle to a microVM.
type VM struct {
	key     C.uintptr_t
	runtime *Runtime
}

// Close releases the handle. The VM keeps running.
func (v *VM) Close() error {
	return v.query(func(c *C.shim_call) C.mvm_status { return C.shim_release(c, v.key) })
}

// Start starts the guest. A stopped VM gets a new VMM first.
func (v *VM) Start(ctx context.Context) error {
	return v.call(ctx, func(c *C.shim_call) C.mvm_status { return C.shim_start(c, v.key) })
}

// Pause pauses the guest.
func (v *VM) Pause(ctx context.Context) error {
	return v.call(ctx, func(c *C.shim_call) C.mvm_status { return C.shim_pause(c, v.key) })
}

// Resume resumes the guest.
func (v *VM) Resume(ctx context.Context) error {
	return v.call(ctx, func(c *C.shim_call) C.mvm_status { return C.shim_resume(c, v.key) })
}

// Shutdown asks the guest to power off, then sends SIGTERM, then SIGKILL, and returns how the VM ended. grace is the
// time before force is used, poll the longest time between two checks of the process. When ctx ends first, the VM stays as it is.
func (v *VM) Shutdown(ctx context.Context, grace, poll time.Duration) (Outcome, error) {
	var outcome C.mvm_shutdown_outcome
	err := v.call(ctx, func(c *C.shim_call) C.mvm_status {
		return C.shim_shutdown(c, v.key, milliseconds(grace), milliseconds(poll), &outcome)
	})
	return Outcome(outcome), err
}

// Kill kills the VMM at once.
func (v *VM) Kill(ctx context.Context) error {
	return v.call(ctx, func(c *C.shim_call) C.mvm_status { return C.shim_kill(c, v.key) })
}

// Destroy kills the VM if it runs, and removes everything that belongs to it.
func (v *VM) Destroy(ctx context.Context) error {
	return v.call(ctx, func(c *C.shim_call) C.mvm_status { return C.shim_destroy(c, v.key) })
}

// Wait waits until the VMM has ended, and returns how it ended. It returns at once when no VMM runs. It ends with ErrClosed when the runtime is
// closed. While it waits no thread is held: Go's poller waits. A VM that is started again in the moment in which it ends
// is waited for again.
func (v *VM) Wait(ctx context.Context) (ExitStatus, error) {
	ctx, end := while(v.runtime.open, ctx)
	defer end()
	for ctx.Err() == nil {
		if exit, err := v.exit(); !errors.Is(err, ErrTimeout) {
			return exit, err
		}
		if err := v.awaitEnd(ctx); err != nil {
			return ExitStatus{}, err
		}
	}
	return ExitStatus{}, reason(ctx)
}

// exit says how the VMM has ended, and is ErrTimeout while one runs.
func (v *VM) exit() (ExitStatus, error) {
	var exit C.mvm_exit
	err := v.query(func(c *C.shim_call) C.mvm_status { return C.shim_wait(c, v.key, 0, &exit) })
	if err != nil {
		return ExitStatus{}, err
	}
	return newExitStatus(exit.kind, exit.value), nil
}

// awaitEnd waits until the present VMM has ended, if there is one.
func (v *VM) awaitEnd(ctx context.Context) error {
	file, err := v.ExitFile()
	if errors.Is(err, ErrBadState) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return poll(ctx, file, func(fd uintptr) bool { return C.shim_is_readable(C.int(fd)) != 0 })
}

func newExitStatus(kind C.mvm_exit_kind, value C.int32_t) ExitStatus {
	switch kind {
	case C.MVM_EXIT_CODE:
		return ExitStatus{Code: int(value)}
	case C.MVM_EXIT_SIGNAL:
		return ExitStatus{Signal: int(value)}
	case C.MVM_EXIT_REAPED_BY_HOST:
		return ExitStatus{ReapedByHost: true}
	default:
		return ExitStatus{}
	}
}

// ExitFile becomes readable when the present VMM has ended. It is the caller's, for Close. It is a pidfd: poll it, do
// not read it, and do not call its Fd, which takes the file from Go's poller. The poller has it: SetReadDeadline works, and so does the Read of its SyscallConn, whose function
// should ask poll(2) whether the file is readable. Wait does all that.
func (v *VM) ExitFile() (*os.File, error) {
	var fd C.int32_t
	err := v.query(func(c *C.shim_call) C.mvm_status { return C.shim_exit_fd(c, v.key, &fd) })
	if err != nil {
		return nil, err
	}
	return newFile(fd, "pidfd")
}

// Request sends any request to Firecracker's API, and returns the body of the answer. A nil body sends none.
func (v *VM) Request(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	var in arguments
	defer in.free()
	cmethod, cpath := in.text("method", method), in.text("path", path)
	var cbody *C.char
	if body != nil {
		cbody = in.text("body", string(body))
	}
	return textOf(ctx, &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_request(c, v.key, cmethod, cpath, cbody, text)
	})
}

// State is what the VM is doing. The VMM is not asked.
func (v *VM) State() (State, error) {
	var state C.mvm_vm_state
	err := v.query(func(c *C.shim_call) C.mvm_status { return C.shim_state(c, v.key, &state) })
	return State(state), err
}

// ID is the present id of the VM.
func (v *VM) ID() (string, error) {
	var id [C.MVM_ID_SIZE]C.char
	err := v.query(func(c *C.shim_call) C.mvm_status { return C.shim_id(c, v.key, &id[0], C.MVM_ID_SIZE) })
	return C.GoString(&id[0]), err
}

// PID is the process id of the VMM. It is for people to read: once the VMM has ended, another process may have this id.
// While no VMM runs, the error is ErrBadState.
func (v *VM) PID() (int, error) {
	var pid C.int32_t
	err := v.query(func(c *C.shim_call) C.mvm_status { return C.shim_pid(c, v.key, &pid) })
	return int(pid), err
}

// SetOwnerData keeps text of the caller's with the VM, at most 4096 bytes, over renames, starts and owners.
func (v *VM) SetOwnerData(ctx context.Context, data string) error {
	var in arguments
	defer in.free()
	cdata := in.text("data", data)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status { return C.shim_owner_data_set(c, v.key, cdata) })
}

// OwnerData is what SetOwnerData keeps with the VM, or "".
func (v *VM) OwnerData() (string, error) {
	data, err := v.text(func(c *C.shim_call, text **C.char) C.mvm_status { return C.shim_owner_data(c, v.key, text) })
	return string(data), err
}

// Info is everything that is known of the VM, as JSON.
func (v *VM) Info() ([]byte, error) {
	return v.text(func(c *C.shim_call, text **C.char) C.mvm_status { return C.shim_info(c, v.key, text) })
}

// ShutdownReport is the report of the last shutdown, as JSON; null when there was none.
func (v *VM) ShutdownReport() ([]byte, error) {
	return v.text(func(c *C.shim_call, text **C.char) C.mvm_status { return C.shim_shutdown_report(c, v.key, text) })
}

// ReadConsole reads the console from the absolute offset, or from the first byte after it that is still kept. It returns
// the offset of the next piece. n is 0 when the guest has printed nothing more.
func (v *VM) ReadConsole(buffer []byte, offset uint64) (n int, next uint64, err error) {
	place := (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(buffer)))
	at, read := C.uint64_t(offset), C.size_t(0)
	err = v.query(func(c *C.shim_call) C.mvm_status {
		return C.shim_console_read(c, v.key, &at, place, C.size_t(len(buffer)), &read)
	})
	return int(read), uint64(at), err
}

// call makes a call without strings.
func (v *VM) call(ctx context.Context, made func(*C.shim_call) C.mvm_status) error {
	return call(ctx, &arguments{}, made)
}

// query makes a call without strings that does not block.
func (v *VM) query(made func(*C.shim_call) C.mvm_status) error { return query(&arguments{}, made) }

// text makes a call without strings that does not block and gives a text.
func (v *VM) text(made func(*C.shim_call, **C.char) C.mvm_status) ([]byte, error) {
	return textOf(context.Background(), &arguments{}, made)
}
