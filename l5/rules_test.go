package l5_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// versions registers n instances of v1 at ports from 1 and as many of v2 at ports from 101, on alternating sites.
func versions(t testing.TB, s *l5test.Server, n int) {
	t.Helper()
	all := instances("a", n, 100)
	for i := range all {
		all[i].Labels, all[i].Site = map[string]string{"version": "v1"}, []string{"sz-1", "sz-2"}[i%2]
		next := all[i]
		next.Addr = strings.Replace(next.Addr, ":", ":10", 1)
		next.Labels = map[string]string{"version": "v2"}
		all = append(all, next)
	}
	if err := s.Name().Register(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

func rules(t testing.TB, s *l5test.Server, document string) {
	t.Helper()
	if _, err := s.Name().SetRules(t.Context(), "a", []byte(document), server.AnyRevision); err != nil {
		t.Fatal(err)
	}
}

// parts routes n times and returns which part of the routes led to instances that have a label, or are at a site.
func parts(t testing.TB, c *l5.Client, n int, request l5.Request, is func(l5.Instance) bool) float64 {
	t.Helper()
	var got int
	for range n {
		r, err := c.RouteFor(t.Context(), "a", request)
		if err != nil {
			t.Fatal(err)
		}
		if is(r.Instance()) {
			got++
		}
		r.Done(l5.Outcome{Latency: time.Millisecond})
	}
	return float64(got) / float64(n)
}

func v2(i l5.Instance) bool { return i.Labels["version"] == "v2" }

// await waits until a condition holds.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	l5test.Await(t, what, ok)
}

const canary = `{"routes": [
	{"name": "testers", "match": {"labels": {"user": ["tester"]}}, "to": [{"select": {"version": "v2"}}], "fallback": "fail"},
	{"name": "canary", "to": [{"select": {"version": "v2"}, "weight": 5}, {"select": {"version": "v1"}, "weight": 95}]}]}`

func TestCanary(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	versions(t, s, 4)
	rules(t, s, canary)
	c := l5test.Client(t, s.Target(), nil)
	tester := l5.Request{Labels: []l5.Label{{Key: "user", Value: "tester"}}}
	if got := parts(t, c, 20_000, l5.Request{}, v2); math.Abs(got-0.05) > 0.01 { // six deviations
		t.Errorf("v2 gets %.3f of the calls, want 0.05", got)
	}
	if got := parts(t, c, 100, tester, v2); got != 1 {
		t.Errorf("v2 gets %.2f of the testers' calls", got)
	}
	// Half of the calls, from the next push on.
	rules(t, s, strings.Replace(strings.Replace(canary, "95", "5", 1), `["tester"]`, `["nobody"]`, 1))
	await(t, "the new rules", func() bool { return parts(t, c, 20, tester, v2) < 1 })
	if got := parts(t, c, 10_000, l5.Request{}, v2); math.Abs(got-0.5) > 0.03 {
		t.Errorf("v2 gets %.3f of the calls, want 0.5", got)
	}
}

// A destination that is down leaves its part to the others; a route that says so fails instead.
func TestFallback(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	versions(t, s, 2)
	rules(t, s, canary)
	c := l5test.Client(t, s.Target(), nil)
	tester := l5.Request{Labels: []l5.Label{{Key: "user", Value: "tester"}}}
	parts(t, c, 1, tester, v2)
	if err := s.Name().SetShare(t.Context(), "a", map[string]int{"127.0.0.1:101": 0, "127.0.0.1:102": 0}); err != nil {
		t.Fatal(err)
	}
	await(t, "the shares", func() bool {
		_, err := c.RouteFor(t.Context(), "a", tester)
		return errors.Is(err, l5.ErrNoInstance) && strings.Contains(err.Error(), `route "testers"`)
	})
	if got := parts(t, c, 1000, l5.Request{}, v2); got != 0 {
		t.Errorf("v2 gets %.3f of the calls", got)
	}
}

// Retries and hedges go elsewhere while there is elsewhere.
func TestAvoid(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.MaxInFlight = 1000 })
	for range 200 {
		var tried []l5.Route
		seen := make(map[string]bool)
		for range 3 {
			r, err := c.RouteFor(within(t), "a", l5.Request{Avoid: tried})
			if err != nil {
				t.Fatal(err)
			}
			tried = append(tried, r)
			seen[r.Addr()] = true
		}
		if len(seen) != 3 {
			t.Fatalf("three tries went to %v", seen)
		}
		again, err := c.RouteFor(within(t), "a", l5.Request{Avoid: tried})
		if err != nil || !seen[again.Addr()] {
			t.Fatalf("with all of them tried: %q, %v", again.Addr(), err)
		}
		for _, r := range append(tried, again) {
			r.Done(l5.Outcome{})
		}
	}
	for _, i := range c.Explain("a").Instances {
		if i.InFlight != 0 {
			t.Errorf("%s has %d calls in flight", i.Addr, i.InFlight)
		}
	}
}

