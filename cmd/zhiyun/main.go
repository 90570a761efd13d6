// Command zhiyun is the whole of Zhiyun in one binary: the server, the agent of a device, a development
// environment, the demo, the tools of the flows, and the operator's verbs.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/zhiyun-ops/zhiyun/internal/bench/fleet"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
	"github.com/zhiyun-ops/zhiyun/internal/guard"
)

func main() {
	fleet.Main() // a process of bench's; returns if this is none
	flowbench.Main()
	switch {
	case guard.Is(os.Args):
		os.Exit(guard.Main(os.Args))
	case isSample(os.Args):
		os.Exit(runSample(os.Args))
	}
	ctx, stop := untilSignalled()
	app := newApp()
	err := app.RunContext(ctx, flagsFirst(app, os.Args))
	message, code := ending(err, context.Cause(ctx))
	stop()
	if message != "" {
		fmt.Fprintln(os.Stderr, "zhiyun:", message)
	}
	os.Exit(code)
}
