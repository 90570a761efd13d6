// Command loop joins the six packages in one process, in the form in which a program of your own would embed them: a
// module is filled up to its minimum, grows under a burst, is brought to full weight on what its callers report, is kept
// as declared, and shrinks again. Nobody orders any of it.
//
//	go run ./examples/loop
//
// What joins the packages is in adapters.go, statistics.go and tools.go; house.go puts it together; fleet.go stands for
// the devices. All stores are in memory, and times that are minutes elsewhere are fractions of a second here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
)

const (
	module  = "shop.cart" // also its service id
	devices = 6           // each of which serves 100 calls a second
	quiet   = 90          // calls a second
	burst   = 320
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "loop:", err)
		os.Exit(1)
	}
}

// run tells the story and returns an error if it goes otherwise than expected.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "zl")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	h, err := build(dir, out)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := h.declare(ctx); err != nil {
		return err
	}
	return h.story(ctx)
}

func (h *house) story(ctx context.Context) error {
	h.say("%d devices are idle; %s wants at least 2, and its callers %d calls a second", devices, module, quiet)
	h.callers.rate.Store(quiet)
	if err := h.until(ctx, "2 devices serve", func() bool { return h.settled(2, 2) }); err != nil {
		return err
	}
	h.say("2 devices serve")

	h.say("the callers want %d calls a second", burst)
	h.callers.rate.Store(burst)
	if err := h.until(ctx, "4 or 5 devices serve", func() bool { return h.settled(4, 5) }); err != nil {
		return err
	}
	h.say("enough devices serve for the burst")

	victim := h.cmdb.Devices(cmdb.DeviceFilter{Module: module, State: cmdb.InService})[0].Name
	h.say("somebody changes %s on a device", configPath)
	if err := os.WriteFile(h.fleet.path(victim, configPath), []byte("workers = 400\n"), 0o644); err != nil {
		return err
	}
	if err := h.until(ctx, "the file is repaired", func() bool {
		content, err := os.ReadFile(h.fleet.path(victim, configPath))
		return err == nil && string(content) == config && h.repaired.Load() == 1
	}); err != nil {
		return err
	}

	h.say("the burst is over")
	h.callers.rate.Store(quiet)
	if err := h.until(ctx, "2 devices serve again", func() bool { return h.settled(2, 2) }); err != nil {
		return err
	}
	h.say("2 devices serve, %d are idle", devices-2)
	return h.check(ctx)
}

// settled says whether at least least and at most most devices serve with full weight, and nothing is on its way.
func (h *house) settled(least, most int) bool {
	counts := h.cmdb.Counts()
	serving := counts[cmdb.InService]
	return counts[cmdb.Held] == 0 && serving >= least && serving <= most && h.orders.Load() == 0
}

// check is what must be true in the end.
func (h *house) check(ctx context.Context) error {
	var faults []error
	executions, _, err := h.engine.List(ctx, flow.Filter{})
	if err != nil {
		return err
	}
	for _, x := range executions {
		if x.State != flow.Done || x.Actor != "scale" {
			faults = append(faults, fmt.Errorf("execution of %s by %s is %s", x.Flow, x.Actor, x.State))
		}
	}
	if n := h.fleet.running(); n != 2 {
		faults = append(faults, fmt.Errorf("%d programs run, want 2", n))
	}
	if n := len(h.names.Instances(module)); n != 2 {
		faults = append(faults, fmt.Errorf("%d instances are registered, want 2", n))
	}
	if h.rollouts.Load() < 2 {
		faults = append(faults, fmt.Errorf("%d rollouts were done, want at least 2", h.rollouts.Load()))
	}
	sent, failed := h.callers.sent.Load(), h.callers.failed.Load()
	if sent < burst || failed > 0 {
		faults = append(faults, fmt.Errorf("%d of %d calls failed: %w", failed, sent, h.callers.first()))
	}
	if len(faults) == 0 {
		h.say("0 calls failed")
	}
	return errors.Join(faults...)
}
