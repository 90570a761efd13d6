// Command gray-controller brings new servers of a HAProxy to full weight in stages, judged on what Prometheus
// counted. See package gray; its API is that of gray/grayhttp, on a unix socket:
//
//	curl --unix-socket /run/zhiyun/gray.sock http://gray/rollouts -d '{"service":"shop.cart","new":[{"id":"new1","cores":8}]}'
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/gray/grayhttp"
	"github.com/zhiyun-ops/zhiyun/gray/haproxy"
	"github.com/zhiyun-ops/zhiyun/gray/promoutcomes"
	"github.com/zhiyun-ops/zhiyun/internal/refdaemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gray-controller:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := refdaemon.Flags("gray-controller", "brings new servers of a HAProxy to full weight", "gray-controller -listen /tmp/gray.sock -data /tmp/gray -haproxy /run/haproxy.sock\ncurl --unix-socket /tmp/gray.sock http://gray/rollouts")
	listen := flags.String("listen", "/run/zhiyun/gray.sock", "path of the API's unix socket (mode 0600)")
	data := flags.String("data", "/var/lib/zhiyun/gray", "folder of the record")
	socket := flags.String("haproxy", "/run/haproxy.sock", "HAProxy's stats socket, of level admin")
	server := flags.String("prometheus", "http://127.0.0.1:9090", "Prometheus, which scrapes HAProxy")
	scrape := flags.Duration("scrape", 0, "its scrape interval (default 15s)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	weights, err := haproxy.New(haproxy.Config{Socket: *socket})
	if err != nil {
		return err
	}
	outcomes, err := promoutcomes.New(promoutcomes.Config{URL: *server, Scrape: *scrape})
	if err != nil {
		return err
	}
	return refdaemon.Run(ctx, refdaemon.Config{Socket: *listen, Data: *data, Prefix: "/zhiyun/gray/", Logger: logger}, func(s gray.Store) (refdaemon.Part, error) {
		ctl, err := gray.New(gray.Config{Store: s, Weights: weights, Outcomes: outcomes, Logger: logger})
		return refdaemon.Part{Run: ctl.Run, Handler: grayhttp.Handler(ctl)}, err
	})
}