// A key stays at its instance under a policy of the service's own, also across a split.
func TestHash(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	versions(t, s, 10)
	rules(t, s, strings.Replace(canary, "{", `{"policy": "maglev", `, 1))
	c := l5test.Client(t, s.Target(), nil)
	keys, plain := make(map[string]bool), make(map[string]bool)
	for key := range 200 {
		request := l5.Request{Hash: l5.Hash(strings.Repeat("k", key))}
		first, err := c.RouteFor(within(t), "a", request)
		if err != nil {
			t.Fatal(err)
		}
		first.Done(l5.Outcome{})
		second, err := c.RouteFor(within(t), "a", request)
		if err != nil || second.Addr() != first.Addr() {
			t.Errorf("key %d went to %s, then to %s: %v", key, first.Addr(), second.Addr(), err)
		}
		second.Done(l5.Outcome{})
		keys[first.Addr()] = true
		plain[route(t, c, "a")] = true
	}
	if len(keys) < 8 || len(plain) < 8 {
		t.Errorf("200 keys went to %d instances, calls without a key to %d", len(keys), len(plain))
	}
}

// Who says what first: the program about the service, the service's rules, the program in general.
func TestSettingsHaveAnOrder(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	versions(t, s, 10)
	at := func(site string) func(l5.Instance) bool { return func(i l5.Instance) bool { return i.Site == site } }
	edit := func(prefer string) func(*l5.Config) {
		return func(c *l5.Config) {
			c.Site, c.Locality.Prefer = "sz-1", "site"
			if prefer != "" {
				c.Services = map[string]rule.Settings{"a": {Locality: rule.Locality{Prefer: prefer}}}
			}
		}
	}
	general, particular := l5test.Client(t, s.Target(), edit("")), l5test.Client(t, s.Target(), edit("site"))
	if got := parts(t, general, 500, l5.Request{}, at("sz-1")); got != 1 {
		t.Errorf("the program says site: %.2f are near", got)
	}
	rules(t, s, `{"locality": {"prefer": "any"}}`)
	await(t, "the rules", func() bool { return parts(t, general, 100, l5.Request{}, at("sz-1")) < 0.9 })
	if got := parts(t, particular, 500, l5.Request{}, at("sz-1")); got != 1 {
		t.Errorf("the program says site of this service, the rules any: %.2f are near", got)
	}
}

// The agent tells its programs where they are, and keeps rules for when no server answers.
func TestAgentPassesRulesOn(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) { c.Place = func(device string) (string, string) { return "sz-1", "sz" } })
	versions(t, s, 10)
	rules(t, s, `{"locality": {"prefer": "site"}, "routes": [{"name": "v2-only", "match": {"sites": ["sz-1"]}, "to": [{"select": {"version": "v2"}}]}]}`)
	var config agent.Config
	a, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	near := func(i l5.Instance) bool { return v2(i) && i.Site == "sz-1" }
	c := l5test.Client(t, a.Target(), nil)
	await(t, "place and rules", func() bool { return parts(t, c, 100, l5.Request{}, near) == 1 })
	stop()
	s.Kill()
	again, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { *c = config })
	later := l5test.Client(t, again.Target(), nil)
	if got := parts(t, later, 100, l5.Request{}, near); got != 1 {
		t.Errorf("with server and agent gone: %.2f of the calls go where the rules say", got)
	}
}

