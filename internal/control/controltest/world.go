// Package controltest runs the control API over real parts in one process: CMDB, centers, records, name service, gray and
// findings, each over one store in memory, served on a unix socket. What is outside of them is a fake that tests steer: a
// balancer, and the outcomes that callers report.
package controltest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// AgentHeader names the device whose agent a request is from, in place of a proved identity.
const AgentHeader = "Test-Agent"

// World is a running server's parts.
type World struct {
	Store   *store.Memory // of all parts, each under its prefix
	CMDB    *cmdb.DB
	Centers *center.Centers
	Ledger  *drift.Ledger
	Names   *l5server.Server
	Gray    *gray.Controller
	// Flow has the tools "echo", "reject" for a number below 0, "wait", which ends when the world does, and "tell", which logs and
	// returns the text that it is given, or fails with it.
	Flow     *flow.Engine
	FlowLogs string       // its folder for logs
	Shelf    *shelf.Shelf // of pushed tools
	Triggers *trigger.Controller
	Records  *records.DB
	Blobs    string // the folder of the contents
	Balancer *Balancer
	Outcomes *Outcomes
	Client   *control.Client
	Target   string // of the API
}

// tools are those of the flow engine.
func tools() *flow.Tools {
	type number struct {
		N int `json:"n"`
	}
	out := flow.NewTools()
	flow.Func(out, "echo", func(_ context.Context, in number) (number, error) { return in, nil }, flow.WithEffect(flow.Pure))
	flow.Func(out, "wait", func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	flow.Func(out, "reject", func(_ context.Context, in number) (number, error) {
		if in.N < 0 {
			return in, errors.New("it is negative")
		}
		return in, nil
	}, flow.WithEffect(flow.Keyed))
	type telling struct {
		Text string `json:"text"`
		Fail bool   `json:"fail,omitempty"`
	}
	flow.Func(out, "tell", func(ctx context.Context, in telling) (telling, error) {
		flow.Logf(ctx, "told %s\n", in.Text)
		if in.Fail {
			return in, errors.New("it does not like " + in.Text)
		}
		return in, nil
	}, flow.WithEffect(flow.Keyed))
	return out
}

// New starts a world that ends with the test. Approval of permission requests is by hand.
func New(t *testing.T) *World {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	t.Cleanup(wait.Wait)
	t.Cleanup(cancel)
	run := func(f func(context.Context) error) {
		wait.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	dir := t.TempDir()
	w := &World{Store: store.NewMemory(), Balancer: &Balancer{servers: map[string]bool{}}, Outcomes: &Outcomes{bad: map[string]bool{}}}
	part := func(name string) store.Store {
		return store.Rehearsable(store.Prefixed(w.Store, "/"+name+"/"), name)
	}
	w.Blobs = filepath.Join(dir, "blobs")
	w.CMDB = Must(cmdb.New(cmdb.Config{Store: part("cmdb")}))(t)
	w.Centers = Must(center.New(center.Config{Store: part("center"), Dir: w.Blobs, Balancer: w.Balancer}))(t)
	w.Ledger = Must(drift.NewLedger(drift.LedgerConfig{Store: part("drift")}))(t)
	w.Names = Must(l5server.New(l5server.Config{Store: part("l5"), Grants: w.Centers.Permissions, Grace: time.Hour}))(t) // nobody holds leases here
	w.Records = Must(records.Open(filepath.Join(dir, "records.db"), records.Config{}))(t)
	t.Cleanup(func() {
		if err := w.Records.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Outcomes.names = w.Names
	w.Gray = Must(gray.New(gray.Config{Store: part("gray"), Weights: weights{w.Names}, Outcomes: w.Outcomes, Interval: 5 * time.Millisecond}))(t)
	known := tools()
	w.Shelf = Must(shelf.Open(t.TempDir()))(t)
	w.FlowLogs = filepath.Join(dir, "flow-logs")
	w.Flow = Must(flow.New(flow.Config{Store: memstore.New(), Tools: known, Grace: time.Millisecond, LogDir: w.FlowLogs}))(t)
	w.Triggers = Must(trigger.New(trigger.Config{Store: part("trigger"), Engine: w.Flow}))(t)
	api := Must(control.New(control.Config{
		CMDB: w.CMDB, Centers: w.Centers, Records: w.Records, Drift: w.Ledger, Names: w.Names, Gray: w.Gray, Flow: w.Flow, Triggers: w.Triggers, Tools: known, Shelf: w.Shelf, Settle: time.Millisecond,
		GrayPolicy: func(cmdb.GraySpec) (gray.Policy, error) {
			p := gray.Deck()
			p.Soak = time.Millisecond
			return p, nil
		},
	}))(t)
	for _, f := range []func(context.Context) error{w.CMDB.Run, w.Centers.Run, w.Names.Run, w.Records.Run, w.Gray.Run, w.Flow.Run, w.Triggers.Run, api.Run} {
		run(f)
	}
	if err := errors.Join(w.CMDB.Ready(ctx), w.Centers.Ready(ctx), w.Names.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	api.Mount(mux)
	mux.Handle(w.Names.Handler())
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if device := r.Header.Get(AgentHeader); device != "" {
			r = r.WithContext(auth.With(r.Context(), auth.Identity{Role: auth.Agent, Name: device}))
		}
		mux.ServeHTTP(rw, r)
	})
	socket := filepath.Join(dir, "s")
	listener := Must(net.Listen("unix", socket))(t)
	run(func(ctx context.Context) error { return transport.NewServer(handler).Serve(ctx, listener, time.Second) })
	w.Target = "unix://" + socket
	w.Client = Must(control.Dial(w.Target, ""))(t)
	t.Cleanup(w.Client.Close)
	return w
}

// Must ends the test if an error came, as in Must(net.Listen("tcp", addr))(t).
func Must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Apply declares resources.
func (w *World) Apply(t *testing.T, text string) {
	t.Helper()
	plan := Must(w.CMDB.Plan(t.Context(), cmdb.Documents([]byte(text))))(t)
	Must(w.CMDB.Apply(t.Context(), plan, cmdb.By("alice")))(t)
}

// Raw is everything that the parts have stored but what keeps count of time: the same act twice leaves it the same.
func (w *World) Raw(t *testing.T) map[string]string {
	t.Helper()
	all, _, err := w.Store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string, len(all))
	for _, r := range all {
		// A finished rollout may still be looked at, and servers say that they live.
		if !strings.HasPrefix(r.Key, "/gray/") && !strings.HasPrefix(r.Key, "/l5/lease/") {
			out[r.Key] = string(r.Value)
		}
	}
	return out
}

// InForce is what counts now: devices' states, instances, grants, mutes, silences, real servers. An undo restores it.
func (w *World) InForce(t *testing.T) map[string]string {
	t.Helper()
	ctx := t.Context()
	out := make(map[string]string)
	put := func(key string, v any) { out[key] = string(Must(json.Marshal(v))(t)) }
	for _, d := range w.CMDB.Devices(cmdb.DeviceFilter{}) {
		d.Meta, d.Since, d.HeldUntil = cmdb.Meta{}, time.Time{}, time.Time{}
		d.HeldFrom, d.Acquisition = "", "" // how it came to be held is gone with the hold
		put("device/"+d.Name, d)
	}
	for _, service := range w.Names.Services() {
		for _, i := range w.Names.Instances(service) {
			put("instance/"+service+"/"+i.Addr, i.Instance)
		}
	}
	grants, _, err := w.Centers.Permissions.List(ctx, center.GrantFilter{State: center.GrantActive}, center.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range grants {
		for key := range g.Holders {
			put("grant/"+g.Caller+"/"+g.Service+"/"+key, true)
		}
	}
	mutes, _, err := w.Centers.Notify.Mutes(ctx, false, center.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutes {
		put("mute/"+m.Key, m.Module)
	}
	silences, _, err := w.Centers.Notify.Silences(ctx, false, center.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range silences {
		put("silence/"+s.Key, s.Devices)
	}
	changes, _, err := w.Centers.Changes.List(ctx, center.ChangeFilter{}, center.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.Undone == nil {
			put("change/"+c.Key, c.Devices)
		}
	}
	put("balancer", w.Balancer.All())
	return out
}

// weights are the shares of the name service.
type weights struct{ names *l5server.Server }

func (s weights) SetShares(ctx context.Context, service string, shares map[string]int, _ int64) error {
	return s.names.SetShare(ctx, service, shares)
}

func (s weights) Shares(_ context.Context, service string) (map[string]int, error) {
	out := make(map[string]int)
	for _, i := range s.names.Instances(service) {
		out[i.Addr] = i.Share
	}
	return out, nil
}

// Outcomes says that callers had success with every instance, but for those that are Spoilt.
type Outcomes struct {
	names *l5server.Server
	mu    sync.Mutex
	bad   map[string]bool // guarded by mu
	mute  bool            // guarded by mu
}

// Spoil has every call to an address fail.
func (o *Outcomes) Spoil(addr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bad[addr] = true
}

// Hush has callers report nothing, so that rollouts hold where they are.
func (o *Outcomes) Hush(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mute = on
}

// Outcomes implements gray.Outcomes.
func (o *Outcomes) Outcomes(_ context.Context, service string, _, _ time.Time) ([]gray.MemberOutcome, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []gray.MemberOutcome
	for _, i := range o.names.Instances(service) {
		if o.mute || i.Share == 0 {
			continue
		}
		m := gray.MemberOutcome{ID: i.Addr, Requests: 10_000, Reports: 10}
		if o.bad[i.Addr] {
			m.Failures = m.Requests
		}
		out = append(out, m)
	}
	return out, true, nil
}

// Balancer is a center.Balancer in memory.
type Balancer struct {
	mu      sync.Mutex
	servers map[string]bool // guarded by mu; virtual/addr
}

// Add implements center.Balancer.
func (b *Balancer) Add(_ context.Context, virtual, addr string, _ int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers[virtual+"/"+addr] = true
	return nil
}

// Remove implements center.Balancer.
func (b *Balancer) Remove(_ context.Context, virtual, addr string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.servers, virtual+"/"+addr)
	return nil
}

// Servers implements center.Balancer.
func (b *Balancer) Servers(_ context.Context, virtual string) ([]string, error) {
	var out []string
	for _, key := range b.All() {
		if v, addr, _ := strings.Cut(key, "/"); v == virtual {
			out = append(out, addr)
		}
	}
	return out, nil
}

// All lists the real servers, as virtual/addr.
func (b *Balancer) All() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []string{}
	for key := range b.servers {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
