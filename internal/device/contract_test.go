package device_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/tooltest"
	"github.com/zhiyun-ops/zhiyun/internal/device"
)

// manifest is a device tool as an agent registers it, with an example.
func manifest(t *testing.T, name string, example any) flow.Manifest {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range device.Tools() {
		if tool.Name != name {
			continue
		}
		m := flow.Manifest{
			Name: tool.Name, Title: tool.Title, Stage: tool.Stage, Input: tool.Input, Output: tool.Output, Timeout: tool.Timeout,
			Effect: flow.Effect(tool.Effect), Undo: tool.Undo, Command: []string{exe, "tool", name},
		}
		if example != nil {
			input, err := json.Marshal(example)
			if err != nil {
				t.Fatal(err)
			}
			m.Examples = []flow.Example{{Input: input}}
		}
		return m
	}
	t.Fatalf("there is no tool %s", name)
	return flow.Manifest{}
}

// The device's tools keep the contract that they ask of others.
func TestToolsKeepTheContract(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts some hundred processes")
	}
	for _, c := range killCases(newWorld(t))[:3] {
		t.Run(c.tool, func(t *testing.T) {
			t.Parallel()
			undo := manifest(t, c.undo, nil)
			undo.Undo = "" // of what it takes away by itself; not looked at here
			tooltest.Verify(t, tooltest.Config{
				Manifest: manifest(t, c.tool, c.input), Others: []flow.Manifest{undo},
				World: func() (tooltest.World, error) {
					k := newKillable(t)
					killCases(k.world)
					return tooltest.World{Root: k.root, Env: k.command(c.tool, c.input).Env}, nil
				},
			})
		})
	}
}
