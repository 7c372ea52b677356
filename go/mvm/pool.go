package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
)

// Pool holds VMs made ahead of need.
type Pool struct{ key, runtime C.uintptr_t }

// PoolOptions say what a pool holds: VMs of a Snapshot, or VMs configured by a Spec.
type PoolOptions struct {
	Snapshot string          `json:"snapshot,omitempty"`
	Restore  *RestoreOptions `json:"restore,omitempty"`
	Spec     json.RawMessage `json:"spec,omitempty"`
	// Size is how many wait; 4 when it is zero.
	Size            uint64  `json:"size,omitempty"`
	RefillPerSecond float64 `json:"refill_per_second,omitempty"`
	// WhenEmpty is "make" or "fail".
	WhenEmpty string `json:"when_empty,omitempty"`
}

// PoolInfo says what a pool holds and has done.
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

// TakeOptions are those of Take; the zero value lets the guest go on, or starts it.
type TakeOptions struct {
	// After is "go_on" or "stay_paused".
	After  string          `json:"after,omitempty"`
	Drives []DriveOverride `json:"drives,omitempty"`
	MMDS   map[string]any  `json:"mmds,omitempty"`
}

// OpenPool opens a pool and has it filled.
func (r *Runtime) OpenPool(name string, options PoolOptions) (*Pool, error) {
	opts, err := newOptions(options)
	if err != nil {
		return nil, err
	}
	cname := newString(name)
	defer cname.free()
	defer opts.free()
	pool := Pool{runtime: r.key}
	var e C.mvm_error
	if err := check(C.shim_pool_open(r.key, cname.c, opts.c, &pool.key, &e), &e); err != nil {
		return nil, err
	}
	return &pool, nil
}

// Take takes a VM out of the pool, which is called id from now on. When ctx ends first, there is no such VM.
func (p *Pool) Take(ctx context.Context, id string, options TakeOptions) (*VM, error) {
	opts, err := newOptions(options)
	if err != nil {
		return nil, err
	}
	cid := newString(id)
	defer cid.free()
	defer opts.free()
	var vm VM
	interrupt := func() { C.shim_runtime_interrupt(p.runtime, cid.c) }
	err = call(ctx, interrupt, func(e *C.mvm_error) C.mvm_status {
		return C.shim_pool_take(p.key, cid.c, opts.c, &vm.key, e)
	})
	if err != nil {
		return nil, err
	}
	return &vm, nil
}

// Info says what the pool holds and has done.
func (p *Pool) Info() (PoolInfo, error) {
	var info PoolInfo
	text, err := ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_pool_info(p.key, text, e)
	})
	if err != nil {
		return info, err
	}
	return info, json.Unmarshal(text, &info)
}

// Close destroys the VMs that wait, and the pool.
func (p *Pool) Close() error {
	var e C.mvm_error
	return check(C.shim_pool_close(p.key, &e), &e)
}
