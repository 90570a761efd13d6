package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// The simulated world: a store that lives, two servers that replicate it, two agents that move between the servers, and a
// client of the first agent. Frames are lost, late, doubled and out of order; all but the store crash.

type world struct {
	*sim.World
	ctx     context.Context
	store   *store.Memory
	log     []store.Event
	trimmed int                // the store has compacted the log up to here
	history map[string][]state // by service, in the order of revisions
	servers map[string]*replica
	holders map[string]*holder
	plant   string
}

// replica is a server.
type replica struct {
	*server.Replica     // nil while it is down
	cursor          int // of the replica in log
}

var simServers = []string{"server", "server2"}

// state is what a service is from revision on.
type state struct {
	revision int64
	shares   map[string]int
}

// holder is an agent or a client.
type holder struct {
	w        *world
	name     string
	upstream string
	link     *link.Link
	hub      *hub.Hub
	conn     *conn
	last     map[string]int64     // the revision last seen, by service, in this life
	disk     map[string]view.View // outlives a crash
}

// conn is one stream of a holder to its upstream.
type conn struct {
	sub  *hub.Subscriber
	over bool
}

type openGate struct{}

func (openGate) Verdict(string, string) (bool, bool, string) { return true, true, "" }

var simServices = []string{"a", "b"}

func scenario(plant string) sim.Scenario {
	return func(sw *sim.World) func() error {
		w := &world{World: sw, ctx: context.Background(), store: store.NewMemory(), history: map[string][]state{}, holders: map[string]*holder{}, plant: plant}
		w.servers = map[string]*replica{}
		for _, name := range simServers {
			w.servers[name] = &replica{}
			w.OnCrash(name, func() { w.servers[name].Replica = nil }, func() { w.startServer(name) })
			w.startServer(name)
		}
		for _, h := range []struct{ name, upstream string }{{"agent1", "server"}, {"agent2", "server"}, {"client", "agent1"}} {
			holder := &holder{w: w, name: h.name, upstream: h.upstream, disk: map[string]view.View{}}
			w.holders[h.name] = holder
			w.OnCrash(h.name, func() { holder.hub, holder.conn = nil, nil }, holder.start)
			holder.start()
		}
		w.Every("", 400*time.Millisecond, w.write)
		return w.converged
	}
}

// write commits one or two changes at random, and notes what the services are from then on.
func (w *world) write() {
	r := w.Rand()
	ops := map[string]store.Op{}
	for range 1 + r.IntN(2) {
		instance := l5.Instance{Service: simServices[r.IntN(2)], Addr: fmt.Sprintf("10.0.0.%d:80", r.IntN(4)), Share: r.IntN(101)}
		op, err := server.Encode(instance)
		if err != nil {
			w.Fail(err)
			return
		}
		if r.IntN(3) == 0 {
			op = store.Delete(op.Key)
		}
		ops[op.Key] = op
	}
	for _, op := range slices.Collect(maps.Values(ops)) {
		if op.Kind == store.KindDelete {
			service, addr, _ := strings.Cut(strings.TrimPrefix(op.Key, "instance/"), "/")
			mark := server.Removed(service, addr)
			ops[mark.Key] = mark
		}
	}
	revision, err := w.store.Commit(w.ctx, slices.Collect(maps.Values(ops))...)
	if err != nil {
		w.Fail(err)
		return
	}
	event := store.Event{Revision: revision}
	for _, key := range slices.Sorted(maps.Keys(ops)) {
		if op := ops[key]; op.Kind == store.KindPut {
			event.Puts = append(event.Puts, store.Record{Key: key, Value: op.Value, Revision: revision})
		} else {
			event.Deletes = append(event.Deletes, key)
		}
	}
	w.log = append(w.log, event)
	if r.IntN(20) == 0 {
		w.trimmed = len(w.log) - r.IntN(3)
	}
	records, _, err := w.store.List(w.ctx, "instance/")
	if err != nil {
		w.Fail(err)
		return
	}
	for _, service := range simServices {
		shares := map[string]int{}
		for _, record := range records {
			if i, ok := server.Decode(record); ok && i.Service == service {
				shares[i.Addr] = i.Share
			}
		}
		w.history[service] = append(w.history[service], state{revision, shares})
	}
}

// at returns what a service was at a revision.
func (w *world) at(service string, revision int64) map[string]int {
	out := map[string]int{}
	for _, s := range w.history[service] {
		if s.revision <= revision {
			out = s.shares
		}
	}
	return out
}

func (w *world) startServer(name string) {
	r := w.servers[name]
	r.Replica = server.NewReplica(w.store, w.plant)
	reload := func() {
		w.Fail(r.Load(w.ctx))
		r.cursor = len(w.log)
	}
	reload()
	w.Every(name, 25*time.Millisecond, func() {
		if w.Rand().IntN(20) == 0 && !w.Healing() {
			return // a stall
		}
		if r.cursor < w.trimmed {
			reload()
		}
		for ; r.cursor < len(w.log); r.cursor++ {
			r.Apply(w.log[r.cursor])
		}
	})
}

func (h *holder) start() {
	h.hub, h.last = hub.New(), map[string]int64{}
	h.link = link.New(link.Config{
		OnView: h.see, OnVerdict: func(*l5pb.Verdict) {}, Logger: slog.New(slog.DiscardHandler),
		OnResync: func(service string) { h.w.Trace("%s: resync of %s", h.name, service) },
	})
	for _, service := range simServices {
		if v, ok := h.disk[service]; ok {
			h.link.Seed(v)
			h.last[service] = v.Revision
			h.w.Fail(h.hub.Publish(v, nil))
		}
		h.link.Subscribe("c", service)
	}
	h.connect()
	h.w.Every(h.name, 3*time.Second, h.connect) // what PING does: a stream that lost something is replaced
	h.w.Every(h.name, 50*time.Millisecond, h.ask)
}

