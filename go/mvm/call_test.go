package mvm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microvm-runtime/microvm-runtime/go/mvm"
)

func TestAContextEndsItsOwnCallAndNoOtherOnTheSameVM(t *testing.T) {
	vm := boot(t, open(t), "shared", "halt")
	var others sync.WaitGroup
	first := make(chan struct{})
	others.Add(1)
	go func() {
		defer others.Done()
		ctx, cancel := context.WithTimeout(context.Background(), ample)
		defer cancel()
		close(first)
		if outcome, err := vm.Shutdown(ctx, time.Second, mvm.DefaultPoll); err != nil || outcome != mvm.Forced {
			t.Errorf("the call whose context lives: %v, %v", outcome, err)
		}
	}()
	<-first
	for i := 0; i < 8; i++ {
		others.Add(2)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		go func() {
			defer others.Done()
			if _, err := vm.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a wait whose context has ended: %v", err)
			}
		}()
		go func() {
			defer others.Done()
			if _, err := vm.Shutdown(ctx, ample, 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a shutdown whose context has ended: %v", err)
			}
		}()
	}
	others.Wait()
}

func TestWaitsThatEndDisturbNoSnapshot(t *testing.T) {
	vm := boot(t, open(t), "frozen", "obey")
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		ctx, cancel := context.WithTimeout(context.Background(), ample)
		defer cancel()
		for i := 0; i < 3; i++ {
			if _, err := vm.Snapshot(ctx, fmt.Sprintf("frozen-%d", i), mvm.SnapshotOptions{}); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		select {
		case <-taken:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		if _, err := vm.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
}

func TestAContextThatHasEndedEndsACallBeforeItBegins(t *testing.T) {
	runtime := open(t)
	vm := boot(t, runtime, "not-touched", "halt")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := vm.Kill(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := vm.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := runtime.Create(ctx, "never", spec("halt")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if state, err := vm.State(); err != nil || state != mvm.Running {
		t.Error(state, err)
	}
}

func TestTwoHundredWaitsHoldNoThreads(t *testing.T) {
	const waiters = 200
	vm := boot(t, open(t), "popular", "obey")
	before := threads(t)
	ctx, cancel := context.WithTimeout(context.Background(), ample)
	defer cancel()
	ended := make(chan error, waiters)
	for i := 0; i < waiters; i++ {
		go func() {
			exit, err := vm.Wait(ctx)
			if err == nil && exit != (mvm.ExitStatus{}) {
				err = fmt.Errorf("it ended with %+v", exit)
			}
			ended <- err
		}()
	}
	until(t, func() bool { return polling() >= waiters })
	if now := threads(t); now > before+16 {
		t.Errorf("%d waits, and %d threads where there were %d", waiters, now, before)
	}
	if outcome, err := vm.Shutdown(ctx, ample, 0); err != nil || outcome != mvm.Graceful {
		t.Error(outcome, err)
	}
	for i := 0; i < waiters; i++ {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestARuntimeThatIsClosedEndsItsWaits(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	runtime := openAt(t, state, firecracker())
	vm, err := runtime.Create(context.Background(), "left-running", spec("halt"))
	must(t, err)
	events, err := runtime.Events()
	must(t, err)
	ended := make(chan error, 2)
	go func() {
		_, err := vm.Wait(context.Background())
		ended <- err
	}()
	go func() {
		for {
			if _, err := events.Next(context.Background()); err != nil {
				ended <- err
				return
			}
		}
	}()
	until(t, func() bool { return polling() >= 2 })
	must(t, runtime.Close())
	for i := 0; i < 2; i++ {
		if err := <-ended; !errors.Is(err, mvm.ErrClosed) || !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
	left, err := openAt(t, state, firecracker()).VM("left-running")
	must(t, err)
	must(t, left.Destroy(context.Background()))
}

func TestAStreamThatIsClosedSaysSo(t *testing.T) {
	events, err := open(t).Events()
	must(t, err)
	ended := make(chan error)
	go func() {
		_, err := events.Next(context.Background())
		ended <- err
	}()
	until(t, func() bool { return polling() >= 1 })
	must(t, events.Close())
	if err := <-ended; !errors.Is(err, mvm.ErrClosed) {
		t.Error(err)
	}
	if _, err := events.Next(context.Background()); !errors.Is(err, mvm.ErrClosed) {
		t.Error(err)
	}
}

func TestTheExitFileIsOneForGosPoller(t *testing.T) {
	vm := boot(t, open(t), "polled", "halt")
	file, err := vm.ExitFile()
	must(t, err)
	defer file.Close()
	if err := file.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatalf("the poller does not have it: %v", err)
	}
	connection, err := file.SyscallConn()
	must(t, err)
	never := func(uintptr) bool { return false }
	if err := connection.Read(never); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("of a VMM that runs: %v", err)
	}
	must(t, file.SetReadDeadline(time.Now().Add(ample)))
	woken := make(chan error)
	go func() {
		looks := 0
		woken <- connection.Read(func(uintptr) bool { looks++; return looks > 1 })
	}()
	until(t, func() bool { return polling() >= 1 })
	must(t, vm.Kill(context.Background()))
	if err := <-woken; err != nil {
		t.Errorf("of a VMM that was killed: %v", err)
	}
}

func TestAStringWithANULInItReachesNoVM(t *testing.T) {
	ctx, runtime := context.Background(), open(t)
	vm := boot(t, runtime, "web-1", "halt")
	const evil = "web-1\x00-evil"
	opened, err := runtime.VM(evil)
	if opened != nil {
		t.Errorf("%q opens a VM", evil)
	}
	_, created := runtime.Create(ctx, evil, spec("halt"))
	_, specified := runtime.Create(ctx, "web-2", []byte("{}\x00"))
	_, stated := mvm.Open(t.TempDir()+evil, mvm.Options{})
	_, requested := vm.Request(ctx, "GET", "/\x00", nil)
	_, frozen := vm.Snapshot(ctx, evil, mvm.SnapshotOptions{})
	_, restored := runtime.Restore(ctx, "none", evil, mvm.RestoreOptions{})
	_, pooled := runtime.OpenPool(evil, mvm.PoolOptions{})
	updated := vm.UpdateDrive(ctx, "rootfs", "/dev/zero\x00", "")
	for i, err := range []error{err, created, specified, stated, requested, frozen, restored, pooled, updated,
		vm.Rename(ctx, evil), runtime.DeleteSnapshot(evil)} {
		if !errors.Is(err, mvm.ErrInvalidArgument) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// threads is how many the process has.
func threads(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	count, err := strconv.Atoi(regexp.MustCompile(`Threads:\s*(\d+)`).FindStringSubmatch(string(status))[1])
	must(t, err)
	return count
}

// polling is how many goroutines Go's poller has.
func polling() int {
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:goruntime.Stack(stacks, true)]), "[IO wait")
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(ample); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never comes to that")
		}
	}
}
