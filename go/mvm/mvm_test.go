package mvm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microvm-runtime/microvm-runtime/go/mvm"
)

const ample = 30 * time.Second

// firecracker is the VMM under test: MVM_TEST_FIRECRACKER, or the simulator.
func firecracker() string {
	if path := os.Getenv("MVM_TEST_FIRECRACKER"); path != "" {
		return path
	}
	return os.Getenv("MVM_TEST_SIMULATOR")
}

func open(t *testing.T) *mvm.Runtime {
	t.Helper()
	return openWith(t, firecracker())
}

func openWith(t *testing.T, vmm string) *mvm.Runtime {
	t.Helper()
	if vmm == "" {
		t.Fatal("MVM_TEST_SIMULATOR names no simulator: run make -C examples-c go-test")
	}
	return openAt(t, filepath.Join(t.TempDir(), "state"), vmm)
}

func openAt(t *testing.T, state, vmm string) *mvm.Runtime {
	t.Helper()
	runtime, err := mvm.Open(state, mvm.Options{Firecracker: vmm})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.Close() })
	return runtime
}

func spec(guest string, arguments ...string) []byte {
	kernel := filepath.Join(os.Getenv("MVM_TEST_GUESTS"), guest+".elf")
	text, err := json.Marshal(map[string]any{
		"boot-source":    map[string]any{"kernel_image_path": kernel},
		"machine-config": map[string]any{"vcpu_count": 1, "mem_size_mib": 128},
		"mvm":            map[string]any{"arguments": append([]string{}, arguments...)},
	})
	if err != nil {
		panic(err)
	}
	return text
}

func boot(t *testing.T, runtime *mvm.Runtime, id, guest string) *mvm.VM {
	t.Helper()
	ctx := context.Background()
	vm, err := runtime.Create(ctx, id, spec(guest))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Destroy(ctx); err != nil && !errors.Is(err, mvm.ErrBadHandle) {
			t.Error(err)
		}
		vm.Close()
	})
	if err := vm.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestAVMBootsIsHeldGoesOnAndPowersOff(t *testing.T) {
	ctx := context.Background()
	vm := boot(t, open(t), "whole-life", "obey")
	if err := vm.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if state, err := vm.State(); err != nil || state != mvm.Paused {
		t.Fatal(state, err)
	}
	if err := vm.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	outcome, err := vm.Shutdown(ctx, ample, mvm.DefaultPoll)
	if err != nil || outcome != mvm.Graceful {
		t.Fatal(outcome, err)
	}
	if exit, err := vm.Wait(ctx); err != nil || exit != (mvm.ExitStatus{}) {
		t.Fatal(exit, err)
	}
	report, err := vm.ShutdownReport()
	if err != nil || !strings.Contains(string(report), `"rung":"guest"`) {
		t.Fatal(string(report), err)
	}
}

func TestAVMSaysWhatItIs(t *testing.T) {
	ctx, runtime := context.Background(), open(t)
	vm := boot(t, runtime, "itself", "halt")
	if id, err := vm.ID(); err != nil || id != "itself" {
		t.Error(id, err)
	}
	if pid, err := vm.PID(); err != nil || pid <= 0 {
		t.Error(pid, err)
	}
	if data, err := vm.OwnerData(); err != nil || data != "" {
		t.Error(data, err)
	}
	if err := vm.SetOwnerData(ctx, `{"tenant":"ä"}`); err != nil {
		t.Error(err)
	}
	list, err := runtime.List()
	if err != nil || len(list) != 1 || list[0] != (mvm.Summary{ID: "itself", State: "running", OwnerData: `{"tenant":"ä"}`}) {
		t.Error(list, err)
	}
	if err := vm.SetOwnerData(ctx, strings.Repeat("x", 4097)); !errors.Is(err, mvm.ErrInvalidArgument) {
		t.Error(err)
	}
	if err := vm.Kill(ctx); err != nil {
		t.Error(err)
	}
	if pid, err := vm.PID(); !errors.Is(err, mvm.ErrBadState) {
		t.Error(pid, err)
	}
}

