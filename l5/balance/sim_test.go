package balance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

const maxEjected = 0.5

// caller is one caller of six instances that crash and are cut off, with a registry that suspects who was down for 5 s.
type caller struct {
	w         *sim.World
	group     *balance.Group
	policy    balance.Policy
	picker    *balance.Picker
	loads     map[string]*balance.Load
	statuses  []balance.Status // after the last step
	nodes     []string
	strikes   map[string]int
	window    map[string]*balance.Sample
	downSince map[string]time.Time
	suspect   map[string]bool
	picked    int
}

func simulate(nodes []string, policy balance.Policy, plant string) sim.Scenario {
	return func(w *sim.World) func() error {
		c := &caller{
			w: w, policy: policy, loads: map[string]*balance.Load{}, group: balance.NewGroup(balance.Config{MaxEjected: maxEjected, EjectMax: 8 * time.Second}), nodes: nodes, strikes: map[string]int{},
			window: map[string]*balance.Sample{}, downSince: map[string]time.Time{}, suspect: map[string]bool{},
		}
		c.group.Plant(plant)
		for _, node := range nodes {
			c.loads[node] = new(balance.Load)
		}
		c.members()
		w.Every("", 40*time.Millisecond, c.call)
		w.Every("", 250*time.Millisecond, c.tick)
		w.Every("", 500*time.Millisecond, c.registry)
		return c.converged
	}
}

func (c *caller) step(e balance.Event) {
	reweighed := c.picker == nil
	for _, action := range c.group.Step(c.w.Now(), e) {
		switch a := action.(type) {
		case balance.Moved:
			c.strikes[a.Addr] = 0
			c.w.Trace("%s: %v -> %v: %s", a.Addr, a.From, a.To, a.Reason)
		case balance.Probe:
			c.probe(a.Addr)
		case balance.Reweighed:
			reweighed = true
		}
	}
	c.statuses = c.group.Statuses()
	if reweighed {
		c.rebuild()
	}
	c.bounded()
}

// rebuild makes a picker of the weights.
func (c *caller) rebuild() {
	candidates := make([]balance.Candidate, len(c.statuses))
	for i, s := range c.statuses {
		candidates[i] = balance.Candidate{Weight: s.Weight, Load: c.loads[s.Addr], Key: s.Key}
	}
	var turn uint64
	if c.picker != nil {
		turn = c.picker.Turn()
	}
	c.picker = balance.NewPicker(c.policy, candidates, turn)
}

// probe asks a node; no answer within a second is a failure.
func (c *caller) probe(addr string) {
	answered := false
	answer := func(ok bool) {
		if !answered {
			answered = true
			c.step(balance.Probed{Addr: addr, OK: ok})
		}
	}
	c.w.Send(addr, addr, func() { answer(true) })
	c.w.After("", time.Second, func() { answer(false) })
}

func (c *caller) members() {
	var members balance.Members
	for i, node := range c.nodes {
		members = append(members, balance.Member{Addr: node, Weight: float64(50 + 20*i), Gray: 1, Suspect: c.suspect[node]})
	}
	c.step(members)
}

func (c *caller) registry() {
	changed := false
	for _, node := range c.nodes {
		if c.w.Up(node) {
			delete(c.downSince, node)
		} else if _, known := c.downSince[node]; !known {
			c.downSince[node] = c.w.Now()
		}
		since, down := c.downSince[node]
		if suspect := down && c.w.Now().Sub(since) > 5*time.Second; suspect != c.suspect[node] {
			c.suspect[node], changed = suspect, true
		}
	}
	if changed {
		c.members()
	}
}

