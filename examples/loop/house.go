package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	cmdbmem "github.com/zhiyun-ops/zhiyun/cmdb/memstore"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	flowmem "github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/gray"
	graymem "github.com/zhiyun-ops/zhiyun/gray/memstore"
	"github.com/zhiyun-ops/zhiyun/l5"
	l5mem "github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
	"github.com/zhiyun-ops/zhiyun/scale"
	scalemem "github.com/zhiyun-ops/zhiyun/scale/memstore"
)

var (
	//go:embed site.yaml
	site []byte
	//go:embed expand.yaml
	expand []byte
	//go:embed contract.yaml
	contract []byte
)

// house is the six packages, joined.
type house struct {
	cmdb    *cmdb.DB
	names   *server.Server
	daemon  *daemon.Daemon
	engine  *flow.Engine
	gray    *gray.Controller
	scale   *scale.Controller
	agents  []*drift.Agent
	fleet   *fleet
	client  *l5.Client
	callers *callers

	orders   atomic.Int64 // under way
	rollouts atomic.Int64 // done
	repaired atomic.Int64 // findings

	mu  sync.Mutex
	out io.Writer // guarded by mu
}

// build makes all parts; nothing runs yet.
func build(dir string, out io.Writer) (*house, error) {
	h := &house{out: out, fleet: newFleet(dir)}
	reports := newStatistics(250 * time.Millisecond)
	var err error
	if h.cmdb, err = cmdb.New(cmdb.Config{Store: cmdbmem.New()}); err != nil {
		return nil, err
	}
	socket := "unix://" + filepath.Join(dir, "l5.sock")
	if h.daemon, err = daemon.New(daemon.Config{Listen: socket, Server: server.Config{Store: l5mem.New(), Sink: sink{reports}}}); err != nil {
		return nil, err
	}
	h.names = h.daemon.Server()
	if h.client, err = l5.New(l5.Config{Target: socket, Caller: "shop.web", ReportEvery: 25 * time.Millisecond}); err != nil {
		return nil, err
	}
	h.callers = newCallers(h.client)
	if h.gray, err = gray.New(gray.Config{
		Store: graymem.New(), Weights: weights{h.names}, Outcomes: reports, Interval: 50 * time.Millisecond, OnEvent: h.onGray,
	}); err != nil {
		return nil, err
	}
	if h.engine, err = flow.New(flow.Config{Store: flowmem.New(), Tools: h.tools()}); err != nil {
		return nil, err
	}
	if h.scale, err = scale.New(scale.Config{
		Store: scalemem.New(), Modules: pool{h.cmdb, h.names}, Devices: pool{h.cmdb, h.names}, Metrics: reports, Launcher: launcher{h.engine},
		Interval: 100 * time.Millisecond, Grace: time.Second, OnEvent: h.onScale,
	}); err != nil {
		return nil, err
	}
	for i := range devices {
		agent, err := h.agent(deviceName(i))
		if err != nil {
			return nil, err
		}
		h.agents = append(h.agents, agent)
	}
	return h, nil
}

// agent keeps the files of one device as they are declared.
func (h *house) agent(device string) (*drift.Agent, error) {
	root, err := h.fleet.root(device)
	if err != nil {
		return nil, err
	}
	return drift.New(drift.Config{
		Device: device, Desired: declaration{h.cmdb, device}, Collectors: []drift.Collector{drift.Files(root)},
		Mode: drift.Repair, Repairer: repairer{h.fleet, device},
		Rescan: 250 * time.Millisecond, Settle: time.Second, OnEvent: h.onDrift,
	})
}

// Run runs everything until ctx ends, and waits for all of it.
func (h *house) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		h.daemon.Run, h.cmdb.Run, h.engine.Run, h.gray.Run, h.scale.Run, h.client.Run, h.callers.Run,
	} {
		group.Go(func() error { return run(ctx) })
	}
	for _, agent := range h.agents {
		group.Go(func() error { return agent.Run(ctx) })
	}
	defer h.fleet.close()
	return group.Wait()
}

// declare says what there should be, and how it is done.
func (h *house) declare(ctx context.Context) error {
	if err := h.names.Ready(ctx); err != nil {
		return err
	}
	for _, document := range [][]byte{expand, contract} {
		if _, err := h.engine.Save(ctx, document); err != nil {
			return err
		}
	}
	text := string(site)
	for i := range devices {
		text += fmt.Sprintf("---\n{kind: device, name: %s, addr: 127.0.0.%d, site: sz-1, type: small}\n", deviceName(i), i+1)
	}
	plan, err := h.cmdb.Plan(ctx, cmdb.Documents([]byte(text)))
	if err != nil {
		return err
	}
	_, err = h.cmdb.Apply(ctx, plan, cmdb.By("loop"), cmdb.Because("the stage of the example"))
	return err
}

func (h *house) onScale(e scale.Event) {
	switch e.Kind {
	case scale.Ordered:
		h.orders.Add(1)
		h.say("scale: %s, because %s", e.Order.Direction, e.Reason.Code)
	case scale.Ended:
		h.orders.Add(-1)
		h.say("flow: %s is %s", e.Order.Direction, e.Order.State)
	}
}

func (h *house) onGray(e gray.Event) {
	switch e.To {
	case gray.Running:
		if e.Reason.Code == gray.CodeInForce {
			h.say("gray: %d %%", e.Percent)
		}
	case gray.Done:
		h.rollouts.Add(1)
		h.say("gray: done, because %s", e.Reason.Code)
	case gray.Aborting:
		h.say("gray: taken back, because %s", e.Reason)
	}
}

func (h *house) onDrift(e drift.Event) {
	switch {
	case e.Kind == drift.EventIntent:
		h.say("drift: %s differs in its %v, and will be repaired", e.Finding.Subject, e.Finding.Fields)
	case e.Kind == drift.EventClosed && e.Finding.Status == drift.StatusRepaired:
		h.say("drift: %s is repaired", e.Finding.Subject)
		h.repaired.Add(1)
	}
}

func (h *house) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(h.out, format+"\n", args...)
}

// until waits for what is expected.
func (h *house) until(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			status, err := h.scale.Status(context.WithoutCancel(ctx), module)
			return errors.Join(fmt.Errorf("expected that %s; devices by state: %v; scale: %s; first failed call: %w",
				what, h.cmdb.Counts(), status.Decision.Reason, h.callers.first()), err)
		case <-ticker.C:
		}
	}
	return nil
}
