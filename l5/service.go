package l5

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// service is one service in use: the shell around its balance.Group.
type service struct {
	client     *Client
	name       string
	number     int                   // how many services there were before it
	picks      atomic.Pointer[picks] // nil until something is known
	overloaded error                 // made once: refusing must be cheap
	guard      *guard
	refused    [refusals]atomic.Uint64

	mu        sync.Mutex
	changed   chan struct{}         // guarded by mu; closed and replaced when picks is set
	view      view.View             // guarded by mu
	source    Source                // guarded by mu; of view and denied
	confirmed time.Time             // guarded by mu; SourceTable: when the table was known to be right
	denied    string                // guarded by mu; the reason, if the caller may not call
	group     *balance.Group        // guarded by mu
	guide     guide                 // guarded by mu
	endpoints map[string]*endpoint  // guarded by mu; by address
	downs     map[string]string     // guarded by mu; what the device's agent says is down, and why
	departed  []*endpoint           // guarded by mu; gone, with counts that are not reported yet
	told      time.Time             // guarded by mu; when the last outcome was reported
	total     counted               // guarded by mu; of all instances there ever were
	histogram [latencyBuckets]int64 // guarded by mu; of total
	looked    int64                 // guarded by mu; how many calls had ended at the last look for those that wait
	patience  time.Duration         // guarded by mu; for calls in flight, by what the device's agent knows; 0: too little
}

func newService(c *Client, name string) *service {
	s := &service{
		client: c, name: name, changed: make(chan struct{}), endpoints: make(map[string]*endpoint),
		group: balance.NewGroup(c.config.Balance), guard: newGuard(&c.config),
	}
	s.overloaded = s.err(ErrOverloaded, "the instances chosen carry as many calls as their limit, or Config.MaxInFlight, allows")
	return s
}

func (s *service) err(err error, reason string) error {
	return &RouteError{Caller: s.client.config.Caller, Service: s.name, Reason: reason, Err: err}
}

// update takes a new state from the name service.
func (s *service) update(v view.View, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source = SourceStream
	s.set(v, now)
}

// set puts a state into use. Callers hold mu.
func (s *service) set(v view.View, now time.Time) {
	s.view = v
	s.refresh(now)
}

// refresh takes what is known of the instances to the core. Callers hold mu.
func (s *service) refresh(now time.Time) {
	v := s.view
	members := make(balance.Members, 0, len(v.Instances))
	var packed []balance.Load // for those that are new
	next := make(map[string]*endpoint, len(v.Instances))
	for _, p := range v.Instances {
		instance := InstanceFromProto(p)
		instance.Service = s.name
		if why := s.guide.rules.Isolate[instance.Addr]; why != "" {
			instance.Isolated = why // said by the rules before the registry has it
		}
		if err := instance.checkKnown(); err != nil {
			s.client.config.Logger.Warn("l5: an instance is left out", "service", s.name, "error", err)
			continue
		}
		e := s.endpoints[instance.Addr]
		if e == nil {
			e = newEndpoint(s, instance.Addr)
			if len(v.Instances) >= packFrom {
				if len(packed) == 0 {
					packed = make([]balance.Load, max(1, len(v.Instances)-len(s.endpoints)))
				}
				e.load, packed = &packed[0], packed[1:]
			}
		}
		e.state.instance.Store(&instance)
		next[instance.Addr] = e
		members = append(members, instance.member())
	}
	for addr, e := range s.endpoints {
		if next[addr] == nil {
			s.departed = append(s.departed, e)
		}
	}
	s.endpoints = next
	s.guide.layouts = nil
	s.step(now, members)
	s.advised(now)
	s.rebuild()
}

// verdict takes the name service's decision whether this caller may call.
func (s *service) verdict(verdict *l5pb.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source = SourceStream // it answers: what is held is what it says, or is about to be replaced
	switch {
	case verdict.GetAllowed():
		if s.denied == "" {
			return
		}
		s.denied = ""
		if s.view.Service == "" {
			s.picks.Store(nil) // wait for the first state
			return
		}
	default:
		s.denied = verdict.GetReason()
		if s.denied == "" {
			s.denied = "no grant"
		}
	}
	s.rebuild()
}

// step runs the core and does what it asks for. Callers hold mu.
func (s *service) step(now time.Time, event balance.Event) {
	for _, action := range s.group.Step(now, event) {
		switch a := action.(type) {
		case balance.Probe:
			s.client.probe(s, a.Addr)
		case balance.Moved:
			event := Event{At: now, Service: s.name, Addr: a.Addr, From: a.From, To: a.To, Reason: a.Reason}
			s.client.moved(event)
			if e := s.endpoints[a.Addr]; e != nil {
				if len(e.state.history) == keepHistory {
					e.state.history = append(e.state.history[:0:0], e.state.history[1:]...)
				}
				e.state.history = append(e.state.history, event)
				e.load.Forgive()
			}
		case balance.Reweighed:
			s.rebuild()
		}
	}
}