// call makes one call, and checks what was picked.
func (c *caller) call() {
	if c.picker.Len() == 0 {
		c.w.Fail(fmt.Errorf("nothing to pick from although there are weights"))
		return
	}
	c.picked++
	statuses := c.statuses
	i, _ := c.picker.Pick(c.w.Rand().Uint64(), c.w.Rand().Uint64())
	s := statuses[i]
	if s.Health == balance.Ejected || s.Health == balance.Probing {
		// I1: an instance that is down is picked only if the group says so, and one that all mark down only if all are.
		if c.group.Panic() == "" {
			c.w.Fail(fmt.Errorf("I1: picked %s, which is %v, and no word of panic", s.Addr, s.Health))
		}
		for _, other := range statuses {
			if c.suspect[s.Addr] && other.Health != balance.Ejected && other.Health != balance.Probing {
				c.w.Fail(fmt.Errorf("I1: picked %s, which this caller and the registry mark down, although %s is %v", s.Addr, other.Addr, other.Health))
			}
		}
	}
	sample := c.window[s.Addr]
	if sample == nil {
		sample = &balance.Sample{Addr: s.Addr}
		c.window[s.Addr] = sample
	}
	if c.w.Up(s.Addr) {
		sample.Successes++
		sample.LatencySum += 5 * time.Millisecond
		c.strikes[s.Addr] = 0
		return
	}
	sample.Failures++
	if c.strikes[s.Addr]++; c.strikes[s.Addr] == 2 || s.Health == balance.Trial {
		c.step(balance.Struck{Addr: s.Addr, Evidence: "refused"})
	}
}

func (c *caller) tick() {
	var window balance.Window
	for _, node := range c.nodes {
		if s := c.window[node]; s != nil {
			window = append(window, *s)
		}
	}
	clear(c.window)
	c.step(window)
}

// bounded checks what was taken away on this caller's own evidence.
func (c *caller) bounded() {
	// I2: ejected capacity never exceeds its share of the service.
	var taken, total float64
	for i, s := range c.statuses {
		base := float64(50 + 20*i)
		total += base
		if (s.Health == balance.Ejected || s.Health == balance.Probing) && !c.suspect[s.Addr] {
			taken += base - s.Weight
		}
	}
	if taken > maxEjected*total+1e-6 {
		c.w.Fail(fmt.Errorf("I2: %.0f of %.0f taken away, the bound is %.0f %%", taken, total, 100*maxEjected))
	}
}

// converged checks that in the end everyone who is up has its weight back.
func (c *caller) converged() error {
	for i, s := range c.statuses {
		if c.w.Up(s.Addr) && s.Weight != float64(50+20*i) {
			return fmt.Errorf("%s is up but has weight %v of %d: %s", s.Addr, s.Weight, 50+20*i, s.Reason)
		}
	}
	return nil
}

func simConfig() (sim.Config, []string) {
	nodes := strings.Fields("a b c d e f")
	return sim.Config{Nodes: nodes, Seeds: 200, Duration: 2 * time.Minute, Faults: 16, Kinds: []sim.Kind{sim.Crash, sim.Crash, sim.Crash, sim.Crash, sim.Cut, sim.Delay, sim.Duplicate}}, nodes
}

// policies are all there are.
var policies = []balance.Policy{
	balance.Adaptive, balance.HotCold, balance.RoundRobin, balance.WeightedRandom, balance.LeastRequest, balance.Maglev, balance.RingHash,
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			t.Parallel()
			config, nodes := simConfig()
			if testing.Short() || policy != balance.Adaptive {
				config.Seeds = 30
			}
			config.Seeds = sim.Seeds(config.Seeds)
			if failure := sim.Explore(config, simulate(nodes, policy, "")); failure != nil {
				t.Fatal(failure)
			}
		})
	}
}

func TestSimulationFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for bug, invariant := range map[string]string{"ejection is not bounded": "I2", "agreement is ignored": "I1", "panic is silent": "I1"} {
		for _, policy := range policies {
			t.Run(bug+"/"+policy.String(), func(t *testing.T) {
				t.Parallel()
				config, nodes := simConfig()
				config.Seeds = 100
				failure := sim.Explore(config, simulate(nodes, policy, bug))
				if failure == nil || !strings.Contains(failure.Err.Error(), invariant) {
					t.Fatalf("not found as a breach of %s in 100 seeds: %v", invariant, failure)
				}
				t.Logf("found after %d seeds with %d faults: %v", failure.Runs, len(failure.Plan.Faults), failure.Err)
			})
		}
	}
}
