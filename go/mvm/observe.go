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
	"syscall"
	"time"
)

// EventKind is what has happened.
type EventKind int

// The kinds of events.
const (
	EventCreated     EventKind = C.MVM_EVENT_CREATED
	EventStarted     EventKind = C.MVM_EVENT_STARTED
	EventPaused      EventKind = C.MVM_EVENT_PAUSED
	EventResumed     EventKind = C.MVM_EVENT_RESUMED
	EventExited      EventKind = C.MVM_EVENT_EXITED
	EventDestroyed   EventKind = C.MVM_EVENT_DESTROYED
	EventAdopted     EventKind = C.MVM_EVENT_ADOPTED
	EventOrphanFound EventKind = C.MVM_EVENT_ORPHAN_FOUND
	EventDamaged     EventKind = C.MVM_EVENT_DAMAGED
	EventKeeperLost  EventKind = C.MVM_EVENT_KEEPER_LOST
	EventDropped     EventKind = C.MVM_EVENT_DROPPED
	EventRenamed     EventKind = C.MVM_EVENT_RENAMED
	EventSnapshotted EventKind = C.MVM_EVENT_SNAPSHOTTED
	EventRestored    EventKind = C.MVM_EVENT_RESTORED
	EventPagerLost   EventKind = C.MVM_EVENT_PAGER_LOST
)

// Event is something that has happened.
type Event struct {
	Kind     EventKind
	Sequence uint64
	Time     time.Time
	// VM is the id, or "".
	VM string
	// Exit says how the VMM ended, for EventExited.
	Exit ExitStatus
	// Count is how many events were lost, for EventDropped.
	Count uint64
	// Text says more in words, or is "".
	Text string
}

// Events is the stream of a runtime's events. While it waits no thread is held: Go's poller waits.
type Events struct {
	runtime *Runtime
	file    *os.File
}

// Events opens the stream. Close it before the runtime.
func (r *Runtime) Events() (*Events, error) {
	var fd C.int32_t
	var e C.mvm_error
	if C.shim_events_fd(r.key, &fd, &e) != C.MVM_OK {
		return nil, newError(&e)
	}
	// Only what never blocks is given to the poller.
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		syscall.Close(int(fd))
		return nil, fmt.Errorf("cannot watch for events: %w", err)
	}
	return &Events{r, os.NewFile(uintptr(fd), "mvm events")}, nil
}

// Close closes the stream; the events that wait stay where they are.
func (s *Events) Close() error { return s.file.Close() }

// Next takes the next event, and waits for it until ctx ends. It is for one goroutine at a time.
func (s *Events) Next(ctx context.Context) (Event, error) {
	if err := s.file.SetReadDeadline(time.Time{}); err != nil {
		return Event{}, err
	}
	stop := context.AfterFunc(ctx, func() { s.file.SetReadDeadline(time.Now()) })
	defer stop()
	connection, err := s.file.SyscallConn()
	if err != nil {
		return Event{}, err
	}
	var event C.mvm_event
	var failed error
	err = connection.Read(func(uintptr) bool {
		var e C.mvm_error
		failed = check(C.shim_next_event(s.runtime.key, &event, &e), &e)
		return failed != nil || event.kind != C.MVM_EVENT_NONE
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return Event{}, ctx.Err()
	case err != nil:
		return Event{}, err
	case failed != nil:
		return Event{}, failed
	}
	return Event{
		Kind:     EventKind(event.kind),
		Sequence: uint64(event.sequence),
		Time:     time.UnixMilli(int64(event.time_ms)),
		VM:       C.GoString(&event.vm[0]),
		Exit:     newExitStatus(event.exit_kind, event.exit_value),
		Count:    uint64(event.count),
		Text:     C.GoString(&event.text[0]),
	}, nil
}

// Report is what was found when the runtime was opened.
type Report struct {
	Adopted []string `json:"adopted"`
	Ended   []struct {
		ID  string `json:"id"`
		Why string `json:"why"`
	} `json:"ended"`
	Undone    []string    `json:"undone"`
	LeftAlone []LeftAlone `json:"left_alone"`
}

// LeftAlone is something in the state directory that was not understood, and not touched.
type LeftAlone struct {
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

// Report tells what was found when the runtime was opened.
func (r *Runtime) Report() (Report, error) {
	text, err := ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_runtime_report(r.key, text, e)
	})
	if err != nil {
		return Report{}, err
	}
	var report Report
	return report, json.Unmarshal(text, &report)
}

// Reap removes what is left of VMs whose owner is gone and that have no VMM, and gives its report as JSON. With
// dryRun it removes nothing and says what it would.
func (r *Runtime) Reap(dryRun bool) ([]byte, error) {
	options := newString(fmt.Sprintf(`{"dry_run":%t}`, dryRun))
	defer options.free()
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_runtime_reap(r.key, options.c, text, e)
	})
}

// MetricsText is what all VMs have counted and use, in the text format of Prometheus.
func (r *Runtime) MetricsText() ([]byte, error) {
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_runtime_metrics(r.key, text, e)
	})
}

// Metrics is what the VM has counted since it was made, and what its process uses, as JSON.
func (v *VM) Metrics() ([]byte, error) {
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status { return C.shim_metrics(v.key, text, e) })
}

// FlushMetrics has the VMM write down what it has counted.
func (v *VM) FlushMetrics(ctx context.Context) error {
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_metrics_flush(v.key, e) })
}
