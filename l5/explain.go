package l5

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// Explanation says what this process knows about a service and why each instance gets the share that it gets.
type Explanation struct {
	Service  string `json:"service"`
	Caller   string `json:"caller"`
	Known    bool   `json:"known"`            // there is a state to route by
	Source   Source `json:"source"`           // of the state
	Denied   string `json:"denied,omitempty"` // why the caller may not call; empty: it may
	Epoch    string `json:"epoch,omitempty"`  // of the name service's history
	Revision int64  `json:"revision"`         // of the state held
	// Age is how long ago the state was last known to be what the name service says; 0 while that answers.
	Age   time.Duration `json:"age_ns,omitempty"`
	Panic string        `json:"panic,omitempty"` // why instances that are down are in use; empty: none is
	// Where the caller is, as far as it is known.
	Device string `json:"device,omitempty"`
	Site   string `json:"site,omitempty"`
	City   string `json:"city,omitempty"`
	// Policy, Locality and Subset are in force: of the program, the service's rules, or the program's default.
	Policy   string        `json:"policy,omitempty"`
	Locality rule.Locality `json:"locality,omitzero"`
	Subset   int           `json:"subset,omitempty"` // 0: all
	// RulesRevision is that of the service's rules; 0: there are none. Route is the one that the calls explained match;
	// empty: none does. FellBack says that none of its destinations takes calls, and all instances are candidates.
	RulesRevision int64  `json:"rules_revision,omitempty"`
	Route         string `json:"route,omitempty"`
	FellBack      bool   `json:"fell_back,omitempty"`
	// Refused counts the calls that got no route, by reason: unknown, denied, no_instance, throttled,
	// at_limit, instance_full, too_late.
	Refused map[string]uint64 `json:"refused,omitempty"`
	// Guard is what keeps calls from leaving, and why.
	Guard     GuardExplanation      `json:"guard"`
	Instances []InstanceExplanation `json:"instances"`
}

// InstanceExplanation is one instance of an Explanation.
type InstanceExplanation struct {
	Instance
	Health    balance.Health `json:"health"`
	Since     time.Time      `json:"since,omitzero"` // it has this health
	Until     time.Time      `json:"until,omitzero"` // when an ejection's time is over
	Base      float64        `json:"base"`           // effective weight as registered
	Weight    float64        `json:"in_force"`       // in force here: Base by Factors
	Factors   []Factor       `json:"factors"`        // what made Weight, in order
	PickShare float64        `json:"pick_share"`     // of all draws, 0..1
	Distance  string         `json:"distance"`       // device, site, city or any
	Latency   time.Duration  `json:"latency_ns"`     // estimate; 0: none
	InFlight  int64          `json:"in_flight"`
	Successes uint64         `json:"successes"` // since the instance is known
	Failures  uint64         `json:"failures"`
	Rejected  uint64         `json:"rejected"`
	Reason    string         `json:"reason"`
	// History is how its health changed last, the oldest first.
	History []Event `json:"history,omitempty"`
}

// Factor is one of those that make an instance's weight: Value multiplies what the factors before it made.
type Factor struct {
	Name  string  `json:"name"` // weight, gray, state, capacity, start, latency, health, rule, locality, subset
	Value float64 `json:"value"`
	Why   string  `json:"why,omitempty"` // if it is not 1
}

