package mvm_test

import (
	"context"
	"errors"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/microvm-runtime/microvm-runtime/go/mvm"
)

func TestEventsComeThroughGosPoller(t *testing.T) {
	runtime := open(t)
	events, err := runtime.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	ctx, cancel := context.WithTimeout(context.Background(), ample)
	defer cancel()
	told := make(chan mvm.Event, 64)
	go func() {
		defer close(told)
		for {
			event, err := events.Next(ctx)
			if err != nil {
				return
			}
			told <- event
		}
	}()
	vm := boot(t, runtime, "evented", "off")
	var kinds []mvm.EventKind
	for event := range told {
		if event.VM != "evented" {
			t.Errorf("an event of %q", event.VM)
		}
		kinds = append(kinds, event.Kind)
		if event.Kind == mvm.EventExited {
			if event.Exit != (mvm.ExitStatus{}) {
				t.Errorf("exited with %+v", event.Exit)
			}
			break
		}
	}
	want := []mvm.EventKind{mvm.EventCreated, mvm.EventStarted, mvm.EventExited}
	if len(kinds) != 3 || kinds[0] != want[0] || kinds[1] != want[1] || kinds[2] != want[2] {
		t.Errorf("%v", kinds)
	}
	if err := vm.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestAWaitForEventsEndsWithItsContextAndHoldsNoThread(t *testing.T) {
	runtime := open(t)
	events, err := runtime.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for i := 0; i < 3; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if _, err := events.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cancel()
	}
	goruntime.GC()
}

func TestAVMIsFoundAgain(t *testing.T) {
	ctx := context.Background()
	state := filepath.Join(t.TempDir(), "state")
	options := mvm.Options{Firecracker: firecracker()}
	first, err := mvm.Open(state, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Create(ctx, "again", spec("obey")); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := mvm.Open(state, options)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	report, err := second.Report()
	if err != nil || len(report.Adopted) != 1 || report.Adopted[0] != "again" || len(report.LeftAlone) != 0 {
		t.Fatalf("%+v %v", report, err)
	}
	vm, err := second.VM("again")
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := vm.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := vm.FlushMetrics(ctx); err != nil {
		t.Fatal(err)
	}
	if metrics, err := vm.Metrics(); err != nil || !strings.Contains(string(metrics), `"put_api_requests"`) {
		t.Errorf("%.200s %v", metrics, err)
	}
	if text, err := second.MetricsText(mvm.MetricsOptions{Prefix: "ag"}); err != nil || !strings.Contains(string(text), `mvm_vm_state{vm="again",state="running"} 1`) {
		t.Errorf("%.200s %v", text, err)
	}
	if err := vm.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	if reaped, err := second.Reap(mvm.ReapOptions{DryRun: true}); err != nil || !strings.Contains(string(reaped), `"removed":[]`) {
		t.Errorf("%s %v", reaped, err)
	}
}