func TestAnErrorHasItsStatusAndItsStory(t *testing.T) {
	runtime := open(t)
	_, err := runtime.Create(context.Background(), "a", []byte(`{"boot-source":{"kernel_image_path":"/nowhere"}}`))
	var story *mvm.Error
	if !errors.Is(err, mvm.ErrVMMRefused) || !errors.As(err, &story) {
		t.Fatal(err)
	}
	if story.HTTPStatus != 400 || story.Stage != "PUT /boot-source" || !strings.Contains(story.FaultMessage, "kernel file") {
		t.Fatalf("%+v", story)
	}
	if _, err := runtime.VM("nobody"); !errors.Is(err, mvm.ErrNotFound) {
		t.Fatal(err)
	}
}

// Goroutines change threads between calls; each must still see its own error.
func TestAThousandGoroutinesSeeTheirOwnErrors(t *testing.T) {
	runtime := open(t)
	var group sync.WaitGroup
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func(id string) {
			defer group.Done()
			for j := 0; j < 20; j++ {
				_, err := runtime.VM(id)
				if err == nil || !strings.Contains(err.Error(), "there is no VM "+id) {
					t.Errorf("%s: %v", id, err)
				}
				goruntime.Gosched()
			}
		}(fmt.Sprintf("goroutine-%d", i))
	}
	group.Wait()
}

func TestAContextThatEndsEndsTheWaitAndNotTheVM(t *testing.T) {
	vm := boot(t, open(t), "waited-for", "halt")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := vm.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if state, err := vm.State(); err != nil || state != mvm.Running {
		t.Fatal(state, err)
	}
}

func TestAContextThatEndsDuringACreateLeavesNothing(t *testing.T) {
	runtime := openWith(t, os.Getenv("MVM_TEST_SIMULATOR"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := runtime.Create(ctx, "hangs", spec("halt", "--sim-fault", "1:hang"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if list, err := runtime.List(); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

func TestManyVMsAtOnceUnderAGarbageCollector(t *testing.T) {
	runtime := open(t)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				goruntime.GC()
			}
		}
	}()
	defer close(stop)
	var group sync.WaitGroup
	for i := 0; i < 16; i++ {
		group.Add(1)
		go func(id string) {
			defer group.Done()
			ctx := context.Background()
			vm, err := runtime.Create(ctx, id, spec("halt"))
			if err != nil {
				t.Error(err)
				return
			}
			defer vm.Close()
			if err := vm.Start(ctx); err != nil {
				t.Error(err)
			}
			if outcome, err := vm.Shutdown(ctx, 0, 0); err != nil || outcome != mvm.Forced {
				t.Error(outcome, err)
			}
			if err := vm.Destroy(ctx); err != nil {
				t.Error(err)
			}
		}(fmt.Sprintf("many-%d", i))
	}
	group.Wait()
	if list, err := runtime.List(); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

func TestAClosedHandleIsAnErrorAndNotACrash(t *testing.T) {
	runtime := open(t)
	vm := boot(t, runtime, "closed", "halt")
	other, err := runtime.VM("closed")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); !errors.Is(err, mvm.ErrBadHandle) {
		t.Fatal(err)
	}
	if err := other.Start(context.Background()); !errors.Is(err, mvm.ErrBadHandle) {
		t.Fatal(err)
	}
	if state, err := vm.State(); err != nil || state != mvm.Running {
		t.Fatal(state, err)
	}
}

func TestTheConsoleIsReadByOffset(t *testing.T) {
	vm := boot(t, open(t), "console", "off")
	if exit, err := vm.Wait(context.Background()); err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	buffer := make([]byte, 5)
	if n, next, err := vm.ReadConsole(buffer, 6); err != nil || string(buffer[:n]) != "from " || next != 11 {
		t.Fatal(string(buffer[:n]), err)
	}
	if n, _, err := vm.ReadConsole(nil, 0); err != nil || n != 0 {
		t.Fatal(n, err)
	}
}

func TestAnyRequestReachesTheVMM(t *testing.T) {
	vm := boot(t, open(t), "request", "halt")
	body, err := vm.Request(context.Background(), "GET", "/version", nil)
	if err != nil || !strings.Contains(string(body), "firecracker_version") {
		t.Fatal(string(body), err)
	}
}
