package wiring

import (
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/device"
)

// DeviceTools are the tools that run on devices, as flow knows them. exe is the zhiyun binary; a server, which only
// checks flows against them, may leave it empty.
func DeviceTools(exe string) []flow.Manifest {
	var manifests []flow.Manifest
	for _, tool := range device.Tools() {
		manifest := flow.Manifest{
			Name: tool.Name, Title: tool.Title, Version: flow.ProgramVersion(), Stage: tool.Stage, Input: tool.Input, Output: tool.Output,
			Timeout: tool.Timeout, Effect: flow.Effect(tool.Effect), Undo: tool.Undo, OnDevice: tool.OnDevice, Plan: tool.Plan,
		}
		if exe != "" {
			manifest.Command = append([]string{exe}, tool.Command[1:]...)
		}
		manifests = append(manifests, manifest)
	}
	return manifests
}

// DriftModes is what a module's manifest wants done about differences, by kind.
func DriftModes(spec cmdb.DriftSpec) map[drift.Kind]drift.Mode {
	modes := make(map[drift.Kind]drift.Mode)
	for _, kind := range drift.Kinds() {
		if spec.Mode != "" {
			modes[kind] = drift.Mode(spec.Mode)
		}
		if mode := spec.Modes[string(kind)]; mode != "" {
			modes[kind] = drift.Mode(mode)
		}
	}
	return modes
}
