package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"unsafe"
)

// Rename calls the VM id from now on, whatever it is doing.
func (v *VM) Rename(ctx context.Context, id string) error {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status { return C.shim_rename(c, v.key, cid) })
}

// SnapshotOptions are those of Snapshot; the zero value takes a full one and lets the guest go on.
type SnapshotOptions struct {
	// Type is "full" or "diff".
	Type string `json:"type,omitempty"`
	// WhenUncertain is "full" or "fail": what happens where a diff might lack pages.
	WhenUncertain string `json:"when_uncertain,omitempty"`
	// After is "resume" or "stay_paused".
	After string `json:"after,omitempty"`
	// Disks is "copy" or "reference".
	Disks string `json:"disks,omitempty"`
	// Checksums is "omitted" or "taken".
	Checksums  string `json:"checksums,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
}

// SnapshotReport says what Snapshot has done. Times are in microseconds.
type SnapshotReport struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Wanted string `json:"wanted"`
	// WhyFull says why Type is "full" where Wanted is "diff"; nil otherwise.
	WhyFull              *string `json:"why_full"`
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
	var in arguments
	defer in.free()
	cid, opts := in.text("id", id), in.json("options", options)
	return documentOf[SnapshotReport](ctx, &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_create(c, v.key, cid, opts, text)
	})
}

// StoreWorkingSet stores the working set that the pager has recorded so far with the snapshot. It returns the number of
// contiguous ranges stored.
func (v *VM) StoreWorkingSet(ctx context.Context) (uint64, error) {
	var ranges C.uint64_t
	err := v.call(ctx, func(c *C.shim_call) C.mvm_status {
		return C.shim_working_set_store(c, v.key, &ranges)
	})
	return uint64(ranges), err
}

// SnapshotSummary is one line of a list of snapshots.
type SnapshotSummary struct {
	ID string `json:"id"`
	// Type is "full" or "diff", and Parent what a diff builds upon.
	Type          string  `json:"type"`
	Parent        *string `json:"parent"`
	CreatedUnixMs int64   `json:"created_unix_ms"`
	// VM is the id of the VM that it was taken of.
	VM             string `json:"vm"`
	MemoryBytes    uint64 `json:"memory_bytes"`
	AllocatedBytes uint64 `json:"allocated_bytes"`
}

// SnapshotList is all snapshots, by id, and what is damaged among them.
type SnapshotList struct {
	Snapshots []SnapshotSummary `json:"snapshots"`
	Damaged   []LeftAlone       `json:"damaged"`
}

// Snapshots gives all snapshots of the runtime.
func (r *Runtime) Snapshots() (SnapshotList, error) {
	return documentOf[SnapshotList](context.Background(), &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_list(c, r.key, text)
	})
}

// SnapshotInfo gives all that is known of a snapshot, as JSON.
func (r *Runtime) SnapshotInfo(id string) ([]byte, error) {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return textOf(context.Background(), &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_info(c, r.key, cid, text)
	})
}

// VerifySnapshot reads every file that a restore needs, and compares the checksums. It gives a report as JSON.
func (r *Runtime) VerifySnapshot(ctx context.Context, id string) ([]byte, error) {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return textOf(ctx, &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_verify(c, r.key, cid, text)
	})
}

// MergeOptions are those of MergeSnapshot.
type MergeOptions struct {
	// Checksums is "omitted" or "taken".
	Checksums  string `json:"checksums,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
}

// MergeSnapshot makes a full snapshot of a diff, and gives what SnapshotInfo would.
func (r *Runtime) MergeSnapshot(ctx context.Context, id string, options MergeOptions) ([]byte, error) {
	var in arguments
	defer in.free()
	cid, opts := in.text("id", id), in.json("options", options)
	return textOf(ctx, &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_merge(c, r.key, cid, opts, text)
	})
}

// DeleteSnapshot deletes a snapshot, unless something depends on it.
func (r *Runtime) DeleteSnapshot(id string) error {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return query(&in, func(c *C.shim_call) C.mvm_status { return C.shim_snapshot_delete(c, r.key, cid) })
}

// RestoreOptions are those of Restore; the zero value maps the snapshot's memory and lets the guest go on.
type RestoreOptions struct {
	// Memory is "file" or "pager".
	Memory string `json:"memory,omitempty"`
	// After is "resume" or "stay_paused".
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
	Mvm map[string]any `json:"mvm,omitempty"`
	// OwnerData is what SetOwnerData would keep with the VM.
	OwnerData  string `json:"owner_data,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
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
	RunIn   string `json:"run_in,omitempty"`
	Workers uint64 `json:"workers,omitempty"`
	// FaultAroundBytes is how much may come with a page; with Ptr(0) each page comes alone.
	FaultAroundBytes *uint64 `json:"fault_around_bytes,omitempty"`
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
	var in arguments
	defer in.free()
	csnapshot, cid, opts := in.text("snapshot", snapshot), in.text("id", id), in.json("options", options)
	return r.newVM(ctx, &in, func(c *C.shim_call, key *C.uintptr_t) C.mvm_status {
		return C.shim_restore(c, r.key, csnapshot, cid, opts, key)
	})
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
	var in arguments
	defer in.free()
	csnapshot, opts := in.text("snapshot", snapshot), in.json("options", options)
	if n < 0 {
		in.fail(fmt.Sprintf("%d clones are asked for", n))
		n = 0
	}
	keys := make([]C.uintptr_t, n)
	err := call(ctx, &in, func(c *C.shim_call) C.mvm_status {
		return C.shim_clone(c, r.key, csnapshot, C.size_t(n), opts, unsafe.SliceData(keys))
	})
	if err != nil {
		return nil, err
	}
	vms := make([]*VM, n)
	for i, key := range keys {
		vms[i] = &VM{key, r}
	}
	return vms, nil
}
