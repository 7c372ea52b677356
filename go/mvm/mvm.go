// Package mvm drives Firecracker microVMs from inside a Go process, through libmvm.
//
// Build with the header and the library at hand, for instance
//
//	CGO_CFLAGS="-I/usr/include" CGO_LDFLAGS="-L/usr/lib" go build
//
// Every method may be called from any goroutine at any time. A method that blocks holds an OS thread while it
// does, and takes a context: when that ends, the call in the library is interrupted and has returned before the
// method does. Closing a handle never ends a VM.
package mvm

/*
#cgo LDFLAGS: -lmvm
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"math"
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
type Runtime struct{ key C.uintptr_t }

// Options are those of a runtime; the zero value has none.
type Options struct {
	// Firecracker is the VMM of those VMs whose spec names none.
	Firecracker string `json:"firecracker,omitempty"`
	// Keeper is the program mvm-keeper. Without it consoles are bounded only while the runtime is open, and no VM can
	// be made to end with its owner.
	Keeper string `json:"keeper,omitempty"`
}

// Open opens the state directory, and keeps every other runtime out of it until Close.
func Open(stateDir string, options Options) (*Runtime, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	dir, opts := newString(stateDir), newString(string(text))
	defer dir.free()
	defer opts.free()
	var runtime Runtime
	var e C.mvm_error
	if C.shim_runtime_open(dir.c, opts.c, &runtime.key, &e) != C.MVM_OK {
		return nil, newError(&e)
	}
	return &runtime, nil
}

// Close lets go of the state directory. The VMs go on; calls in flight on them end.
func (r *Runtime) Close() error {
	var e C.mvm_error
	return check(C.shim_runtime_close(r.key, &e), &e)
}

// Create makes a VM: its VMM runs and is configured, its guest has not started. The spec is a Firecracker config
// file, as JSON, with an optional section "mvm". When ctx ends first, nothing is left.
func (r *Runtime) Create(ctx context.Context, id string, spec []byte) (*VM, error) {
	cid, cspec := newString(id), newString(string(spec))
	defer cid.free()
	defer cspec.free()
	var vm VM
	interrupt := func() { C.shim_runtime_interrupt(r.key, cid.c) }
	err := call(ctx, interrupt, func(e *C.mvm_error) C.mvm_status {
		return C.shim_create(r.key, cid.c, cspec.c, &vm.key, e)
	})
	if err != nil {
		return nil, err
	}
	return &vm, nil
}

// VM gives a handle to the VM called id.
func (r *Runtime) VM(id string) (*VM, error) {
	cid := newString(id)
	defer cid.free()
	var vm VM
	var e C.mvm_error
	if C.shim_open(r.key, cid.c, &vm.key, &e) != C.MVM_OK {
		return nil, newError(&e)
	}
	return &vm, nil
}

// Summary is one line of a list.
type Summary struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// List names all VMs of the runtime, by id.
func (r *Runtime) List() ([]Summary, error) {
	text, err := ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_runtime_list(r.key, text, e)
	})
	if err != nil {
		return nil, err
	}
	var list []Summary
	return list, json.Unmarshal(text, &list)
}

// VM is a handle to a microVM.
type VM struct{ key C.uintptr_t }

// Close forgets the handle. The VM goes on.
func (v *VM) Close() error {
	var e C.mvm_error
	return check(C.shim_release(v.key, &e), &e)
}

// Start starts the guest; a VM that was stopped gets a new VMM first.
func (v *VM) Start(ctx context.Context) error {
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_start(v.key, e) })
}

// Pause holds the guest.
func (v *VM) Pause(ctx context.Context) error {
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_pause(v.key, e) })
}

// Resume lets the guest go on.
func (v *VM) Resume(ctx context.Context) error {
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_resume(v.key, e) })
}

// Shutdown ends the VM by the ladder of the guest, SIGTERM and SIGKILL, and says how it ended. grace is the polite
// window, poll the longest sleep without a look. A ctx that ends first leaves the VM as it then is.
func (v *VM) Shutdown(ctx context.Context, grace, poll time.Duration) (Outcome, error) {
	var outcome C.mvm_shutdown_outcome
	err := v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_shutdown(v.key, milliseconds(grace), milliseconds(poll), &outcome, e)
	})
	return Outcome(outcome), err
}

// Kill kills the VMM at once.
func (v *VM) Kill(ctx context.Context) error {
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_kill(v.key, e) })
}

// Destroy kills the VM if it runs, and removes all that belongs to it.
func (v *VM) Destroy(ctx context.Context) error {
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_destroy(v.key, e) })
}

// Wait waits until the VMM has ended, and says how.
func (v *VM) Wait(ctx context.Context) (ExitStatus, error) {
	var exit C.mvm_exit
	err := v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_wait(v.key, C.uint64_t(math.MaxUint64), &exit, e)
	})
	if err != nil {
		return ExitStatus{}, err
	}
	return newExitStatus(exit.kind, exit.value), nil
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

// ExitFile becomes readable when the present VMM has ended. It is the caller's, for Close. It is a pidfd: poll it,
// do not read it.
func (v *VM) ExitFile() (*os.File, error) {
	var fd C.int32_t
	var e C.mvm_error
	if C.shim_exit_fd(v.key, &fd, &e) != C.MVM_OK {
		return nil, newError(&e)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// Request sends any request to the VMM's API, and gives the body of its answer. A nil body sends none.
func (v *VM) Request(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	m, p := newString(method), newString(path)
	defer m.free()
	defer p.free()
	var b cString
	if body != nil {
		b = newString(string(body))
		defer b.free()
	}
	var text *C.char
	err := v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_request(v.key, m.c, p.c, b.c, &text, e)
	})
	defer C.mvm_string_free(text)
	return []byte(C.GoString(text)), err
}

// State is what the VM is doing. The VMM is not asked.
func (v *VM) State() (State, error) {
	var state C.mvm_vm_state
	var e C.mvm_error
	err := check(C.shim_state(v.key, &state, &e), &e)
	return State(state), err
}

// Info is all that is known of the VM, as JSON.
func (v *VM) Info() ([]byte, error) {
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status { return C.shim_info(v.key, text, e) })
}

// ShutdownReport is the report of the last shutdown, as JSON; null when there was none.
func (v *VM) ShutdownReport() ([]byte, error) {
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_shutdown_report(v.key, text, e)
	})
}

// ReadConsole reads what the guest has printed from the absolute offset on, or from the first byte after it that is
// still kept, and says at which offset the next piece begins; n is 0 when the guest has printed no more.
func (v *VM) ReadConsole(buffer []byte, offset uint64) (n int, next uint64, err error) {
	var place *C.uint8_t
	if len(buffer) > 0 {
		place = (*C.uint8_t)(unsafe.Pointer(&buffer[0]))
	}
	at, read := C.uint64_t(offset), C.size_t(0)
	var e C.mvm_error
	err = check(C.shim_console_read(v.key, &at, place, C.size_t(len(buffer)), &read, &e), &e)
	return int(read), uint64(at), err
}

func (v *VM) call(ctx context.Context, f func(*C.mvm_error) C.mvm_status) error {
	return call(ctx, func() { C.shim_interrupt(v.key) }, f)
}

// call makes a call that blocks, and interrupts it when ctx ends. It returns when the call has: what the call was
// lent is free then.
func call(ctx context.Context, interrupt func(), f func(*C.mvm_error) C.mvm_status) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var e C.mvm_error
	if ctx.Done() == nil {
		return check(f(&e), &e)
	}
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		// An interrupt ends only what is in flight, and the call may just be about to begin.
		for {
			interrupt()
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	err := check(f(&e), &e)
	close(done)
	<-watched
	if errors.Is(err, ErrInterrupted) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func ownedText(f func(**C.char, *C.mvm_error) C.mvm_status) ([]byte, error) {
	var text *C.char
	var e C.mvm_error
	if f(&text, &e) != C.MVM_OK {
		return nil, newError(&e)
	}
	defer C.mvm_string_free(text)
	return []byte(C.GoString(text)), nil
}

func milliseconds(d time.Duration) C.uint64_t {
	if d <= 0 {
		return 0
	}
	return C.uint64_t((d + time.Millisecond - 1) / time.Millisecond)
}

// cString is a copy in C's memory; the zero value is NULL.
type cString struct{ c *C.char }

func newString(s string) cString { return cString{C.CString(s)} }

func (s cString) free() { C.free(unsafe.Pointer(s.c)) }