// ask sends what the link wants to ask on the stream that is open.
func (h *holder) ask() {
	request := h.link.Pending()
	if len(request.GetSubscribe()) == 0 {
		return
	}
	h.w.Send(h.name, h.upstream, func() {
		if now := h.conn; now != nil && now.sub != nil && h.source() != nil {
			now.sub.Request(request)
		}
	})
}

// see takes a new state.
func (h *holder) see(v view.View, change *l5pb.Delta) {
	// I8: each revision at most once, and in order.
	if last, seen := h.last[v.Service]; seen && v.Revision <= last {
		h.w.Fail(fmt.Errorf("I8: %s saw revision %d of %s after %d", h.name, v.Revision, v.Service, last))
	}
	h.last[v.Service] = v.Revision
	got := map[string]int{}
	for _, i := range v.Instances {
		got[i.GetAddr()] = int(i.GetShare())
	}
	if want := h.w.at(v.Service, v.Revision); !maps.Equal(got, want) {
		h.w.Fail(fmt.Errorf("I8: %s holds %v of %s at revision %d, which was %v", h.name, got, v.Service, v.Revision, want))
	}
	if h.w.Rand().IntN(2) == 0 {
		h.disk[v.Service] = v
	}
	h.w.Fail(h.hub.Publish(v, change))
}

// source is the hub that a holder's upstream serves from; nil while it is down.
func (h *holder) source() *hub.Hub {
	if r := h.w.servers[h.upstream]; r != nil {
		if r.Replica == nil {
			return nil
		}
		return r.Hub
	}
	return h.w.holders[h.upstream].hub
}

// connect replaces the stream to the upstream.
func (h *holder) connect() {
	if h.conn != nil {
		h.conn.over = true
		if h.conn.sub != nil {
			h.conn.sub.Close()
		}
	}
	if h.w.servers[h.upstream] != nil { // whichever server there is will do
		h.upstream = simServers[h.w.Rand().IntN(len(simServers))]
	}
	c := &conn{}
	h.conn = c
	upstream := h.upstream
	hello := h.link.Hello()
	h.w.Send(h.name, upstream, func() {
		source := h.source()
		if c.over || source == nil || c.sub != nil {
			return
		}
		c.sub = source.Subscriber(openGate{})
		c.sub.Request(hello)
		h.pump(c, upstream)
	})
}

// pump sends what there is to send; frames of a stream that was replaced may still arrive.
func (h *holder) pump(c *conn, upstream string) {
	if c.over {
		return
	}
	frames, err := c.sub.Frames()
	h.w.Fail(err)
	for _, frame := range frames {
		h.w.Send(upstream, h.name, func() { h.link.Apply(frame.Message()) })
	}
	h.w.After(upstream, 25*time.Millisecond, func() { h.pump(c, upstream) })
}

// converged checks that in the end everyone holds what the store holds.
func (w *world) converged() error {
	for _, name := range slices.Sorted(maps.Keys(w.holders)) {
		for _, service := range simServices {
			history := w.history[service]
			newest := history[len(history)-1].shares
			held, ok := w.holders[name].hub.View(service)
			got := map[string]int{}
			for _, i := range held.Instances {
				got[i.GetAddr()] = int(i.GetShare())
			}
			// The last writes may be under way: what was true two seconds ago or later is good.
			fresh := false
			for _, s := range history[max(0, len(history)-6):] {
				fresh = fresh || maps.Equal(got, s.shares)
			}
			if !ok || !fresh {
				return fmt.Errorf("%s ends with %v of %s, the store has %v", name, got, service, newest)
			}
		}
	}
	return nil
}

func simConfig(seeds int) sim.Config {
	return sim.Config{Nodes: []string{"server", "server2", "agent1", "agent2", "client"}, Seeds: seeds, Duration: 30 * time.Second, Faults: 10,
		Kinds: []sim.Kind{sim.Crash, sim.Cut, sim.Delay, sim.Duplicate, sim.Reorder}}
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	seeds := 200
	if testing.Short() {
		seeds = 20
	}
	if failure := sim.Explore(simConfig(sim.Seeds(seeds)), scenario("")); failure != nil {
		t.Fatal(failure)
	}
}

func TestSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"a revision is used twice", "reload keeps what is gone", "a removal leaves no revision"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			failure := sim.Explore(simConfig(100), scenario(bug))
			if failure == nil {
				t.Fatal("not found in 100 seeds")
			}
			t.Logf("found after %d seeds with %d faults: %v", failure.Runs, len(failure.Plan.Faults), failure.Err)
		})
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint(i))
		}
		return out
	}
	tests := []struct {
		name      string
		due, size int
		want      int
		held      string
	}{
		{"one of three", 1, 3, 1, ""},
		{"the last", 1, 1, 0, "last instance"},
		{"a tenth", 10, 100, 10, ""},
		{"most", 90, 100, 30, "30 of 100 instances expired"},
		{"a huge service", 500, 10000, 60, "within a minute"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := server.NewExpiry(60, 0.3)
			expire, held := e.Decide(now, "s", many(test.due), test.size)
			if len(expire) != test.want || len(held) != test.due-test.want {
				t.Errorf("%d expire, %d are held", len(expire), len(held))
			}
			for _, reason := range held {
				if !strings.Contains(reason, test.held) {
					t.Errorf("held because %q, want %q", reason, test.held)
				}
			}
		})
	}
}
