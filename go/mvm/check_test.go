package mvm

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestACheckNamesWhatThisHostCanDo(t *testing.T) {
	report, err := Check(filepath.Join(t.TempDir(), "state"), Options{Firecracker: "/nowhere/firecracker"})
	if err != nil {
		t.Fatal(err)
	}
	if report.CanRun() || report.Can["run"] != "no" {
		t.Errorf("a host without Firecracker can run VMs: %+v", report.Can)
	}
	for _, finding := range report.Findings {
		if finding.Name == "firecracker" && (finding.Status != "no" || finding.Advice == "") {
			t.Errorf("%+v", finding)
		}
		if !strings.Contains(report.Text, finding.Text) {
			t.Errorf("the text lacks %q", finding.Text)
		}
	}
	if _, err := Check("a\x00b", Options{}); !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
}
