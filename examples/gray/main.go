// Command gray shows package gray in a program that has a load balancer and statistics of its own: a good build is
// brought to full weight, a bad one is taken back.
//
//	go run ./examples/gray
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/gray/memstore"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	lb := newBalancer()
	lb.add("10.0.0.1", 100, 0.001) // address, share, how many of its calls fail
	lb.add("10.0.0.2", 100, 0.001)

	ctl, err := gray.New(gray.Config{Store: memstore.New(), Weights: lb, Outcomes: lb, Interval: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- ctl.Run(ctx) }()
	go func() { ended <- lb.callers(ctx) }()

	policy := gray.Deck()
	policy.Soak = 200 * time.Millisecond // minutes, where it matters

	lb.add("10.0.0.7", 0, 0.002)
	fmt.Fprintln(out, "a good build:")
	if err := roll(ctx, out, ctl, "10.0.0.7", policy); err != nil {
		return err
	}
	lb.add("10.0.0.8", 0, 0.4)
	fmt.Fprintln(out, "a bad build:")
	if err := roll(ctx, out, ctl, "10.0.0.8", policy); err != nil {
		return err
	}
	shares, err := lb.Shares(ctx, "shop.cart")
	fmt.Fprintln(out, "shares:", shares)
	cancel()
	return errors.Join(err, <-ended, <-ended)
}

// roll starts a rollout and prints it until it is over.
func roll(ctx context.Context, out io.Writer, ctl *gray.Controller, addr string, policy gray.Policy) error {
	r, err := ctl.Start(ctx, gray.Rollout{Service: "shop.cart", New: []gray.Member{{ID: addr, Cores: 8}}, Policy: policy})
	if err != nil {
		return err
	}
	for event, err := range ctl.Watch(ctx, r.ID) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %-8s %3d%%  %s\n", event.To, event.Percent, event.Reason.Code)
	}
	return nil
}
