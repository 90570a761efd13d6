package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// house is everything that the server joins. Its parts are made by newHouse, in the order in which they need one
// another, and run by serve.
type house struct {
	config   Config
	registry *prometheus.Registry
	record   *record
	trust    *trust // nil without TLS
	id       string

	records   *records.DB
	audit     *teller
	cmdb      *cmdb.DB
	centers   *center.Centers
	balancer  *balancer
	placement *wiring.Placement
	names     *l5server.Server
	liveness  *wiring.Liveness
	holds     *wiring.Holds
	steps     flowStore
	dispatch  *dispatch.Dispatcher
	tools     *flow.Tools
	shelf     *shelf.Shelf // of pushed tools
	flow      *flow.Engine
	triggers  *trigger.Controller
	gray      *gray.Controller // reads and takes orders; the leader's own one acts
	scale     *scale.Controller
	faults    *faults // of modules' policies
	ledger    *drift.Ledger
	api       *control.API

	runs []func(context.Context) error
}

func newHouse(config Config, registry *prometheus.Registry, record *record, trust *trust, id string) (*house, error) {
	h := &house{config: config, registry: registry, record: record, trust: trust, id: id, faults: newFaults(config.Logger)}
	for _, build := range []func() error{h.keep, h.model, h.naming, h.flows, h.triggering, h.controllers, h.surface} {
		if err := build(); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

// close ends what holds files.
func (h *house) close() {
	if h.tools != nil {
		h.tools.Close()
	}
	if h.steps != nil {
		h.steps.Close()
	}
	if h.records != nil {
		h.records.Close()
	}
}

func (h *house) run(runs ...func(context.Context) error) { h.runs = append(h.runs, runs...) }

// keep opens the append-only records.
func (h *house) keep() (err error) {
	h.records, err = records.Open(filepath.Join(h.config.Dir, "records.db"), records.Config{
		Bucket: h.config.Bucket, Logger: h.config.Logger, Metrics: h.registry,
	})
	if err != nil {
		return err
	}
	h.audit = newTeller(h.records, h.catchUp, h.config.Logger)
	h.run(h.records.Run, h.audit.run)
	return nil
}

// model makes what should be: the CMDB and the centers.
func (h *house) model() (err error) {
	if h.cmdb, err = cmdb.New(cmdb.Config{Store: h.record.store("cmdb"), Logger: h.config.Logger, Metrics: h.registry}); err != nil {
		return err
	}
	if h.balancer, err = newBalancer(h.config, h.cmdb); err != nil {
		return err
	}
	h.centers, err = center.New(center.Config{
		Store: h.record.store("center"), Dir: filepath.Join(h.config.Dir, "blobs"),
		Approve: center.Approval(h.config.Approve), Balancer: h.balancer, Sinks: []center.Sink{center.LogSink{Logger: h.config.Logger}}, SinkNetworks: h.config.SinkNetworks,
		Owner: h.owner, Logger: h.config.Logger, Metrics: h.registry,
	})
	if err != nil {
		return err
	}
	h.run(h.cmdb.Run, h.balancer.run, h.centers.Run, h.renewOwn)
	return nil
}

// owner says whose a module is, as the CMDB has it.
func (h *house) owner(module string) string {
	m, err := h.cmdb.Module(module)
	if err != nil {
		return ""
	}
	return m.Owner
}

// naming makes the name service, and what finds lost devices by it.
func (h *house) naming() (err error) {
	h.liveness, err = wiring.NewLiveness(wiring.LivenessConfig{
		CMDB: h.cmdb, Withdraw: h.withdraw, Grace: h.config.Grace, Logger: h.config.Logger,
		OnEvent: func(e wiring.LivenessEvent) {
			h.audit.tell(records.Entry{Actor: "liveness", Action: "device." + e.Action, Object: "device/" + e.Device, Reason: e.Reason})
		},
	})
	if err != nil {
		return err
	}
	h.placement = wiring.NewPlacement(wiring.PlacementConfig{CMDB: h.cmdb, Grants: h.centers.Permissions, Logger: h.config.Logger})
	h.names, err = l5server.New(l5server.Config{
		Store: h.record.store("l5"), Sink: wiring.Sink{Records: h.records}, Grants: h.placement,
		Identify: h.caller, IdentifyOwner: identify, MayChange: mayChange, MayServe: h.mayServe, Grace: h.config.Grace,
		Place:   h.place,
		OnOwner: func(e l5server.OwnerEvent) { h.liveness.Seen(e.Owner, e.Live) },
		Logger:  h.config.Logger, Metrics: h.registry,
	})
	if err != nil {
		return err
	}
	audience, err := wiring.NewAudience(wiring.AudienceConfig{Names: h.names, Records: h.records, Every: h.config.Bucket / 2, Logger: h.config.Logger})
	if err != nil {
		return err
	}
	h.run(h.placement.Run, h.names.Run, h.liveness.Run, audience.Run)
	return nil
}

// place says where a device is, as the CMDB has it.
func (h *house) place(device string) (site, city string) {
	d, err := h.cmdb.Device(device)
	if err != nil {
		return "", ""
	}
	s, err := h.cmdb.Site(d.Site)
	if err != nil {
		return d.Site, ""
	}
	return d.Site, s.City
}

// withdraw takes the instances of a lost device out of the name service.
func (h *house) withdraw(ctx context.Context, device string) error {
	var faults []error
	for _, service := range h.names.Services() {
		for _, instance := range h.names.Instances(service) {
			if instance.Device == device {
				faults = append(faults, h.names.Deregister(ctx, service, instance.Addr))
			}
		}
	}
	return errors.Join(faults...)
}

// flowStore is where executions are kept.
type flowStore interface {
	flow.Store
	Close() error
}

// openSteps opens the file of this server, or the database that several servers share.
func (h *house) openSteps() (flowStore, error) {
	if h.config.FlowStore == "" {
		store, err := sqlitestore.Open(filepath.Join(h.config.Dir, "flow.db"))
		if err != nil {
			return nil, fmt.Errorf("%w; several servers share flows through PostgreSQL alone (FlowStore)", err)
		}
		return store, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := pgstore.Open(ctx, h.config.FlowStore)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// memberName is what the next process of this folder is called as well.
func (h *house) memberName() string {
	host, _ := os.Hostname() // without one, the folder has to tell it from others
	return host + ":" + h.config.Dir
}

// flows makes the flow engine with its tools.
func (h *house) flows() (err error) {
	if h.steps, err = h.openSteps(); err != nil {
		return err
	}
	h.tools = flow.NewTools()
	for _, manifest := range append(tools.Manifests(h.config.Exe), wiring.DeviceTools("")...) {
		h.tools.Exec(manifest)
	}
	if err := h.pushed(); err != nil {
		return err
	}
	h.dispatch, err = dispatch.New(dispatch.Config{Grace: h.config.Grace, Authorize: speaksFor, Logger: h.config.Logger})
	if err != nil {
		return err
	}
	h.flow, err = flow.New(flow.Config{
		Store: h.steps, Name: h.memberName(), Tools: h.tools, Remote: h.dispatch, Notifier: wiring.Notifier{Center: h.centers.Notify},
		Env: []string{
			"ZHIYUN_SERVER=unix://" + filepath.Join(h.config.Dir, "control.sock"),
			"ZHIYUN_TOKEN_FILE=" + filepath.Join(h.config.Dir, "tool.token"),
			"ZHIYUN_ROOT=" + filepath.Join(h.config.Dir, "root"),
		},
		LogDir: filepath.Join(h.config.Dir, "flow-logs"), Retention: flow.Retention{Keep: h.config.FlowKeep},
		Limits: h.config.Limits, OnEvent: h.onFlow, Logger: h.config.Logger, Metrics: h.registry,
	})
	if err != nil {
		return err
	}
	h.holds, err = wiring.NewHolds(wiring.HoldsConfig{
		CMDB: h.cmdb, Flow: h.flow, Withdraw: h.withdraw, Serving: h.serving,
		Paused: func(ctx context.Context, module string) (bool, error) {
			_, paused, err := h.centers.Pause.Of(ctx, module)
			return paused, err
		},
		OnEvent: func(device, action, reason string) {
			h.audit.tell(records.Entry{Actor: "holds", Action: "device." + action, Object: "device/" + device, Reason: reason})
		},
		Logger: h.config.Logger,
	})
	if err != nil {
		return err
	}
	h.run(h.runFlows, func(ctx context.Context) error {
		if err := h.ready(ctx); err != nil { // before the registry is loaded nobody seems to serve
			return nil // ctx has ended
		}
		return h.holds.Run(ctx)
	})
	return nil
}

// serving says whether callers are sent to a device of a module.
func (h *house) serving(device string) bool {
	d, err := h.cmdb.Device(device)
	if err != nil {
		return false
	}
	m, err := h.cmdb.Module(d.Module)
	if err != nil {
		return false
	}
	for _, service := range m.Services {
		for _, instance := range h.names.Instances(service.ID) {
			if instance.Device == device && instance.EffectiveWeight > 0 {
				return true
			}
		}
	}
	return false
}

// pushed registers the tools that were pushed. One that cannot be read is logged, and missing: the others work.
func (h *house) pushed() (err error) {
	if h.shelf, err = shelf.Open(filepath.Join(h.config.Dir, "tools")); err != nil {
		return err
	}
	manifests, err := h.shelf.Current()
	if err != nil {
		h.config.Logger.Error("tools that were pushed cannot be read; push them again", "error", err)
	}
	for _, manifest := range manifests {
		h.tools.Exec(manifest)
	}
	return nil
}

// onFlow puts what executions do into the audit record.
func (h *house) onFlow(e flow.Event) {
	switch e.Kind {
	case flow.EventDone, flow.EventFailed, flow.EventCancelled:
		h.holds.Ended()
	}
	if entry, ok := flowEntry(e); ok {
		h.audit.tell(entry)
	}
}

// controllers makes gray, scale and drift's ledger. What acts is made anew for each term of leadership, with a store that
// refuses writes once the term is over.
func (h *house) controllers() (err error) {
	if h.gray, err = gray.New(h.grayConfig(h.record.store("gray"), nil, nil)); err != nil {
		return err
	}
	h.run(func(ctx context.Context) error {
		return h.record.lead(ctx, "gray", h.id, func(ctx context.Context, term *store.Term) error {
			metrics := newTermRegisterer(h.registry)
			defer metrics.close()
			leader, err := gray.New(h.grayConfig(store.Fenced(h.record.store("gray"), term), term.Fence, metrics))
			if err != nil {
				return err
			}
			return leader.Run(ctx)
		})
	})
	if h.scale, err = scale.New(h.scaleConfig(h.record.store("scale"), nil)); err != nil {
		return err
	}
	if h.decides() {
		h.run(func(ctx context.Context) error {
			return h.record.lead(ctx, "scale", h.id, func(ctx context.Context, term *store.Term) error {
				metrics := newTermRegisterer(h.registry)
				defer metrics.close()
				leader, err := scale.New(h.scaleConfig(store.Fenced(h.record.store("scale"), term), metrics))
				if err != nil {
					return err
				}
				return leader.Run(ctx)
			})
		})
	}
	h.ledger, err = drift.NewLedger(drift.LedgerConfig{
		Store: h.record.store("drift"), Fleet: wiring.DriftFleet{CMDB: h.cmdb}, Logger: h.config.Logger,
	})
	scaled, drifted := newScaleTold(h.records), newDriftTold(h.records)
	h.chronicle("gray", rolloutsTold, nil)
	h.chronicle("scale", scaled.read, scaled.forget)
	h.chronicle("drift", drifted.read, drifted.forget)
	return err
}

func (h *house) grayConfig(records store.Store, fence func() int64, metrics prometheus.Registerer) gray.Config {
	config := gray.Config{
		Store: records, Weights: wiring.Weights{Names: h.names},
		Outcomes: wiring.Outcomes{Records: h.records, Bucket: h.config.Bucket},
		Stopped: func(ctx context.Context, _, module string) (string, bool, error) {
			paused, is, err := h.centers.Pause.Of(ctx, module)
			return "paused by " + paused.Actor + ": " + paused.Reason, is, err
		},
		Interval: h.config.Tick, Fence: fence, Logger: h.config.Logger,
	}
	if metrics != nil {
		config.Metrics = metrics
	}
	return config
}

func (h *house) scaleConfig(records store.Store, metrics prometheus.Registerer) scale.Config {
	fleet := wiring.Fleet{CMDB: h.cmdb, Names: h.names, Fault: h.faults.tell, Paused: func(ctx context.Context, module string) (bool, error) {
		_, paused, err := h.centers.Pause.Of(ctx, module)
		return paused, err
	}}
	config := scale.Config{
		Store: records, Modules: fleet, Devices: fleet, Launcher: wiring.Launcher{Engine: h.flow},
		Metrics:  wiring.Load{Records: h.records, Module: h.cmdb.Module},
		Interval: h.config.Tick, Logger: h.config.Logger,
	}
	if metrics != nil {
		config.Registry = metrics
	}
	return config
}

// decides says whether the decider runs.
func (h *house) decides() bool { return h.config.Scale == nil || *h.config.Scale }

// surface makes the control API over all of it.
func (h *house) surface() (err error) {
	checks := []control.Check{
		{Name: "credentials", Run: examineCredentials(h.centers.Credentials)},
		{Name: "left behind", Run: h.holds.Examine},
		{Name: "agents", Run: h.examineAgents},
	}
	var trusted control.Trust // not a nil *trust
	if h.trust != nil {
		trusted = h.trust
		checks = append(checks, control.Check{Name: "certificates", Run: h.trust.examine})
	}
	h.api, err = control.New(control.Config{
		Trust: trusted, DeviceLife: h.config.DeviceLife, Checks: checks,
		CMDB: h.cmdb, Centers: h.centers, Records: h.records, Gray: h.gray, Scale: h.scale, Drift: h.ledger,
		Flow: h.flow, Triggers: h.triggers, Tools: h.tools, ToolDevices: h.dispatch.Tools, Shelf: h.shelf, Names: h.names, ScaleOff: !h.decides(),
		GrayPolicy: wiring.GrayPolicy,
		DriftModes: func(module string) map[drift.Kind]drift.Mode {
			m, err := h.cmdb.Module(module)
			if err != nil {
				return nil
			}
			return wiring.DriftModes(m.Drift)
		},
		Info:   map[string]any{"id": h.id, "started": time.Now(), "dir": h.config.Dir, "bucket": h.config.Bucket.String()},
		Logger: h.config.Logger,
	})
	if err != nil {
		return err
	}
	h.run(h.api.Run)
	return nil
}

// mount puts the APIs on the mux.
func (h *house) mount(mux *http.ServeMux) {
	h.api.Mount(mux)
	mux.Handle(h.names.Handler())
	mux.Handle(h.dispatch.Handler())
}

// answers says whether the server can do its work now: all is known, and the record can be read.
func (h *house) answers(ctx context.Context) error {
	if err := h.ready(ctx); err != nil {
		return err
	}
	_, _, err := h.record.store("server").List(ctx, ownerKey)
	return err
}

// ready waits until everything that reads the record knows it.
func (h *house) ready(ctx context.Context) error {
	for _, ready := range []func(context.Context) error{h.cmdb.Ready, h.centers.Ready, h.names.Ready} {
		if err := ready(ctx); err != nil {
			return err
		}
	}
	return nil
}
