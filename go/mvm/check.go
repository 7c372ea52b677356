package mvm

/*
#include "shim.h"
*/
import "C"

import "context"

// CheckReport is what a host can do for VMs, what not, and what to do about it.
type CheckReport struct {
	// Can has the worst status of the findings for each purpose: run, pager, keeper, jail, cgroups, network, disks,
	// huge_pages, isolation. A status is "yes", "limited" or "no".
	Can map[string]string `json:"can"`
	// Findings are all things that were looked at.
	Findings []Finding `json:"findings"`
	// Text is the report for people.
	Text string `json:"-"`
}

// Finding is one thing that was looked at. docs/json.md lists all.
type Finding struct {
	Name   string `json:"name"`
	For    string `json:"for"`
	Status string `json:"status"`
	Text   string `json:"text"`
	// Advice is what to do about it, or "".
	Advice string `json:"advice"`
	// Seen is what was seen, for programs.
	Seen map[string]any `json:"seen"`
}

// CanRun says whether VMs can run at all.
func (r CheckReport) CanRun() bool { return r.Can["run"] != "no" }

// Check looks at what this host can do for a runtime that is opened with these arguments. It changes nothing, and needs
// no privilege and no runtime. stateDir may be "", and need not exist.
func Check(stateDir string, options Options) (CheckReport, error) {
	var in arguments
	defer in.free()
	dir, opts := in.optional("stateDir", stateDir), in.json("options", options)
	var text *C.char
	report, err := documentOf[CheckReport](context.Background(), &in,
		func(c *C.shim_call, json **C.char) C.mvm_status {
			return C.shim_runtime_check(c, dir, opts, &text, json)
		})
	if text != nil {
		defer C.mvm_string_free(text)
		report.Text = C.GoString(text)
	}
	return report, err
}
