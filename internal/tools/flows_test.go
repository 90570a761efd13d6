package tools_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	flowmem "github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
)

// registry is what a server checks flows against.
func registry(t *testing.T) *flow.Tools {
	t.Helper()
	all := flow.NewTools()
	for _, m := range tools.Manifests("zhiyun") {
		all.Exec(m)
	}
	for _, d := range device.Tools() {
		all.Exec(flow.Manifest{Name: d.Name, Title: d.Title, Stage: d.Stage, Input: d.Input, Output: d.Output, Timeout: d.Timeout,
			Effect: flow.Effect(d.Effect), Undo: d.Undo, OnDevice: true})
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFlowsFitTheirTools(t *testing.T) {
	t.Parallel()
	engine, err := flow.New(flow.Config{Store: flowmem.New(), Tools: registry(t), Remote: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	for name, source := range tools.Flows() {
		faults, err := engine.Lint(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range faults {
			t.Errorf("%s.yaml:%s", name, fault)
		}
		saved, err := engine.Save(t.Context(), source)
		if err != nil || saved.Name != name {
			t.Errorf("%s is saved as %q, %v", name, saved.Name, err)
		}
	}
}

// The design names the 23 steps in six stages, and which of them run on the device.
func TestExpansionIsThe23Steps(t *testing.T) {
	t.Parallel()
	want := strings.Fields(`
		apply/flow.params apply/notify.mute apply/device.query apply/name.lookup
		obtain/resource.manifest obtain/permission.request obtain/device.acquire obtain/alert.silence
		deploy/package.install@d deploy/file.sync@d deploy/config.params deploy/config.push@d deploy/script.run@d deploy/l5.caller.join@d deploy/package.start@d
		self-check/process.scan@d self-check/change.report self-check/permission.check
		test/test.run
		gray/vip.add gray/l5.callee.join gray/alert.unsilence gray/notify.unmute`)
	engine, err := flow.New(flow.Config{Store: flowmem.New(), Tools: registry(t), Remote: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	saved, err := engine.Save(t.Context(), tools.Flows()["expand"])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, step := range saved.Steps {
		line := step.Stage + "/" + step.Tool
		if step.On != "" {
			line += "@d"
		}
		got = append(got, line)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 23 {
		t.Errorf("%d steps: %s", len(got), diff)
	}
}

// What changes something must say how it is undone, or that it needs no undo.
func TestManifestsAreWhole(t *testing.T) {
	t.Parallel()
	final := "device.repair notify.unmute alert.unsilence device.serve device.release l5.undrain l5.callee.restore vip.restore permission.restore change.withdraw"
	for _, m := range tools.Manifests("zhiyun") {
		if m.Title == "" || m.Stage == "" || m.Timeout == 0 || len(m.Input) == 0 || len(m.Output) == 0 {
			t.Errorf("%s is not described: %+v", m.Name, m)
		}
		if m.Effect == flow.Keyed && m.Undo == "" && !strings.Contains(final, m.Name) {
			t.Errorf("%s changes something and nothing undoes it", m.Name)
		}
	}
}

// nowhere is a fleet without devices.
type nowhere struct{}

func (nowhere) Run(context.Context, flow.Call) flow.Result {
	return flow.Result{Error: &flow.Error{Code: flow.CodeDeviceLost, Message: "no device"}}
}

func (nowhere) Acknowledge(flow.Call) {}
