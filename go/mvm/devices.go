package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"time"
)

// SetBalloon has the guest give so many MiB to the balloon, and waits up to patience until it has. It says how many the
// balloon holds then, and whether that can be known: it cannot when the balloon's statistics are off.
func (v *VM) SetBalloon(ctx context.Context, amountMiB uint64, patience time.Duration) (uint64, bool, error) {
	var actual C.uint64_t
	err := v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_balloon_set(v.key, C.uint64_t(amountMiB), milliseconds(patience), &actual, e)
	})
	return uint64(actual), err == nil && actual != C.MVM_UNKNOWN, err
}

// BalloonStatistics gives what the guest says of its memory, as JSON.
func (v *VM) BalloonStatistics() ([]byte, error) {
	return ownedText(func(text **C.char, e *C.mvm_error) C.mvm_status {
		return C.shim_balloon_statistics(v.key, text, e)
	})
}

// HotplugMemory plugs memory in or out until so many MiB are plugged in, and waits up to patience until the guest has
// followed.
func (v *VM) HotplugMemory(ctx context.Context, sizeMiB uint64, patience time.Duration) (uint64, error) {
	var plugged C.uint64_t
	err := v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_memory_hotplug(v.key, C.uint64_t(sizeMiB), milliseconds(patience), &plugged, e)
	})
	return uint64(plugged), err
}

// UpdateDrive gives a drive another file, another rate limit (JSON, as in a spec), or both; "" leaves what there is.
func (v *VM) UpdateDrive(ctx context.Context, driveID, pathOnHost, rateLimiter string) error {
	id, path, limiter := newString(driveID), optional(pathOnHost), optional(rateLimiter)
	defer id.free()
	defer path.free()
	defer limiter.free()
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_drive_update(v.key, id.c, path.c, limiter.c, e)
	})
}

// UpdateNetwork limits what an interface receives and sends (JSON, as in a spec); "" leaves what there is.
func (v *VM) UpdateNetwork(ctx context.Context, ifaceID, rxRateLimiter, txRateLimiter string) error {
	id, rx, tx := newString(ifaceID), optional(rxRateLimiter), optional(txRateLimiter)
	defer id.free()
	defer rx.free()
	defer tx.free()
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_network_update(v.key, id.c, rx.c, tx.c, e)
	})
}

// Attach plugs in a device: section is "drives", "pmem" or "network-interfaces", definition what would stand there.
func (v *VM) Attach(ctx context.Context, section, definition string) error {
	where, what := newString(section), newString(definition)
	defer where.free()
	defer what.free()
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_device_attach(v.key, where.c, what.c, e)
	})
}

// Detach plugs out a device that the guest has let go of.
func (v *VM) Detach(ctx context.Context, section, id string) error {
	where, which := newString(section), newString(id)
	defer where.free()
	defer which.free()
	return v.call(ctx, func(e *C.mvm_error) C.mvm_status {
		return C.shim_device_detach(v.key, where.c, which.c, e)
	})
}

// optional is NULL for "".
func optional(s string) cString {
	if s == "" {
		return cString{}
	}
	return newString(s)
}
