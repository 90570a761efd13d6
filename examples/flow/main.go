// Example flow expands a module on three devices: Go functions and an executable as tools, a failure that is compensated, and a
// second try that succeeds.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

//go:embed expand.yaml
var document []byte

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "flow:", err)
		os.Exit(1)
	}
}

type acquireIn struct {
	Module string `json:"module"`
	Count  int    `json:"count"`
}

type acquireOut struct {
	Devices []string `json:"devices"`
}

func acquire(_ context.Context, in acquireIn) (acquireOut, error) {
	out := acquireOut{}
	for i := range in.Count {
		out.Devices = append(out.Devices, fmt.Sprintf("device-%d", i+1))
	}
	return out, nil
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "flow")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := sqlitestore.Open(filepath.Join(dir, "flow.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	healthy := false
	tools := flow.NewTools()
	flow.Func(tools, "device.acquire", acquire, flow.WithEffect(flow.Keyed), flow.WithUndo("device.release"))
	flow.Func(tools, "device.release", func(context.Context, map[string]any) (struct{}, error) { return struct{}{}, nil }, flow.WithEffect(flow.Keyed))
	tools.Exec(flow.Manifest{
		Name: "package.install", Effect: flow.Keyed, Undo: "package.remove",
		Command: []string{"/bin/sh", "-c", `echo "installing for $ZHIYUN_STEP" >&2; echo '{"version": "1.2.0"}'`},
		Output:  []byte(`{"type": "object", "properties": {"version": {"type": "string"}}}`),
	})
	tools.Exec(flow.Manifest{Name: "package.remove", Effect: flow.Keyed, Command: []string{"/bin/sh", "-c", "true"}})
	flow.Func(tools, "test.run", func(context.Context, struct {
		Devices []string `json:"devices"`
		Version string   `json:"version"`
	}) (struct{}, error) {
		if !healthy {
			return struct{}{}, flow.Fatal(errors.New("device-2 refuses connections"))
		}
		return struct{}{}, nil
	}, flow.WithEffect(flow.Pure))

	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() { cancel(); err = errors.Join(err, <-done) }()
	if _, err := engine.Save(ctx, document); err != nil {
		return err
	}
	for _, healthy = range []bool{false, true} {
		id, err := engine.Start(ctx, "expand", map[string]any{"module": "shop.cart", "count": 3}, flow.By("example"))
		if err != nil {
			return err
		}
		for event, err := range engine.Watch(ctx, id) {
			if err != nil {
				return err
			}
			fmt.Fprintln(out, event)
		}
	}
	return nil
}
