package limit_test

import (
	"math"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// The simulated service: four servers of four workers, 20 ms a call, so that 800 calls a second are all it can do.
// Nobody waits longer than half a second.
const (
	servers  = 4
	workers  = 4
	work     = 20 * time.Millisecond
	capacity = float64(servers*workers) / 0.020
	patience = 500 * time.Millisecond
	healthy  = 250 * time.Millisecond
	turnAway = 50 * time.Microsecond // of a worker's time, for a rejection
	tick     = 250 * time.Millisecond
)

// guards says which are on.
type guards struct {
	client, server bool
	retries        int    // after the first attempt
	budget         bool   // retries are paid for; without, all are made
	plant          string // a bug, by name
}

// fleet is the whole: clients, servers and what came of it.
type fleet struct {
	w       *sim.World
	guards  guards
	servers []*server
	clients []*client
	weather
	begin   time.Time
	good    []int         // calls that succeeded, by 100 ms of when they ended
	asked   []int         // by 100 ms
	wanted  [3]int        // during the overload, by priority
	served  [3]int        // of those
	seen    []limit.State // at weather.watch
	turned  int           // rejections by servers
	refused int           // by clients themselves
}

type call struct {
	client   *client
	server   *server
	priority limit.Priority
	begun    time.Time // of the attempt
	counts   bool      // the user's call began during the overload
	attempt  int
	over     bool
	answer   func()
}

type server struct {
	fleet   *fleet
	limiter *limit.Limiter // nil: takes everything
	busy    int
	queue   []*call
	debt    time.Duration
}

// client is one calling process, as l5 has it: a gate for the service and a limit for each instance.
type client struct {
	fleet   *fleet
	gate    *limit.Gate
	peers   []*peer
	stepped time.Time
}

type peer struct {
	server   *server
	inflight int
	adaptive *limit.Adaptive
	ceiling  int
	calls    limit.Calls
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// weather is what happens to a fleet.
type weather struct {
	clients int                            // how many; default 8
	rate    func(at time.Duration) float64 // of calls that users ask for, per second
	slow    func(at time.Duration) float64 // how many times longer a call takes; default 1
	down    func(at time.Duration) bool    // every call is rejected; default never
	lasts   time.Duration
	watch   []time.Duration // when the first caller's limit is looked at
}

func newFleet(w *sim.World, g guards, of weather) *fleet {
	if of.clients == 0 {
		of.clients = 8
	}
	if of.slow == nil {
		of.slow = constant(1)
	}
	if of.down == nil {
		of.down = func(time.Duration) bool { return false }
	}
	f := &fleet{w: w, guards: g, weather: of, begin: w.Now()}
	f.good = make([]int, of.lasts/(100*time.Millisecond)+1)
	f.asked = make([]int, len(f.good))
	for range servers {
		s := &server{fleet: f}
		if g.server {
			s.limiter = must(limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: healthy}}, w.Now()))
			limit.PlantLimiter(s.limiter, g.plant)
		}
		f.servers = append(f.servers, s)
	}
	for i := range of.clients {
		c := &client{fleet: f, stepped: w.Now()}
		config := limit.GateConfig{Throttle: limit.ThrottleConfig{Off: !g.client}}
		if g.client {
			config.Limit = limit.Config{Healthy: healthy}
		}
		c.gate = must(limit.NewGate(config))
		limit.PlantGate(c.gate, g.plant)
		for _, s := range f.servers {
			p := &peer{server: s, ceiling: math.MaxInt}
			if g.client {
				p.adaptive = must(limit.NewAdaptive(limit.Config{Healthy: healthy, Min: 1}))
				limit.PlantAdaptive(p.adaptive, g.plant)
			}
			c.peers = append(c.peers, p)
		}
		f.clients = append(f.clients, c)
		w.After("", tick*time.Duration(i)/time.Duration(of.clients), func() { w.Every("", tick, c.step) })
	}
	for _, at := range of.watch {
		w.After("", at, func() { f.seen = append(f.seen, f.clients[0].gate.State().Limit) })
	}
	f.arrive()
	return f
}

func (f *fleet) at() time.Duration { return f.w.Now().Sub(f.begin) }

func (f *fleet) bucket() int { return min(int(f.at()/(100*time.Millisecond)), len(f.good)-1) }

// arrive brings users' calls, as a Poisson process: they come whatever became of those before.
func (f *fleet) arrive() {
	gap := time.Duration(f.w.Rand().ExpFloat64() / max(f.rate(f.at()), 1) * float64(time.Second))
	f.w.After("", gap, func() {
		f.asked[f.bucket()]++
		counts := f.at() >= from && f.at() < to
		priority := limit.Normal
		switch n := f.w.Rand().IntN(100); {
		case n < 5:
			priority = limit.Critical
		case n < 30:
			priority = limit.Sheddable
		}
		if counts {
			f.wanted[priority]++
		}
		f.clients[f.w.Rand().IntN(len(f.clients))].call(&call{counts: counts, priority: priority})
		f.arrive()
	})
}

