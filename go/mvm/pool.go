package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
)

// Pool keeps VMs ready.
type Pool struct {
	key     C.uintptr_t
	runtime *Runtime
}

// PoolOptions say what a pool holds: VMs of a Snapshot, or VMs configured by a Spec.
type PoolOptions struct {
	Snapshot string          `json:"snapshot,omitempty"`
	Restore  *RestoreOptions `json:"restore,omitempty"`
	Spec     json.RawMessage `json:"spec,omitempty"`
	// Size is how many members wait; zero means 4.
	Size            uint64  `json:"size,omitempty"`
	RefillPerSecond float64 `json:"refill_per_second,omitempty"`
	// WhenEmpty is "make" or "fail".
	WhenEmpty string `json:"when_empty,omitempty"`
}

// PoolInfo is what a pool holds, and what it did.
type PoolInfo struct {
	Name      string  `json:"name"`
	Snapshot  *string `json:"snapshot"`
	Size      uint64  `json:"size"`
	Ready     uint64  `json:"ready"`
	Taken     uint64  `json:"taken"`
	Missed    uint64  `json:"missed"`
	Failed    uint64  `json:"failed"`
	LastError *string `json:"last_error"`
}

// TakeOptions are the options of Take. The zero value resumes the guest, or starts it.
type TakeOptions struct {
	// After is "resume" or "stay_paused".
	After  string          `json:"after,omitempty"`
	Drives []DriveOverride `json:"drives,omitempty"`
	MMDS   map[string]any  `json:"mmds,omitempty"`
	// OwnerData is kept with the VM, as by SetOwnerData.
	OwnerData string `json:"owner_data,omitempty"`
}

// OpenPool opens a pool. A thread of the pool creates its members.
func (r *Runtime) OpenPool(name string, options PoolOptions) (*Pool, error) {
	var in arguments
	defer in.free()
	cname, opts := in.text("name", name), in.json("options", options)
	pool := &Pool{runtime: r}
	err := query(&in, func(c *C.shim_call) C.mvm_status {
		return C.shim_pool_open(c, r.key, cname, opts, &pool.key)
	})
	if err != nil {
		return nil, err
	}
	return pool, nil
}

// Take takes a VM out of the pool and gives it the id. When ctx ends first, there is no such VM.
func (p *Pool) Take(ctx context.Context, id string, options TakeOptions) (*VM, error) {
	var in arguments
	defer in.free()
	cid, opts := in.text("id", id), in.json("options", options)
	return p.runtime.newVM(ctx, &in, func(c *C.shim_call, key *C.uintptr_t) C.mvm_status {
		return C.shim_pool_take(c, p.key, cid, opts, key)
	})
}

// Info returns what the pool holds, and what it did.
func (p *Pool) Info() (PoolInfo, error) {
	return documentOf[PoolInfo](context.Background(), &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_pool_info(c, p.key, text)
	})
}

// Destroy destroys the pool and its members. When ctx ends first, it can be called again.
func (p *Pool) Destroy(ctx context.Context) error {
	return call(ctx, &arguments{}, func(c *C.shim_call) C.mvm_status { return C.shim_pool_destroy(c, p.key) })
}

// Close closes the pool and releases the handle. Its members stay; the next pool of this name takes them over.
func (p *Pool) Close() error {
	return query(&arguments{}, func(c *C.shim_call) C.mvm_status { return C.shim_pool_release(c, p.key) })
}
