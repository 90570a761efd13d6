// Command scaler keeps modules at the size that their load in Prometheus asks for. What modules and idle devices
// there are, and how an order is carried out, a program of yours knows: see scale/execseam. Its API is that of
// scale/scalehttp, on a unix socket:
//
//	curl --unix-socket /run/zhiyun/scale.sock http://scale/modules
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/refdaemon"
	"github.com/zhiyun-ops/zhiyun/scale"
	"github.com/zhiyun-ops/zhiyun/scale/execseam"
	"github.com/zhiyun-ops/zhiyun/scale/promload"
	"github.com/zhiyun-ops/zhiyun/scale/scalehttp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scaler:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := refdaemon.Flags("scaler", "keeps modules at the size that their load asks for", "scaler -listen /tmp/scale.sock -data /tmp/scale -program ./fleet.sh\ncurl --unix-socket /tmp/scale.sock http://scale/modules")
	listen := flags.String("listen", "/run/zhiyun/scale.sock", "path of the API's unix socket (mode 0600)")
	data := flags.String("data", "/var/lib/zhiyun/scale", "folder of the record")
	program := flags.String("program", "", "executable that knows modules and devices and carries out orders (required)")
	server := flags.String("prometheus", "http://127.0.0.1:9090", "Prometheus, which knows the load")
	rate := flags.String("rate", `sum(rate(haproxy_backend_http_requests_total{proxy="$module"}[$step]))`, "query for a module's requests per second")
	interval := flags.Duration("interval", 15*time.Second, "time between two decisions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	seam, err := execseam.New(*program)
	if err != nil {
		return err
	}
	load, err := promload.New(promload.Config{URL: *server, Rate: *rate})
	if err != nil {
		return err
	}
	return refdaemon.Run(ctx, refdaemon.Config{Socket: *listen, Data: *data, Prefix: "/zhiyun/scale/", Logger: logger}, func(s scale.Store) (refdaemon.Part, error) {
		ctl, err := scale.New(scale.Config{Store: s, Modules: seam, Metrics: load, Devices: seam, Launcher: seam, Interval: *interval, Logger: logger})
		return refdaemon.Part{Run: ctl.Run, Handler: scalehttp.Handler(ctl)}, err
	})
}
