package l5

import (
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// Explanation says what this process knows about a service and why each instance gets the share that it gets.
type Explanation struct {
	Service  string
	Caller   string
	Known    bool   // there is a state to route by
	Source   Source // of the state
	Denied   string // why the caller may not call; empty: it may
	Epoch    string // of the name service's history
	Revision int64  // of the state held
	// Age is how long ago the state was last known to be what the name service says; 0 while that answers.
	Age       time.Duration
	Panic     string // why instances that are down are in use; empty: none is
	Guard     GuardExplanation
	Instances []InstanceExplanation
}

// InstanceExplanation is one instance of an Explanation.
type InstanceExplanation struct {
	Instance
	Health    balance.Health
	Until     time.Time // when an ejection's time is over
	Base      float64   // effective weight as registered
	Weight    float64   // in force here: the product of Factors
	Factors   balance.Factors
	PickShare float64       // of all draws, 0..1
	Latency   time.Duration // estimate; 0: none
	InFlight  int64
	Successes uint64 // since the instance is known
	Failures  uint64
	Rejected  uint64
	Reason    string
}

// Explain says what is known about service. It does not subscribe: a service that was never routed is not Known.
func (c *Client) Explain(service string) Explanation {
	out := Explanation{Service: service, Caller: c.config.Caller}
	s := (*c.services.Load())[service]
	if s == nil {
		return out
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Known, out.Source, out.Age = s.picks.Load() != nil, s.source, s.age(time.Now())
	out.Denied, out.Epoch, out.Revision, out.Panic = s.denied, s.view.Epoch, s.view.Revision, s.group.Panic()
	out.Guard = s.guard.explain()
	for _, status := range s.group.Statuses() {
		e := s.endpoints[status.Addr]
		instance := *e.state.instance.Load()
		e.collect()
		total := &e.state.total
		out.Instances = append(out.Instances, InstanceExplanation{
			Instance: instance, Health: status.Health, Until: status.Until, Base: instance.EffectiveWeight(), Weight: status.Weight, Factors: status.Factors,
			PickShare: status.Share, Latency: status.Latency, InFlight: int64(e.load.InFlight()),
			Successes: uint64(total.successes), Failures: uint64(total.failures), Rejected: uint64(total.rejected), Reason: status.Reason,
		})
	}
	return out
}
