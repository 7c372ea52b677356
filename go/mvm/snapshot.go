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

// Rename changes the VM's id, in any state.
func (v *VM) Rename(ctx context.Context, id string) error {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status { return C.shim_rename(c, v.key, cid) })
}

// SnapshotOptions are the options of Snapshot. The zero value takes a full snapshot and resumes the guest.
type SnapshotOptions struct {
	// Type is "full" or "diff".
	Type string `json:"type,omitempty"`
	// WhenUncertain is "full" or "fail": what happens when a diff might lack pages.
	WhenUncertain string `json:"when_uncertain,omitempty"`
	// After is "resume" or "stay_paused".
	After string `json:"after,omitempty"`
	// Disks is "copy" or "reference".
	Disks string `json:"disks,omitempty"`
	// Checksums is "omitted" or "taken".
	Checksums  string `json:"checksums,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
}

// SnapshotReport is the report of Snapshot. Times are in microseconds.
type SnapshotReport struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Wanted string `json:"wanted"`
	// WhyFull says why Type is "full" although Wanted is "diff"; nil otherwise.
	WhyFull              *string `json:"why_full"`
	Parent               *string `json:"parent"`
	Directory            string  `json:"directory"`
	MemoryBytes          uint64  `json:"memory_bytes"`
	MemoryAllocatedBytes uint64  `json:"memory_allocated_bytes"`
	// PausedUs is how long the guest was paused; nil when it was paused before, or still is.
	PausedUs  *uint64 `json:"paused_us"`
	MemoryUs  uint64  `json:"memory_us"`
	DisksUs   uint64  `json:"disks_us"`
	ElapsedUs uint64  `json:"elapsed_us"`
}

// Snapshot takes the snapshot id, which needs neither the VM nor its files any more. When ctx ends first, there
// is no snapshot, and the guest is resumed when Firecracker has finished.
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
	// Type is "full" or "diff", and Parent the parent of a diff.
	Type          string  `json:"type"`
	Parent        *string `json:"parent"`
	CreatedUnixMs int64   `json:"created_unix_ms"`
	// VM is the id of the VM.
	VM             string `json:"vm"`
	MemoryBytes    uint64 `json:"memory_bytes"`
	AllocatedBytes uint64 `json:"allocated_bytes"`
}

// SnapshotList is all snapshots, in the order of their ids, and the damaged ones.
type SnapshotList struct {
	Snapshots []SnapshotSummary `json:"snapshots"`
	Damaged   []LeftAlone       `json:"damaged"`
}

// Snapshots returns all snapshots of the runtime.
func (r *Runtime) Snapshots() (SnapshotList, error) {
	return documentOf[SnapshotList](context.Background(), &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_list(c, r.key, text)
	})
}

// SnapshotInfo returns everything that is known of a snapshot, as JSON.
func (r *Runtime) SnapshotInfo(id string) ([]byte, error) {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return textOf(context.Background(), &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_info(c, r.key, cid, text)
	})
}

// VerifySnapshot reads every file that a restore needs, and compares the checksums. It returns a report as JSON.
func (r *Runtime) VerifySnapshot(ctx context.Context, id string) ([]byte, error) {
	var in arguments
	defer in.free()
	cid := in.text("id", id)
	return textOf(ctx, &in, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_snapshot_verify(c, r.key, cid, text)
	})
}

// MergeOptions are the options of MergeSnapshot.
type MergeOptions struct {
	// Checksums is "omitted" or "taken".
	Checksums  string `json:"checksums,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
}

// MergeSnapshot turns a diff into a full snapshot under the same id, and returns what SnapshotInfo returns.
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

// RestoreOptions are the options of Restore. The zero value maps the snapshot's memory and resumes the guest.
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
	// Mvm replaces the section "mvm" of the snapshot's spec.
	Mvm map[string]any `json:"mvm,omitempty"`
	// OwnerData is kept with the VM, as by SetOwnerData.
	OwnerData  string `json:"owner_data,omitempty"`
	DeadlineMs uint64 `json:"deadline_ms,omitempty"`
}

// NetworkOverride gives an interface another TAP device. The guest reads the MAC address in its metadata only.
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
	// FaultAroundBytes is the most that is placed around a faulting page; with Ptr(0), only the page.
	FaultAroundBytes *uint64 `json:"fault_around_bytes,omitempty"`
	// Ahead is "nothing", "working_set" or "everything".
	Ahead  string     `json:"ahead,omitempty"`
	Record *Recording `json:"record,omitempty"`
}

// Recording limits what is recorded of a working set; zero means the library's default.
type Recording struct {
	LimitBytes uint64 `json:"limit_bytes,omitempty"`
	ForMs      uint64 `json:"for_ms,omitempty"`
}

// Restore creates the VM id from a snapshot and resumes it. When ctx ends first, there are no leftovers.
func (r *Runtime) Restore(ctx context.Context, snapshot, id string, options RestoreOptions) (*VM, error) {
	var in arguments
	defer in.free()
	csnapshot, cid, opts := in.text("snapshot", snapshot), in.text("id", id), in.json("options", options)
	return r.newVM(ctx, &in, func(c *C.shim_call, key *C.uintptr_t) C.mvm_status {
		return C.shim_restore(c, r.key, csnapshot, cid, opts, key)
	})
}

// CloneOptions are the options of Clone: those of a restore, and the ids of the VMs.
type CloneOptions struct {
	RestoreOptions
	// IDs has one id for each VM. Without it, the ids are Prefix-1, Prefix-2, and so on.
	IDs    []string `json:"ids,omitempty"`
	Prefix string   `json:"prefix,omitempty"`
	// Each has, for each VM, the options that differ.
	Each []map[string]any `json:"each,omitempty"`
}

// Clone creates n VMs from a snapshot, all or none. When ctx ends first, there are no leftovers.
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
