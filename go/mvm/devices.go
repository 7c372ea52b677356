package mvm

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"time"
)

// SetBalloon sets the size of the balloon in MiB, and waits up to patience until the guest has followed. It returns the
// size after the call, and whether it is known: it is not when the balloon's statistics are off.
func (v *VM) SetBalloon(ctx context.Context, amountMiB uint64, patience time.Duration) (uint64, bool, error) {
	var actual C.uint64_t
	err := v.call(ctx, func(c *C.shim_call) C.mvm_status {
		return C.shim_balloon_set(c, v.key, C.uint64_t(amountMiB), milliseconds(patience), &actual)
	})
	return uint64(actual), err == nil && actual != C.MVM_UNKNOWN, err
}

// BalloonStatistics returns what the guest reports about its memory, as JSON.
func (v *VM) BalloonStatistics(ctx context.Context) ([]byte, error) {
	return textOf(ctx, &arguments{}, func(c *C.shim_call, text **C.char) C.mvm_status {
		return C.shim_balloon_statistics(c, v.key, text)
	})
}

// HotplugMemory plugs memory in or out until so many MiB are plugged in, and waits up to patience until the guest has
// followed.
func (v *VM) HotplugMemory(ctx context.Context, sizeMiB uint64, patience time.Duration) (uint64, error) {
	var plugged C.uint64_t
	err := v.call(ctx, func(c *C.shim_call) C.mvm_status {
		return C.shim_memory_hotplug(c, v.key, C.uint64_t(sizeMiB), milliseconds(patience), &plugged)
	})
	return uint64(plugged), err
}

// UpdateDrive gives a drive another file, another rate limit (JSON, as in a spec), or both; "" keeps the present one.
func (v *VM) UpdateDrive(ctx context.Context, driveID, pathOnHost, rateLimiter string) error {
	var in arguments
	defer in.free()
	id, path := in.text("driveID", driveID), in.optional("pathOnHost", pathOnHost)
	limiter := in.optional("rateLimiter", rateLimiter)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status {
		return C.shim_drive_update(c, v.key, id, path, limiter)
	})
}

// UpdateNetwork limits what an interface receives and sends (JSON, as in a spec); "" keeps the present one.
func (v *VM) UpdateNetwork(ctx context.Context, ifaceID, rxRateLimiter, txRateLimiter string) error {
	var in arguments
	defer in.free()
	id := in.text("ifaceID", ifaceID)
	rx, tx := in.optional("rxRateLimiter", rxRateLimiter), in.optional("txRateLimiter", txRateLimiter)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status {
		return C.shim_network_update(c, v.key, id, rx, tx)
	})
}

// Attach plugs in a device: section is "drives", "pmem" or "network-interfaces", definition is the device's JSON in
// that section of a spec.
func (v *VM) Attach(ctx context.Context, section, definition string) error {
	var in arguments
	defer in.free()
	csection, cdefinition := in.text("section", section), in.text("definition", definition)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status {
		return C.shim_device_attach(c, v.key, csection, cdefinition)
	})
}

// Detach plugs out a device. The guest must have removed the device first.
func (v *VM) Detach(ctx context.Context, section, id string) error {
	var in arguments
	defer in.free()
	csection, cid := in.text("section", section), in.text("id", id)
	return call(ctx, &in, func(c *C.shim_call) C.mvm_status {
		return C.shim_device_detach(c, v.key, csection, cid)
	})
}