// What the rules isolate takes no calls, whoever is asked.
func TestIsolatedTakesNoCalls(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 2, 100)); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), nil)
	route(t, c, "a")
	if err := s.Name().Isolate(within(t), "a", "127.0.0.1:1", "heap dump"); err != nil {
		t.Fatal(err)
	}
	first := func(i l5.Instance) bool { return i.Addr == "127.0.0.1:1" }
	await(t, "the isolation", func() bool { return parts(t, c, 50, l5.Request{}, first) == 0 })
	if got := c.Explain("a").Instances[0]; got.Isolated != "heap dump" || !strings.Contains(got.Reason, "isolated: heap dump") {
		t.Errorf("explained as %+v", got)
	}
}

// TestRouteForAllocates holds the hot path of calls that say something about themselves to no allocation.
func TestRouteForAllocates(t *testing.T) {
	s := l5test.NewServer(t, nil)
	versions(t, s, 10)
	rules(t, s, canary)
	client := l5test.Client(t, s.Target(), func(c *l5.Config) { c.ReportEvery, c.TickEvery = time.Hour, time.Hour })
	ctx := t.Context()
	if _, err := client.Route(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	user := "tester"
	if allocs := testing.AllocsPerRun(1000, func() {
		first, _ := client.RouteFor(ctx, "a", l5.Request{Hash: 17, Labels: []l5.Label{{Key: "user", Value: user}}})
		second, _ := client.RouteFor(ctx, "a", l5.Request{Avoid: []l5.Route{first}})
		first.Done(l5.Outcome{Latency: time.Millisecond})
		second.Done(l5.Outcome{Latency: time.Millisecond})
	}); allocs != 0 {
		t.Errorf("RouteFor and Done allocate %v times", allocs)
	}
}

// BenchmarkRouteForDone is a call with a hash and a label under rules that split it. Budget: 0 allocations.
func BenchmarkRouteForDone(b *testing.B) {
	s := l5test.NewServer(b, nil)
	versions(b, s, 100)
	rules(b, s, canary)
	client := l5test.Client(b, s.Target(), nil)
	ctx := b.Context()
	if _, err := client.Route(ctx, "a"); err != nil {
		b.Fatal(err)
	}
	for name, request := range map[string]l5.Request{
		"plain": {}, "hash": {Hash: 17}, "label": {Labels: []l5.Label{{Key: "user", Value: "tester"}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				route, err := client.RouteFor(ctx, "a", request)
				if err != nil {
					b.Fatal(err)
				}
				route.Done(l5.Outcome{Latency: time.Millisecond})
			}
		})
	}
}

// Being isolated and draining at once survives the wire; peers of before see an instance that drains.
func TestIsolationOnTheWire(t *testing.T) {
	t.Parallel()
	for _, state := range []l5.State{l5.StateUp, l5.StateDraining} {
		for _, why := range []string{"", "heap dump"} {
			wire := l5.Instance{Service: "a", Addr: "127.0.0.1:1", State: state, Isolated: why}.Proto()
			if got := l5.InstanceFromProto(wire); got.State != state || got.Isolated != why {
				t.Errorf("%v %q came back as %v %q", state, why, got.State, got.Isolated)
			}
			if drains := wire.GetState() == l5pb.State_STATE_DRAINING; drains != (state == l5.StateDraining || why != "") {
				t.Errorf("%v %q: peers of before see %v", state, why, wire.GetState())
			}
		}
	}
}
