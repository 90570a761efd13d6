package server

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// Explanation is what the server knows about a service.
type Explanation struct {
	Service     string           `json:"service"`
	Epoch       string           `json:"epoch"`       // of the store's history
	Revision    int64            `json:"revision"`    // of the last commit that changed the service
	Subscribers int              `json:"subscribers"` // open streams that watch it
	Instances   []InstanceStatus `json:"instances"`
	// Rules are the service's document of rules, and RulesRevision the commit that wrote it; 0: there are none.
	Rules         json.RawMessage `json:"rules,omitempty"`
	RulesRevision int64           `json:"rules_revision,omitempty"`
	// Caller is whom ExplainFor explains for, Grant whether it may call, and Route which route of the rules its calls match.
	Caller string `json:"caller,omitempty"`
	Grant  string `json:"grant,omitempty"`
	Route  string `json:"route,omitempty"`
}

// RuleShare is what the rules make of an instance for one caller.
type RuleShare struct {
	Distance string  `json:"distance"` // device, site, city or any
	Rule     float64 `json:"rule"`     // the part of the calls that goes to destinations that include it
	Locality float64 `json:"locality"` // what the level's share multiplies its weight by
	Calls    float64 `json:"calls"`    // of the caller's calls, 0..1, while all are healthy; a subset is not known here
}

// ExplainFor is Explain for calls of one caller with these labels: what the service's rules say about them. What the
// caller's own program says, its subset, and what it knows of health are its own to tell.
func (s *Server) ExplainFor(service string, caller rule.Caller, labels ...rule.Label) Explanation {
	out := s.Explain(service)
	out.Caller, out.Grant = caller.Module, "may call"
	if allowed, why := (&gate{server: s}).granted(caller.Module, service); !allowed {
		out.Grant = why
	}
	if s.config.Place != nil && caller.Device != "" && caller.Site == "" && caller.City == "" {
		caller.Site, caller.City = s.config.Place(caller.Device)
	}
	rules, _ := rule.Read(out.Rules)
	settings := rules.Settings
	settings.Subset = 0
	table := rule.Compile(rules, caller, settings)
	class := table.Class(labels)
	out.Route = table.Name(class)
	members, loads := make([]rule.Member, len(out.Instances)), make([]rule.Load, len(out.Instances))
	for i, status := range out.Instances {
		members[i] = rule.Member{
			Addr: status.Addr, Module: status.Module, Labels: status.Labels,
			Place: rule.Place{Device: status.Device, Site: status.Site, City: status.City},
		}
		loads[i] = rule.Load{Full: status.EffectiveWeight, InForce: status.EffectiveWeight}
	}
	layout := table.Layout(class, members)
	for i, f := range layout.Explain(loads) {
		out.Instances[i].ByRules = &RuleShare{Distance: f.Level.String(), Rule: f.Rule, Locality: f.Locality, Calls: f.Share}
	}
	return out
}

// InstanceStatus is an instance with the weight that it gets and why.
type InstanceStatus struct {
	l5.Instance
	EffectiveWeight float64 `json:"effective_weight"`
	Live            bool    `json:"live"`     // its owner's stream is open, or it has no owner
	Revision        int64   `json:"revision"` // of the commit that last wrote it
	Reason          string  `json:"reason"`   // of the weight
	// ByRules is set by ExplainFor.
	ByRules *RuleShare `json:"by_rules,omitempty"`
}

// Instances returns a service's instances by address; none for a service that has none.
func (s *Server) Instances(service string) []InstanceStatus {
	rows := s.registry.list(service)
	out := make([]InstanceStatus, len(rows))
	for i, r := range rows {
		live, held := s.leases.status(r.Owner, id{r.Service, r.Addr})
		if !r.kept.IsZero() {
			held = "held: it vanished from the store at " + r.kept.UTC().Format(time.RFC3339) + " and nobody removed it"
		}
		out[i] = InstanceStatus{
			Instance: r.Instance, EffectiveWeight: r.EffectiveWeight(), Live: live, Revision: r.revision, Reason: reason(r.Instance, live, held),
		}
	}
	return out
}

// Explain says why each instance of a service gets the weight that it gets.
func (s *Server) Explain(service string) Explanation {
	out := Explanation{Service: service, Subscribers: s.hub.Subscribers(service), Instances: s.Instances(service)}
	out.Epoch, out.Revision = s.registry.State(service)
	out.Rules, out.RulesRevision = s.Rules(service)
	return out
}

func reason(i l5.Instance, live bool, held string) string {
	out := fmt.Sprintf("weight %d x share %d %%", i.Weight, i.Share)
	switch {
	case i.Isolated != "":
		out = "isolated: " + i.Isolated
	case i.Down != "":
		out = "down, says its owner: " + i.Down
	case i.State == l5.StateDraining:
		out = "draining: takes no new calls"
	case i.Share == 0:
		out = fmt.Sprintf("share 0 %% of weight %d: takes no calls", i.Weight)
	}
	switch {
	case held != "" && live:
		return out + "; " + held
	case held != "":
		return out + "; the stream of its owner " + i.Owner + " is lost; " + held
	case !live:
		return out + "; the stream of its owner " + i.Owner + " is lost, the grace period runs"
	}
	return out
}