// Explain says what is known about service, for calls with these labels. It does not subscribe: a service that was never
// routed is not Known.
func (c *Client) Explain(service string, labels ...Label) Explanation {
	out := Explanation{Service: service, Caller: c.config.Caller}
	place := c.caller().Place
	out.Device, out.Site, out.City = place.Device, place.Site, place.City
	s := (*c.services.Load())[service]
	if s == nil {
		return out
	}
	for reason, name := range refusalNames {
		if n := s.refused[reason].Load(); n > 0 {
			if out.Refused == nil {
				out.Refused = make(map[string]uint64)
			}
			out.Refused[name] = n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Known, out.Source, out.Age = s.picks.Load() != nil, s.source, s.age(c.config.now())
	out.Denied, out.Epoch, out.Revision, out.Panic = s.denied, s.view.Epoch, s.view.Revision, s.group.Panic()
	out.Guard = s.guard.explain()
	out.RulesRevision = s.guide.settings.GetRevision()
	if s.view.Service == "" {
		return out
	}
	statuses := s.group.Statuses()
	s.guide.compile(c, s.name, statuses, s.endpoints)
	settings := s.guide.table.Settings()
	out.Policy, out.Locality, out.Subset = s.guide.policy.String(), settings.Locality, settings.Subset
	class := s.guide.table.Class(labels)
	out.Route = s.guide.table.Name(class)
	layout, loads := &s.guide.layouts[class], s.loads(statuses)
	out.FellBack = layout.Weigh(loads).FellBack
	for i, f := range layout.Explain(loads) {
		out.Instances = append(out.Instances, s.explain(statuses[i], f, out.Route))
	}
	return out
}

// explain says what is known of one instance. Callers hold mu.
func (s *service) explain(status balance.Status, by rule.Factors, route string) InstanceExplanation {
	e := s.endpoints[status.Addr]
	e.collect()
	instance, total := *e.state.instance.Load(), &e.state.total
	out := InstanceExplanation{
		Instance: instance, Health: status.Health, Since: status.Since, Until: status.Until, Base: instance.EffectiveWeight(),
		Weight: status.Weight * by.Locality * by.Subset, PickShare: by.Share, Distance: by.Level.String(),
		Latency: status.Latency, InFlight: int64(e.load.InFlight()),
		Successes: uint64(total.successes), Failures: uint64(total.failures), Rejected: uint64(total.rejected),
		Factors: factors(instance, status, by, route), History: slices.Clone(e.state.history),
	}
	if by.Rule == 0 {
		out.Weight = 0
	}
	out.Reason = reason(status, out.Factors)
	return out
}

// factors says what made an instance's weight.
func factors(i Instance, status balance.Status, by rule.Factors, route string) []Factor {
	full := i.Weight
	if full == 0 {
		full = DefaultWeight
	}
	out := []Factor{{"weight", float64(full), ""}}
	add := func(name string, value float64, why string) {
		if value == 1 {
			why = ""
		}
		out = append(out, Factor{name, value, why})
	}
	add("gray", float64(i.Share)/100, fmt.Sprintf("share %d %%", i.Share))
	base := i.EffectiveWeight()
	switch {
	case i.Isolated != "":
		add("state", 0, "isolated: "+i.Isolated)
	case i.Down != "":
		add("state", 0, "down: "+i.Down)
	case i.State == StateDraining:
		add("state", 0, "draining")
	}
	if base <= 0 {
		return out
	}
	f := status.Factors
	add("capacity", f.Capacity, "as the instance reports")
	add("start", f.Start, "it starts slowly")
	add("latency", f.Latency, fmt.Sprintf("slower than its peers: %v", status.Latency.Round(time.Microsecond)))
	add("health", f.Health, status.Reason)
	if by.Rule == 0 {
		add("rule", 0, fmt.Sprintf("no destination of route %q includes it", route))
		return out
	}
	add("rule", by.Rule, fmt.Sprintf("its destinations get %.4g %% of the calls of route %q", 100*by.Rule, route))
	add("locality", by.Locality, "calls stay nearer while there is capacity: this is "+by.Level.String())
	if status.Weight > 0 && by.Locality > 0 {
		add("subset", by.Subset, "the subset of this process stands for all of its level")
	}
	return out
}

// reason says in a few words why an instance gets what it gets: the first factor that takes everything, or what health says.
func reason(status balance.Status, factors []Factor) string {
	var parts []string
	for _, f := range factors[1:] {
		if f.Value == 0 && f.Name != "health" {
			return f.Why + ": takes no calls"
		}
		if f.Value != 1 && slices.Contains([]string{"rule", "locality", "subset"}, f.Name) {
			parts = append(parts, fmt.Sprintf("%s x%.3g", f.Name, f.Value))
		}
	}
	if len(parts) == 0 {
		return status.Reason
	}
	return status.Reason + "; " + strings.Join(parts, ", ")
}

// Services returns the services that this process has routed calls to, in order.
func (c *Client) Services() []string { return slices.Sorted(maps.Keys(*c.services.Load())) }
