// Command drift-agent keeps one device as a file and a folder say, without a control plane.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/folder"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "drift-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	device := flag.String("device", name, "name of the device, for the log")
	root := flag.String("root", "/", "folder that holds the device's files; nothing outside is read or written")
	state := flag.String("state", "/etc/zhiyun/desired.yaml", "declared state, YAML or JSON")
	source := flag.String("source", "/etc/zhiyun/files", "folder with what the declared files hold")
	addr := flag.String("addr", "127.0.0.1", "IP address at which declared ports must be listened on")
	repair := flag.Bool("repair", false, "repair files that differ; without it they are only reported")
	rescan := flag.Duration("rescan", time.Minute, "time between two full looks")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "drift-agent keeps a device as declared.\n\n  drift-agent -root /tmp/d1 -state desired.yaml -source files -repair\n\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	desired := folder.Source{State: *state, Files: *source}
	processes := drift.Proc(*root)
	config := drift.Config{
		Device: *device, Desired: desired, Rescan: *rescan, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Collectors: []drift.Collector{drift.Files(*root), drift.Processes(processes), drift.Ports(*addr, processes)},
		Repairer:   &folder.Repairer{Source: desired, Root: *root},
	}
	if *repair { // files only: nothing here can start a process
		config.Modes = map[drift.Kind]drift.Mode{drift.KindFile: drift.Repair, drift.KindConfig: drift.Repair, drift.KindPackage: drift.Repair}
	}
	agent, err := drift.New(config)
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}
