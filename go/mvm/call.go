package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Ptr is a pointer to value, for options whose zero is not what nil means.
func Ptr[T any](value T) *T { return &value }

// arguments are the strings of one call, copied for C until free. A string that C cannot be given is the call's error.
type arguments struct {
	copies []unsafe.Pointer
	err    error
}

// text copies the argument called name. C would take a NUL byte inside for the end of the string.
func (a *arguments) text(name, value string) *C.char {
	if strings.IndexByte(value, 0) >= 0 {
		a.fail(fmt.Sprintf("the argument %q has a NUL byte in it: %.80q", name, value))
		return nil
	}
	c := C.CString(value)
	a.copies = append(a.copies, unsafe.Pointer(c))
	return c
}

// optional is text, and NULL for "".
func (a *arguments) optional(name, value string) *C.char {
	if value == "" {
		return nil
	}
	return a.text(name, value)
}

// json is value as a JSON document.
func (a *arguments) json(name string, value any) *C.char {
	document, err := json.Marshal(value)
	if err != nil {
		a.fail(fmt.Sprintf("the argument %q cannot be written as JSON: %v", name, err))
		return nil
	}
	return a.text(name, string(document))
}

func (a *arguments) fail(message string) {
	if a.err == nil {
		a.err = &Error{Status: ErrInvalidArgument, Message: message}
	}
}

func (a *arguments) free() {
	for _, c := range a.copies {
		C.free(c)
	}
}

// call makes one call, which ends when ctx does and disturbs no other. It returns when the call has, so that what the
// call was lent is free then.
func call(ctx context.Context, in *arguments, made func(*C.shim_call) C.mvm_status) error {
	if in.err != nil {
		return in.err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var c C.shim_call
	if ctx.Done() != nil {
		if err := result(C.shim_cancel_create(&c), &c); err != nil {
			return err
		}
		token := c.cancel
		defer C.shim_cancel_release(token)
		// A token's key is never used twice: to raise one that was released harms nobody.
		defer context.AfterFunc(ctx, func() { C.shim_cancel_raise(token) })()
	}
	err := result(made(&c), &c)
	if errors.Is(err, ErrInterrupted) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// query makes one call that does not block.
func query(in *arguments, made func(*C.shim_call) C.mvm_status) error {
	return call(context.Background(), in, made)
}

// textOf makes one call that gives a text.
func textOf(ctx context.Context, in *arguments, made func(*C.shim_call, **C.char) C.mvm_status) ([]byte, error) {
	var text *C.char
	err := call(ctx, in, func(c *C.shim_call) C.mvm_status { return made(c, &text) })
	if err != nil {
		return nil, err
	}
	defer C.mvm_string_free(text)
	return []byte(C.GoString(text)), nil
}

// documentOf makes one call that gives a JSON document, and reads it.
func documentOf[T any](ctx context.Context, in *arguments, made func(*C.shim_call, **C.char) C.mvm_status) (T, error) {
	var document T
	text, err := textOf(ctx, in, made)
	if err != nil {
		return document, err
	}
	return document, json.Unmarshal(text, &document)
}

// newFile makes a descriptor of the library's a file that Go's poller waits for. It takes only what never blocks.
func newFile(fd C.int32_t, name string) (*os.File, error) {
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		syscall.Close(int(fd))
		return nil, fmt.Errorf("cannot have %s polled: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// poll waits until ready says that it is, which is asked each time when the file has become readable, or until ctx
// ends. Go's poller waits, and no thread is held.
func poll(ctx context.Context, file *os.File, ready func(fd uintptr) bool) error {
	if ctx.Err() != nil {
		return reason(ctx)
	}
	connection, err := file.SyscallConn()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		file.SetReadDeadline(time.Unix(1, 0))
	})
	err = connection.Read(ready)
	if !stop() {
		<-ended
		file.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return reason(ctx)
	}
	return err
}

// reason is why ctx has ended: ErrClosed, or what its owner would see.
func reason(ctx context.Context) error {
	if context.Cause(ctx) == ErrClosed {
		return ErrClosed
	}
	return ctx.Err()
}

// while is a context that ends when ctx does, and, for the reason of open, when that does.
func while(open, ctx context.Context) (context.Context, func()) {
	ctx, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(open, func() { end(context.Cause(open)) })
	return ctx, func() {
		stop()
		end(nil)
	}
}

func milliseconds(d time.Duration) C.uint64_t {
	if d <= 0 {
		return 0
	}
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	return C.uint64_t(ms)
}
