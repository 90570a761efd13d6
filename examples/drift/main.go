// Command drift shows a device being kept as declared: a file is tampered with, found, and put back.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/folder"
)

const declaration = `
files:
  etc/shop.conf: {kind: config, mode: "0640"}
  bin/current:   {kind: package, link: shop-1.2}
  etc/debug.conf: {type: absent}
`

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	base, err := os.MkdirTemp("", "zhiyun-drift-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	source, root := folder.Source{State: base + "/desired.yaml", Files: base + "/source"}, base+"/device"
	for name, content := range map[string]string{
		source.State:                    declaration,
		source.Files + "/etc/shop.conf": "workers = 8\n",
		root + "/etc/debug.conf":        "verbose = true\n",
	} {
		if err := write(name, content); err != nil {
			return err
		}
	}

	// Comparing writes nothing: it says what would be done.
	desired, _, err := source.Desired(ctx)
	if err != nil {
		return err
	}
	live, err := drift.Collect(ctx, desired, drift.Files(root))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "The device as it is found:")
	for _, f := range drift.Compare(desired, live) {
		fmt.Fprintln(out, " ", f)
	}

	// An agent that is told to repair brings it in line, and keeps it there.
	fmt.Fprintln(out, "The agent:")
	closed := make(chan string, 16)
	agent, err := drift.New(drift.Config{
		Device: "d1", Desired: source, Collectors: []drift.Collector{drift.Files(root)},
		Mode: drift.Repair, Repairer: &folder.Repairer{Source: source, Root: root},
		OnEvent: func(e drift.Event) {
			if e.Kind == drift.EventClosed {
				closed <- fmt.Sprintf("  %s %s: %s", e.Finding.Kind, e.Finding.Subject, e.Finding.Status)
			}
		},
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return agent.Run(ctx) })
	defer stop()
	for range 3 {
		<-closed // in any order: repairs run side by side
	}
	fmt.Fprintln(out, "  the three differences are repaired")
	if err := write(filepath.Join(root, "etc/shop.conf"), "workers = 1\n"); err != nil {
		return err
	}
	fmt.Fprintln(out, "  somebody sets workers = 1")
	fmt.Fprintln(out, <-closed)
	content, err := os.ReadFile(filepath.Join(root, "etc/shop.conf"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  it says %s", content)
	stop()
	return group.Wait()
}

func write(name, content string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(content), 0o644)
}
