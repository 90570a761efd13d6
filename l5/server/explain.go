package server

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
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
}

// InstanceStatus is an instance with the weight that it gets and why.
type InstanceStatus struct {
	l5.Instance
	EffectiveWeight float64 `json:"effective_weight"`
	Live            bool    `json:"live"`     // its owner's stream is open, or it has no owner
	Revision        int64   `json:"revision"` // of the commit that last wrote it
	Reason          string  `json:"reason"`   // of the weight
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
