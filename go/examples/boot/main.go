// Boot boots a microVM, reads its console, holds it, lets it go on, and ends it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/microvm-runtime/microvm-runtime/go/mvm"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: boot FIRECRACKER KERNEL STATE_DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(firecracker, kernel, state string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println("VMM:", firecracker)
	runtime, err := mvm.Open(state, mvm.Options{Firecracker: firecracker})
	if err != nil {
		return err
	}
	defer runtime.Close()

	spec, err := json.Marshal(map[string]any{"boot-source": map[string]any{"kernel_image_path": kernel}})
	if err != nil {
		return err
	}
	vm, err := runtime.Create(ctx, "hello", spec)
	if err != nil {
		return err
	}
	defer vm.Close()
	defer vm.Destroy(context.Background())
	if err := vm.Start(ctx); err != nil {
		return err
	}
	if err := printConsole(ctx, vm, "hello from the guest\n"); err != nil {
		return err
	}
	if err := vm.Pause(ctx); err != nil {
		return err
	}
	if err := vm.Resume(ctx); err != nil {
		return err
	}
	outcome, err := vm.Shutdown(ctx, 10*time.Second, mvm.DefaultPoll)
	if err != nil {
		return err
	}
	report, err := vm.ShutdownReport()
	fmt.Println("shutdown:", outcome, string(report))
	return err
}

// printConsole prints the console once it holds text; the guest prints when it likes.
func printConsole(ctx context.Context, vm *mvm.VM, text string) error {
	buffer := make([]byte, 4096)
	for ctx.Err() == nil {
		length, _, err := vm.ReadConsole(buffer, 0)
		if err != nil {
			return err
		}
		if strings.Contains(string(buffer[:length]), text) {
			fmt.Print("console: ", string(buffer[:length]))
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}
