package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"os"
	"time"
)

// EventKind is the kind of an event.
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

// Event is something that happened to a VM or to the runtime.
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
	// Text says more, or is "".
	Text string
}

// Events is the stream of a runtime's events. While it waits no thread is held: Go's poller waits.
type Events struct {
	runtime *Runtime
	file    *os.File
	// open ends with ErrClosed when the stream is closed, or its runtime.
	open  context.Context
	close context.CancelCauseFunc
}

// Events opens the stream, for Close.
func (r *Runtime) Events() (*Events, error) {
	var fd C.int32_t
	err := query(&arguments{}, func(c *C.shim_call) C.mvm_status { return C.shim_events_fd(c, r.key, &fd) })
	if err != nil {
		return nil, err
	}
	file, err := newFile(fd, "events")
	if err != nil {
		return nil, err
	}
	events := &Events{runtime: r, file: file}
	events.open, events.close = context.WithCancelCause(r.open)
	return events, nil
}

// Close closes the stream; the events that wait stay where they are. A Next that waits ends with ErrClosed.
func (s *Events) Close() error {
	s.close(ErrClosed)
	return s.file.Close()
}

// Next takes the next event, and waits for it until ctx ends. After Close, and when the runtime was closed, it is
// ErrClosed. It is for one goroutine at a time.
func (s *Events) Next(ctx context.Context) (Event, error) {
	ctx, end := while(s.open, ctx)
	defer end()
	var event C.mvm_event
	var failed error
	err := poll(ctx, s.file, func(uintptr) bool {
		failed = query(&arguments{}, func(c *C.shim_call) C.mvm_status {
			return C.shim_next_event(c, s.runtime.key, &event)
		})
		return failed != nil || event.kind != C.MVM_EVENT_NONE
	})
	if err == nil {
		err = failed
	}
	if err != nil && s.open.Err() != nil {
		return Event{}, ErrClosed
	}
	if err != nil {
		return Event{}, err
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

// LeftAlone is something in the state directory that the library does not know and did not touch.
type LeftAlone struct {
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

// Report returns what was found when the runtime was opened.
func (r *Runtime) Report() (Report, error) {
	return documentOf[Report](context.Background(), &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_runtime_report(c, r.key, text)
	})
}

// ReapOptions are the options of Reap.
type ReapOptions struct {
	// DryRun removes nothing, and the report says what would be removed.
	DryRun bool
}

// Reap removes VMs that had no VMM when the runtime was opened and were not started since. It returns a report as JSON.
func (r *Runtime) Reap(options ReapOptions) ([]byte, error) {
	var flags C.uint32_t
	if options.DryRun {
		flags |= C.MVM_REAP_DRY_RUN
	}
	return textOf(context.Background(), &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_runtime_reap(c, r.key, flags, text)
	})
}

// MetricsOptions select metrics.
type MetricsOptions struct {
	// Set is "core", the most useful numbers, or "all", which adds every number that Firecracker counts.
	Set string `json:"set,omitempty"`
	// IDs selects VMs; nil means all.
	IDs []string `json:"ids,omitempty"`
	// Prefix selects VMs whose ids begin with it.
	Prefix string `json:"prefix,omitempty"`
	// DeadlineMS is the limit of the whole call; nil means 5000.
	DeadlineMS *uint64 `json:"deadline_ms,omitempty"`
}

// MetricsText returns the counts of VMs and of the runtime, in the text format of Prometheus.
func (r *Runtime) MetricsText(options MetricsOptions) ([]byte, error) {
	var in arguments
	defer in.free()
	json := in.json("options", options)
	return textOf(context.Background(), &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_runtime_metrics(c, r.key, json, text)
	})
}

// Metrics returns what the VM has counted since it was created, and what its process uses, as JSON.
func (v *VM) Metrics() ([]byte, error) {
	return v.text(func(c *C.shim_call, text **C.char) C.mvm_status { return C.shim_metrics(c, v.key, text) })
}

// FlushMetrics makes the VMM write its counts now.
func (v *VM) FlushMetrics(ctx context.Context) error {
	return v.call(ctx, func(c *C.shim_call) C.mvm_status { return C.shim_metrics_flush(c, v.key) })
}
