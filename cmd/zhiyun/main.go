// Command zhiyun is the whole of Zhiyun in one binary: the server, the agent of a device, a development
// environment, the demo, the tools of the flows, and the operator's verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/bench/fleet"
	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
	"github.com/zhiyun-ops/zhiyun/internal/guard"
)

// Exit codes, the same for every verb.
const (
	exitFailed = 1 // the thing asked for failed
	exitUsage  = 2 // the call itself was wrong
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	app := newApp()
	err := app.RunContext(ctx, flagsFirst(app, os.Args))
	stop()
	if err == nil {
		return
	}
	var exit cli.ExitCoder
	if errors.As(err, &exit) {
		if message := exit.Error(); message != "" {
			fmt.Fprintln(os.Stderr, "zhiyun:", message)
		}
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "zhiyun:", err)
	os.Exit(exitFailed)
}
