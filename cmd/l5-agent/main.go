// Command l5-agent is a device's name service: it keeps a copy of what the device's programs call, and the leases of what
// they register.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/zhiyun-ops/zhiyun/internal/doors"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "l5-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	upstream := flag.String("upstream", "unix:///run/zhiyun/l5-server.sock", "the server: https://host:port with -cert, -key and -ca, or unix:///path")
	device := flag.String("device", host, "this device's name")
	socket := flag.String("socket", "/run/zhiyun/l5.sock", "unix socket for the device's programs (mode 0600)")
	file := flag.String("snapshot", "/var/lib/zhiyun/l5.snapshot", "file to start from while no server answers; empty: none")
	cert, key := flag.String("cert", "", "certificate file"), flag.String("key", "", "its key file")
	ca := flag.String("ca", "", "authority of the server's certificate")
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	open := doors.Config{Logger: log}
	open.Flags(flag.StringVar)
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "l5-agent serves a device's programs.\n\n  l5-agent -upstream unix:///tmp/l5-server.sock -socket /tmp/l5.sock -snapshot /tmp/l5.snapshot -dns 127.0.0.1:5300\n\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	tls, err := daemon.Files(*cert, *key, *ca)
	if err != nil {
		return err
	}
	return doors.Serve(ctx, agent.Config{Upstream: *upstream, Device: *device, Socket: *socket, SnapshotFile: *file, TLS: tls, Logger: log}, open)
}
