package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
)

// Rename calls the VM id from now on, whatever it is doing.
func (v *VM) Rename(ctx context.Context, id string) error {
	cid := newString(id)
	defer cid.free()
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status { return C.shim_rename(v.key, cid.c, e) })
}

// SnapshotOptions are those of Snapshot; the zero value takes a full one and lets the guest go on.
type SnapshotOptions struct {
	// Type is "full" or "diff".
	Type string `json:"type,omitempty"`
	// After is "go_on" or "stay_paused".
	After string `json:"after,omitempty"`
	// Disks is "copy" or "reference".
	Disks string `json:"disks,omitempty"`
	// Checksums is "omitted" or "taken".
	Checksums  string `json:"checksums,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
}

// SnapshotReport says what Snapshot has done. Times are in microseconds.
type SnapshotReport struct {
	ID                   string  `json:"id"`
	Type                 string  `json:"type"`
	Parent               *string `json:"parent"`
	Directory            string  `json:"directory"`
	MemoryBytes          uint64  `json:"memory_bytes"`
	MemoryAllocatedBytes uint64  `json:"memory_allocated_bytes"`
	// PausedUs is how long the guest was held; nil when it was held before, or still is.
	PausedUs  *uint64 `json:"paused_us"`
	MemoryUs  uint64  `json:"memory_us"`
	DisksUs   uint64  `json:"disks_us"`
	ElapsedUs uint64  `json:"elapsed_us"`
}

// Snapshot takes the snapshot id, which needs neither the VM nor its files any more. When ctx ends first, nothing is
// left of it, and the guest goes on as soon as Firecracker is done.
func (v *VM) Snapshot(ctx context.Context, id string, options SnapshotOptions) (SnapshotReport, error) {
	var report SnapshotReport
	opts, err := newOptions(options)
	if err != nil {
		return report, err
	}
	cid := newString(id)
	defer cid.free()
	defer opts.free()
	var text *C.char
	err = v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_snapshot_create(v.key, cid.c, opts.c, &text, e)
	})
	if err != nil {
		return report, err
	}
	defer C.mvm_string_free(text)
	return report, json.Unmarshal([]byte(C.GoString(text)), &report)
}

// StoreWorkingSet has the pager store what it has recorded so far with the snapshot; it says of how many stretches.
func (v *VM) StoreWorkingSet(ctx context.Context) (uint64, error) {
	var stretches C.uint64_t
	err := v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_working_set_store(v.key, &stretches, e)
	})
	return uint64(stretches), err
}

// Snapshots gives all snapshots, and what stands among them damaged, as JSON.
func (r *Runtime) Snapshots() ([]byte, error) {
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_snapshot_list(r.key, text, e)
	})
}

// SnapshotInfo gives all that is known of a snapshot, as JSON.
func (r *Runtime) SnapshotInfo(id string) ([]byte, error) {
	cid := newString(id)
	defer cid.free()
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_snapshot_info(r.key, cid.c, text, e)
	})
}

// VerifySnapshot reads every file that a restore needs, and compares the checksums. It gives a report as JSON.
func (r *Runtime) VerifySnapshot(id string) ([]byte, error) {
	cid := newString(id)
	defer cid.free()
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_snapshot_verify(r.key, cid.c, text, e)
	})
}

// MergeSnapshot makes a full snapshot of a diff, and gives what SnapshotInfo would.
func (r *Runtime) MergeSnapshot(id string) ([]byte, error) {
	cid := newString(id)
	defer cid.free()
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_snapshot_merge(r.key, cid.c, text, e)
	})
}

// DeleteSnapshot removes a snapshot on which nothing depends.
func (r *Runtime) DeleteSnapshot(id string) error {
	cid := newString(id)
	defer cid.free()
	var e C.mvm_error
	return check(C.shim_snapshot_delete(r.key, cid.c, &e), &e)
}

// RestoreOptions are those of Restore; the zero value maps the snapshot's memory and lets the guest go on.
type RestoreOptions struct {
	// Memory is "file" or "pager".
	Memory string `json:"memory,omitempty"`
	// After is "go_on" or "stay_paused".
	After string `json:"after,omitempty"`
	// Verify is "when_changed", "cheap" or "always".
	Verify           string            `json:"verify,omitempty"`
	TrackDirtyPages  *bool             `json:"track_dirty_pages,omitempty"`
	ClockRealtime    bool              `json:"clock_realtime,omitempty"`
	NetworkOverrides []NetworkOverride `json:"network_overrides,omitempty"`
	VsockOverride    *VsockOverride    `json:"vsock_override,omitempty"`
	Drives           []DriveOverride   `json:"drives,omitempty"`
	// MMDS is the guest's metadata.
	MMDS  map[string]any `json:"mmds,omitempty"`
	Pager *PagerOptions  `json:"pager,omitempty"`
	// Mvm stands instead of that section of the snapshot's spec.
	Mvm        map[string]any `json:"mvm,omitempty"`
	DeadlineMs uint64         `json:"deadline_ms,omitempty"`
}

// NetworkOverride gives an interface another TAP device; the MAC address is only told to the guest.
type NetworkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name,omitempty"`
	GuestMAC    string `json:"guest_mac,omitempty"`
}

