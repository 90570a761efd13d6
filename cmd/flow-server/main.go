// Command flow-server runs flows: an engine with SQLite in a folder or PostgreSQL, workers of devices, and a JSON API.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/zhiyun-ops/zhiyun/flow/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "flow-server:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	listen := flag.String("listen", "unix:///run/zhiyun/flow.sock", "unix:///path, made with mode 0600")
	data := flag.String("data", "/var/lib/zhiyun/flow", "folder of the store")
	store := flag.String("store", os.Getenv("ZHIYUN_FLOW_STORE"), "postgres:// URL of a database that several servers may share, in place of the folder; a password goes into the file PGPASSFILE")
	flows := flag.String("flows", "", "folder of documents, *.yaml, saved at the start")
	manifests := flag.String("manifests", "", "folder of tools' manifests, *.json")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "flow-server runs flows.\n\n  flow-server -listen unix:///tmp/flow.sock -data /tmp/flow -flows flows -manifests tools\n  zhiyun flow run NAME --server unix:///tmp/flow.sock --watch\n  curl --unix-socket /tmp/flow.sock -d '{}' http://localhost/v1/flows/NAME/executions\n\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	d, err := daemon.New(daemon.Config{
		Listen: *listen, Data: *data, Store: *store, Flows: *flows, Manifests: *manifests, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}