// keepHistory is how many changes of health are kept of each instance.
const keepHistory = 8

// rebuild makes the snapshot that callers pick from. Callers hold mu.
func (s *service) rebuild() {
	if s.denied == "" && s.view.Service == "" {
		return // nothing is known: callers wait
	}
	before := s.picks.Load()
	var p *picks
	if s.denied != "" {
		p = s.newPicks()
		p.err = s.err(ErrDenied, s.denied)
	} else {
		statuses := s.group.Statuses()
		for _, status := range statuses {
			e := s.endpoints[status.Addr]
			limit := s.client.config.strikeLimit()
			if status.Health == balance.Trial || e.state.instance.Load().Suspect {
				limit = 1 // one failure is enough for one that is doubted already
			}
			e.limit.Store(limit)
		}
		p = s.choose(statuses, before)
	}
	s.picks.Store(p)
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns what to pick from as soon as something is known.
func (s *service) wait(ctx context.Context) (*picks, error) {
	for {
		s.mu.Lock()
		p, changed := s.picks.Load(), s.changed
		s.mu.Unlock()
		if p != nil {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// struck takes an instance's failures in a row to the core.
func (s *service) struck(e *endpoint, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints[e.addr] == e {
		s.step(s.client.config.now(), balance.Struck{Addr: e.addr, Evidence: fmt.Sprintf("failures in a row, the last: %v", err)})
	}
}

// probed takes a probe's answer to the core.
func (s *service) probed(addr string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(s.client.config.now(), balance.Probed{Addr: addr, OK: err == nil})
}

// tick takes what was counted since the last tick to the core.
func (s *service) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var window balance.Window
	for addr, e := range s.endpoints {
		e.collect()
		e.load.Age(e.state.window.successes > 0, s.group.Typical())
		inFlight := int64(e.load.InFlight())
		if e.state.window == (counted{}) && inFlight <= 0 {
			continue
		}
		d := take(&e.state.window)
		window = append(window, balance.Sample{Addr: addr, Successes: d.successes, Failures: d.failures, LatencySum: d.latencySum, InFlight: inFlight})
	}
	s.stepGuard(now)
	if len(window) > 0 {
		s.step(now, window)
		return
	}
	s.step(now, balance.Tick{})
}

// outcomes returns what was counted since the last call, and moves on.
func (s *service) outcomes(now time.Time) []*l5pb.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*l5pb.Outcome
	for _, e := range s.endpoints {
		if o := s.outcome(e, e.state.instance.Load().EffectiveWeight() == 0); o != nil {
			out = append(out, o)
		}
	}
	busy := s.departed[:0]
	for _, e := range s.departed {
		if o := s.outcome(e, true); o != nil {
			out = append(out, o)
		}
		if e.load.InFlight() > 0 {
			busy = append(busy, e)
		}
	}
	clear(s.departed[len(busy):])
	s.departed = busy
	if len(out) > 0 {
		s.told = now
		return out
	}
	if now.Sub(s.told) < restEvery {
		return nil
	}
	for addr, e := range s.endpoints {
		s.told = now
		return append(out, &l5pb.Outcome{Caller: s.client.config.Caller, Service: s.name, Addr: addr, Device: e.state.instance.Load().Device})
	}
	return nil
}

// restEvery is how often a caller that makes no calls says so: whoever decides by load must tell rest from silence.
const restEvery = 5 * time.Second

// outcome returns what was counted for one endpoint since the last report, and, of one that takes no more calls, how many have not ended: whoever is
// to stop it waits for them. Callers hold mu.
func (s *service) outcome(e *endpoint, leaving bool) *l5pb.Outcome {
	e.collect()
	inFlight := int64(0)
	if leaving {
		inFlight = int64(max(0, e.load.InFlight()))
	}
	if e.state.report == (counted{}) && inFlight == 0 {
		return nil
	}
	d := take(&e.state.report)
	histogram := e.state.histogram
	e.state.histogram = [latencyBuckets]int64{}
	o := &l5pb.Outcome{
		Caller: s.client.config.Caller, Service: s.name, Addr: e.addr, Device: e.state.instance.Load().Device,
		Requests: d.successes + d.failures + d.rejected, Failures: d.failures, Rejected: d.rejected,
		LatencySum: int64(d.latencySum), Histogram: histogram[:], Reports: 1, InFlight: inFlight,
	}
	return o
}

// probe asks whether an instance can be reached, in a goroutine that Run waits for.
func (c *Client) probe(s *service, addr string) {
	c.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, c.config.ProbeTimeout)
		defer cancel()
		s.probed(addr, c.config.Probe(ctx, addr))
	})
}