// VsockOverride gives the vsock device another socket.
type VsockOverride struct {
	UdsPath string `json:"uds_path"`
}

// DriveOverride gives a drive another file.
type DriveOverride struct {
	DriveID    string `json:"drive_id"`
	PathOnHost string `json:"path_on_host"`
}

// PagerOptions say how page faults are served.
type PagerOptions struct {
	// RunIn is "process" or "thread".
	RunIn            string `json:"run_in,omitempty"`
	Workers          uint64 `json:"workers,omitempty"`
	FaultAroundBytes uint64 `json:"fault_around_bytes,omitempty"`
	// Ahead is "nothing", "working_set" or "everything".
	Ahead  string     `json:"ahead,omitempty"`
	Record *Recording `json:"record,omitempty"`
}

// Recording says how much of a working set is recorded; zero is the library's own limit.
type Recording struct {
	LimitBytes uint64 `json:"limit_bytes,omitempty"`
	ForMs      uint64 `json:"for_ms,omitempty"`
}

// Restore makes the VM id of a snapshot. When ctx ends first, nothing is left.
func (r *Runtime) Restore(ctx context.Context, snapshot, id string, options RestoreOptions) (*VM, error) {
	opts, err := newOptions(options)
	if err != nil {
		return nil, err
	}
	csnapshot, cid := newString(snapshot), newString(id)
	defer csnapshot.free()
	defer cid.free()
	defer opts.free()
	var vm VM
	interrupt := func() { C.shim_runtime_interrupt(r.key, cid.c) }
	err = call(ctx, interrupt, func(e *C.mvm_error) C.mvm_status {
		return C.shim_restore(r.key, csnapshot.c, cid.c, opts.c, &vm.key, e)
	})
	if err != nil {
		return nil, err
	}
	return &vm, nil
}

// CloneOptions are those of Clone: of every restore, and what the VMs are called.
type CloneOptions struct {
	RestoreOptions
	// IDs names each VM; without it they are called Prefix-1, Prefix-2, and so on.
	IDs    []string `json:"ids,omitempty"`
	Prefix string   `json:"prefix,omitempty"`
	// Each holds, for each VM, what differs from the rest.
	Each []map[string]any `json:"each,omitempty"`
}

// Clone makes n VMs of a snapshot: all of them, or none. When ctx ends first, nothing is left.
func (r *Runtime) Clone(ctx context.Context, snapshot string, n int, options CloneOptions) ([]*VM, error) {
	opts, err := newOptions(options)
	if err != nil || n <= 0 {
		return nil, err
	}
	csnapshot := newString(snapshot)
	defer csnapshot.free()
	defer opts.free()
	keys := make([]C.uintptr_t, n)
	interrupt := func() {
		for i := 0; i < n; i++ {
			id := newString(options.idOf(i))
			C.shim_runtime_interrupt(r.key, id.c)
			id.free()
		}
	}
	err = call(ctx, interrupt, func(e *C.mvm_error) C.mvm_status {
		return C.shim_clone(r.key, csnapshot.c, C.size_t(n), opts.c, &keys[0], e)
	})
	if err != nil {
		return nil, err
	}
	vms := make([]*VM, n)
	for i, key := range keys {
		vms[i] = &VM{key: key}
	}
	return vms, nil
}

func (o *CloneOptions) idOf(index int) string {
	if index < len(o.IDs) {
		return o.IDs[index]
	}
	prefix := o.Prefix
	if prefix == "" {
		prefix = "clone"
	}
	return fmt.Sprintf("%s-%d", prefix, index+1)
}

func newOptions(options any) (cString, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return cString{}, err
	}
	return newString(string(text)), nil
}
