// Command l5-server is a name server with an etcd of its own in a folder, or in front of a cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/zhiyun-ops/zhiyun/l5/etcdstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "l5-server:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	listen := flag.String("listen", "unix:///run/zhiyun/l5-server.sock", "unix:///path (mode 0600), or host:port with -cert, -key and -ca")
	data := flag.String("data", "/var/lib/zhiyun/l5", "folder of the embedded etcd; not used with -etcd")
	etcd := flag.String("etcd", "", "endpoints of an etcd cluster, comma separated")
	cert, key := flag.String("cert", "", "certificate file"), flag.String("key", "", "its key file")
	ca := flag.String("ca", "", "authority of the clients' certificates, and of etcd's")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "l5-server serves names and routes.\n\n  l5-server -listen unix:///tmp/l5-server.sock -data /tmp/l5\n\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	tls, err := daemon.Files(*cert, *key, *ca)
	if err != nil {
		return err
	}
	endpoints := strings.FieldsFunc(*etcd, func(r rune) bool { return r == ',' })
	store, closeStore, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: endpoints, TLS: tls, Dir: *data, Logger: logger})
	if err != nil {
		return err
	}
	defer closeStore()
	d, err := daemon.New(daemon.Config{Listen: *listen, TLS: tls, Server: server.Config{Store: store, Logger: logger}})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}
