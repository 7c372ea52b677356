package mvm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/microvm-runtime/microvm-runtime/go/mvm"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotIsRestoredClonedAndPooled(t *testing.T) {
	ctx, runtime := context.Background(), open(t)
	vm := boot(t, runtime, "source", "obey")
	must(t, vm.Rename(ctx, "renamed"))
	report, err := vm.Snapshot(ctx, "base", mvm.SnapshotOptions{Checksums: "taken"})
	must(t, err)
	if report.MemoryBytes != 128<<20 || report.PausedUs == nil {
		t.Errorf("the report says %+v", report)
	}
	must(t, vm.Destroy(ctx))
	_, err = runtime.VerifySnapshot(ctx, "base")
	must(t, err)
	list, err := runtime.Snapshots()
	if err != nil || len(list.Snapshots) != 1 || len(list.Damaged) != 0 || list.Snapshots[0].VM != "renamed" {
		t.Errorf("the snapshots: %+v, %v", list, err)
	}

	restored, err := runtime.Restore(ctx, "base", "restored", mvm.RestoreOptions{
		Memory: "pager", Pager: &mvm.PagerOptions{RunIn: "thread", FaultAroundBytes: mvm.Ptr(uint64(0))},
	})
	must(t, err)
	if err := runtime.DeleteSnapshot("base"); !errors.Is(err, mvm.ErrBusy) {
		t.Errorf("a snapshot that is in use: %v", err)
	}
	must(t, restored.Destroy(ctx))

	if none, err := runtime.Clone(ctx, "base", 0, mvm.CloneOptions{}); err != nil || none == nil || len(none) != 0 {
		t.Errorf("no clone at all: %v, %v", none, err)
	}
	if _, err := runtime.Clone(ctx, "base", -1, mvm.CloneOptions{}); !errors.Is(err, mvm.ErrInvalidArgument) {
		t.Errorf("less than none: %v", err)
	}
	owned, err := runtime.Restore(ctx, "base", "owned", mvm.RestoreOptions{OwnerData: "tenant 7"})
	must(t, err)
	if data, err := owned.OwnerData(); err != nil || data != "tenant 7" {
		t.Errorf("the owner's data: %q, %v", data, err)
	}
	must(t, owned.Destroy(ctx))
	clones, err := runtime.Clone(ctx, "base", 3, mvm.CloneOptions{Prefix: "web"})
	must(t, err)
	for _, clone := range clones {
		if state, err := clone.State(); err != nil || state != mvm.Running {
			t.Errorf("a clone is %v, %v", state, err)
		}
		must(t, clone.Destroy(ctx))
	}

	pool, err := runtime.OpenPool("warm", mvm.PoolOptions{Snapshot: "base", Size: 2})
	must(t, err)
	for deadline := time.Now().Add(ample); ; time.Sleep(time.Millisecond) {
		info, err := pool.Info()
		must(t, err)
		if info.Ready == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the pool never fills: %+v", info)
		}
	}
	taken, err := pool.Take(ctx, "taken", mvm.TakeOptions{})
	must(t, err)
	must(t, pool.Close())
	pool, err = runtime.OpenPool("warm", mvm.PoolOptions{Snapshot: "base", Size: 2})
	must(t, err)
	if info, err := pool.Info(); err != nil || info.Ready == 0 {
		t.Errorf("what waited in a pool that was closed: %+v, %v", info, err)
	}
	must(t, pool.Destroy(ctx))
	if _, err := pool.Info(); !errors.Is(err, mvm.ErrNotFound) {
		t.Errorf("a pool that was destroyed: %v", err)
	}
	must(t, pool.Close())
	must(t, taken.Destroy(ctx))
	must(t, runtime.DeleteSnapshot("base"))
	if _, err := runtime.SnapshotInfo("base"); !errors.Is(err, mvm.ErrNotFound) {
		t.Errorf("a snapshot that was deleted: %v", err)
	}
}

func TestWhatCannotBeRestoredSaysWhy(t *testing.T) {
	ctx, runtime := context.Background(), open(t)
	_, err := runtime.Restore(ctx, "nowhere", "a", mvm.RestoreOptions{})
	if !errors.Is(err, mvm.ErrNotFound) {
		t.Errorf("no snapshot: %v", err)
	}
	if _, err := runtime.Clone(ctx, "nowhere", 2, mvm.CloneOptions{}); !errors.Is(err, mvm.ErrNotFound) {
		t.Errorf("no snapshot to clone: %v", err)
	}
}

func TestAContextEndsACloneAndNothingIsLeft(t *testing.T) {
	ctx, runtime := context.Background(), open(t)
	vm := boot(t, runtime, "source", "obey")
	_, err := vm.Snapshot(ctx, "base", mvm.SnapshotOptions{})
	must(t, err)
	must(t, vm.Destroy(ctx))
	ending, end := context.WithTimeout(ctx, time.Millisecond)
	defer end()
	if _, err := runtime.Clone(ending, "base", 500, mvm.CloneOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("500 clones within a millisecond: %v", err)
	}
	list, err := runtime.List()
	must(t, err)
	if len(list) != 0 {
		t.Errorf("left of the clones: %v", list)
	}
	must(t, runtime.DeleteSnapshot("base"))
}
