package main

import (
	"context"
	"os"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
)

// manifests are those of every tool: the server's and the devices'.
func manifests() []flow.Manifest {
	exe, _ := os.Executable()
	return append(tools.Manifests(exe), wiring.DeviceTools(exe)...)
}

func onDevice(name string) bool {
	for _, tool := range device.Tools() {
		if tool.Name == name {
			return true
		}
	}
	return false
}

func deviceTool(ctx context.Context, name string) int {
	return device.Run(ctx, name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}

func serverTool(ctx context.Context, name string) int {
	return tools.Run(ctx, name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}