// call makes an attempt of c.
func (cl *client) call(c *call) {
	f := cl.fleet
	if cl.gate.EnterAs(c.priority, f.w.Rand().Uint32()) != limit.Admitted {
		f.refused++
		return
	}
	p := cl.pick(c.priority)
	if p == nil {
		cl.gate.Leave()
		cl.gate.Refuse(limit.InstanceFull)
		f.refused++
		return
	}
	p.inflight++
	try := &call{client: cl, server: p.server, priority: c.priority, begun: f.w.Now(), counts: c.counts, attempt: c.attempt}
	f.w.After("", patience, func() { cl.end(p, try, timedOut) })
	f.w.After("", 500*time.Microsecond, func() { p.server.take(p, try) })
}

// pick takes the emptier of two servers, unless both are full and the call can do without.
func (cl *client) pick(p limit.Priority) *peer {
	a, b := cl.peers[cl.fleet.w.Rand().IntN(servers)], cl.peers[cl.fleet.w.Rand().IntN(servers)]
	if b.inflight < a.inflight || a.inflight >= a.ceiling {
		a = b
	}
	if a.inflight >= a.ceiling {
		a.calls.Refused++
		if p == limit.Critical {
			return a
		}
		return nil
	}
	return a
}

type ending int

const (
	succeeded ending = iota
	timedOut
	rejected
)

// end tells the client how an attempt went, the first time it is called.
func (cl *client) end(p *peer, c *call, how ending) {
	if c.over {
		return
	}
	c.over = true
	f := cl.fleet
	p.inflight--
	cl.gate.Leave()
	if how != timedOut && p.server.limiter != nil {
		p.calls.Load = p.server.limiter.Load().Utilization
	}
	switch how {
	case succeeded:
		p.calls.Succeeded++
		p.calls.Latency += f.w.Now().Sub(c.begun)
		f.good[f.bucket()]++
		if c.counts {
			f.served[c.priority]++
		}
		return
	case timedOut:
		p.calls.TimedOut++
	case rejected:
		p.calls.Rejected++
		f.turned++
	}
	if c.attempt >= f.guards.retries || f.guards.budget && !cl.gate.Again(c.priority) {
		return
	}
	c.attempt++
	backoff := time.Duration(f.w.Rand().IntN(20)+10) * time.Millisecond
	f.w.After("", backoff, func() { cl.call(c) })
}

// step is a client's tick, as l5 does it.
func (cl *client) step() {
	now := cl.fleet.w.Now()
	span := now.Sub(cl.stepped)
	cl.stepped = now
	sum := limit.Calls{Span: span}
	loads := 0
	for _, p := range cl.peers {
		p.calls.Span = span
		sum.Succeeded += p.calls.Succeeded
		sum.Latency += p.calls.Latency
		sum.TimedOut += p.calls.TimedOut
		sum.Rejected += p.calls.Rejected
		if p.calls.Load > 0 {
			sum.Load += p.calls.Load
			loads++
		}
		if p.adaptive != nil {
			p.ceiling = p.adaptive.Step(p.calls).Limit
		}
		p.calls = limit.Calls{}
	}
	sum.Load /= float64(max(loads, 1))
	cl.gate.Step(sum)
}

// take is a call's arrival at a server.
func (s *server) take(p *peer, c *call) {
	f := s.fleet
	if f.down(f.at()) {
		f.w.After("", 500*time.Microsecond, func() { c.client.end(p, c, rejected) })
		return
	}
	if s.limiter != nil && !s.limiter.Enter(f.w.Now(), c.priority) {
		s.debt += turnAway
		f.w.After("", 500*time.Microsecond, func() { c.client.end(p, c, rejected) })
		return
	}
	arrived := f.w.Now()
	answer := func() {
		if s.limiter != nil {
			result := limit.Done
			if c.over {
				result = limit.Expired
			}
			s.limiter.Leave(f.w.Now(), f.w.Now().Sub(arrived), result)
		}
		f.w.After("", 500*time.Microsecond, func() { c.client.end(p, c, succeeded) })
	}
	s.queue = append(s.queue, c)
	c.answer = answer
	s.start()
}

// start gives free workers calls. It works on what nobody waits for any more, too: a server cannot know, unless a
// guard brings the deadline along.
func (s *server) start() {
	f := s.fleet
	for s.busy < workers && len(s.queue) > 0 {
		c := s.queue[0]
		s.queue = s.queue[1:]
		if s.limiter != nil && c.over {
			c.answer() // the deadline came along
			continue
		}
		s.busy++
		took := time.Duration((0.5 + 0.5*f.w.Rand().ExpFloat64()) * f.slow(f.at()) * float64(work))
		took += s.debt
		s.debt = 0
		f.w.After("", took, func() {
			s.busy--
			c.answer()
			s.start()
		})
	}
}
