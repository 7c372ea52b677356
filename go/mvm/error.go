package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

// Status is what a call returned. It is an error too: errors.Is(err, mvm.ErrTimeout) works.
type Status int

// The statuses, each one decision that a caller can take.
const (
	ErrInternal        Status = C.MVM_ERR_INTERNAL
	ErrBadHandle       Status = C.MVM_ERR_BAD_HANDLE
	ErrForked          Status = C.MVM_ERR_FORKED
	ErrInvalidArgument Status = C.MVM_ERR_INVALID_ARGUMENT
	ErrInvalidConfig   Status = C.MVM_ERR_INVALID_CONFIG
	ErrBadState        Status = C.MVM_ERR_BAD_STATE
	ErrNotFound        Status = C.MVM_ERR_NOT_FOUND
	ErrAlreadyExists   Status = C.MVM_ERR_ALREADY_EXISTS
	ErrBusy            Status = C.MVM_ERR_BUSY
	ErrTimeout         Status = C.MVM_ERR_TIMEOUT
	ErrInterrupted     Status = C.MVM_ERR_INTERRUPTED
	ErrVMMRefused      Status = C.MVM_ERR_VMM_REFUSED
	ErrVMMExited       Status = C.MVM_ERR_VMM_EXITED
	ErrVMMProtocol     Status = C.MVM_ERR_VMM_PROTOCOL
	ErrUnsupported     Status = C.MVM_ERR_UNSUPPORTED
	ErrPermission      Status = C.MVM_ERR_PERMISSION
	ErrNoResources     Status = C.MVM_ERR_NO_RESOURCES
	ErrIO              Status = C.MVM_ERR_IO
	ErrDamaged         Status = C.MVM_ERR_DAMAGED
)

// ErrClosed is what a call that waits returns when what it waits on is closed: the runtime, or the stream of its
// events. It is an os.ErrClosed.
var ErrClosed error = fmt.Errorf("mvm: %w", os.ErrClosed)

func (s Status) Error() string { return C.GoString(C.mvm_status_name(C.int32_t(s))) }

// Error is a failure with all details.
type Error struct {
	Status Status
	// Errno is the operating system's, or 0.
	Errno int
	// HTTPStatus is Firecracker's, or 0.
	HTTPStatus int
	// Exit is how the VMM ended, where it did.
	Exit *ExitStatus
	// Stage is the operation, the step or the request that failed.
	Stage string
	// Message says what was tried, on what, why it failed and what to do.
	Message string
	// FaultMessage is Firecracker's own.
	FaultMessage string
	// Output is the VMM's last output.
	Output string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Status.Error(), e.Message) }

// Is says whether target is the status of this error.
func (e *Error) Is(target error) bool {
	status, ok := target.(Status)
	return ok && status == e.Status
}

// result is nil, or the error of the call, whose details it frees.
func result(status C.mvm_status, call *C.shim_call) error {
	if status == C.MVM_OK {
		return nil
	}
	details := call.error
	if details == nil {
		return &Error{Status: Status(status), Message: "no memory was left for the details"}
	}
	call.error = nil
	defer C.free(unsafe.Pointer(details))
	err := &Error{
		Status:       Status(status),
		Errno:        int(details.os_errno),
		HTTPStatus:   int(details.http_status),
		Stage:        C.GoString(&details.stage[0]),
		Message:      C.GoString(&details.message[0]),
		FaultMessage: C.GoString(&details.fault_message[0]),
		Output:       C.GoString(&details.output[0]),
	}
	if details.exit_kind != C.MVM_EXIT_NONE {
		exit := newExitStatus(details.exit_kind, details.exit_value)
		err.Exit = &exit
	}
	return err
}
