package l5

import (
	"fmt"
	"slices"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// classes are the picks of a service by class of call. It is immutable.
type classes struct {
	table *rule.Table
	picks []*picks // by class
}

// guide is what a service's rules make of its instances. It belongs to the service's lock.
type guide struct {
	settings *l5pb.Settings // as pushed; nil: none
	rules    rule.Rules
	table    *rule.Table // for this caller; nil: to be compiled
	policy   balance.Policy
	layouts  []rule.Layout // by class; nil: to be made
}

// compile brings the guide up to rules, caller and instances.
func (g *guide) compile(c *Client, service string, statuses []balance.Status, endpoints map[string]*endpoint) {
	if g.table == nil {
		settings := c.config.Services[service].Over(g.rules.Settings).Over(rule.Settings{Locality: c.config.Locality, Subset: c.config.Subset})
		g.table = rule.Compile(g.rules, c.caller(), settings)
		g.policy = c.config.Policy
		if settings.Policy != "" {
			if err := g.policy.UnmarshalText([]byte(settings.Policy)); err != nil {
				c.config.Logger.Warn("l5: the service's policy is not known here; the client's is used", "service", service, "policy", settings.Policy)
				g.policy = c.config.Policy
			}
		}
	}
	if g.layouts != nil {
		return
	}
	members := make([]rule.Member, len(statuses))
	for i, status := range statuses {
		instance := endpoints[status.Addr].state.instance.Load()
		members[i] = rule.Member{
			Addr: instance.Addr, Module: instance.Module, Labels: instance.Labels,
			Place: rule.Place{Device: instance.Device, Site: instance.Site, City: instance.City},
		}
	}
	for class := range g.table.Classes() {
		g.layouts = append(g.layouts, g.table.Layout(class, members))
	}
}

// caller is who calls, as far as it is known.
func (c *Client) caller() rule.Caller {
	place := rule.Place{Device: c.config.Device, Site: c.config.Site, City: c.config.City}
	if told := c.place.Load(); told != nil && (place.Device == "" || place.Device == told.Device) {
		if place.Device = told.Device; place.Site == "" && place.City == "" {
			place = *told
		}
	}
	return rule.Caller{Module: c.config.Caller, Place: place, Labels: c.config.Labels, Seed: balance.Hash(c.id)}
}

// settings takes what the service's operator says.
func (s *service) settings(settings *l5pb.Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instruct(settings)
	s.refresh(s.client.config.now())
}

// instruct puts settings into use with the next refresh. Callers hold mu.
func (s *service) instruct(settings *l5pb.Settings) {
	rules, faults := rule.Read(settings.GetDocument())
	s.client.config.Logger.Info("l5: rules", "service", s.name, "revision", settings.GetRevision(), "routes", len(rules.Routes), "isolated", len(rules.Isolate))
	for _, fault := range faults {
		s.client.config.Logger.Warn("l5: a part of the rules is left out", "service", s.name, "revision", settings.GetRevision(), "error", fault)
	}
	s.guide = guide{settings: settings, rules: rules}
}

// relocate takes a change of where the caller is.
func (s *service) relocate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guide.table, s.guide.layouts = nil, nil
	s.rebuild()
}

// choose makes the picks of all classes from the state of health, and returns those of plain calls. Callers hold mu.
func (s *service) choose(statuses []balance.Status, before *picks) *picks {
	s.guide.compile(s.client, s.name, statuses, s.endpoints)
	loads := s.loads(statuses)
	all := &classes{table: s.guide.table, picks: make([]*picks, s.guide.table.Classes())}
	for class := range all.picks {
		var old *picks
		if before != nil && before.classes != nil && before.classes.table == all.table {
			old = before.classes.picks[class]
		}
		all.picks[class] = s.class(class, statuses, loads, old)
	}
	if len(all.picks) > 1 {
		for _, p := range all.picks {
			p.classes = all
		}
	}
	plain := all.picks[all.table.Plain()]
	plain.classes = all
	return plain
}

// loads says what each instance can carry. Callers hold mu.
func (s *service) loads(statuses []balance.Status) []rule.Load {
	out := make([]rule.Load, len(statuses))
	for i, status := range statuses {
		out[i] = rule.Load{Full: s.endpoints[status.Addr].state.instance.Load().EffectiveWeight(), InForce: status.Weight}
	}
	return out
}

// class makes the picks of one class; old are those that it had.
func (s *service) class(class int, statuses []balance.Status, loads []rule.Load, old *picks) *picks {
	split := s.guide.layouts[class].Weigh(loads)
	out := s.newPicks()
	out.fellBack = split.FellBack
	var sum float64
	for i, pick := range split.Picks {
		p := s.newPicks()
		candidates := make([]balance.Candidate, len(pick.Indexes))
		p.endpoints = make([]*endpoint, len(pick.Indexes))
		for k, index := range pick.Indexes {
			e := s.endpoints[statuses[index].Addr]
			p.endpoints[k] = e
			candidates[k] = balance.Candidate{Weight: pick.Weights[k], Load: e.load, Key: statuses[index].Key}
		}
		p.picker = balance.NewPicker(s.guide.policy, candidates, old.turn(i))
		sum += pick.Share
		p.upTo = uint32(min(sum*(1<<32), 1<<32-1))
		out.parts = append(out.parts, p)
	}
	switch len(out.parts) {
	case 0:
		out.err = s.err(ErrNoInstance, s.nowhere(class, len(statuses)))
	case 1:
		only := out.parts[0]
		only.fellBack = out.fellBack
		return only
	default:
		out.parts[len(out.parts)-1].upTo = 1<<32 - 1
	}
	return out
}

func (s *service) nowhere(class, registered int) string {
	if name := s.guide.table.Name(class); name != "" {
		return fmt.Sprintf("route %q of the service's rules leads to none that takes calls, and its fallback is fail; %d registered", name, registered)
	}
	return fmt.Sprintf("%d registered, none with a weight above 0", registered)
}

// newPicks returns picks that lead nowhere yet.
func (s *service) newPicks() *picks {
	config := &s.client.config
	return &picks{picker: new(balance.Picker), gate: s.guard.gate, bounded: config.bounded(), panic: s.group.Panic() != "", observed: config.Observer != nil, service: s}
}

// turn is how many picks RoundRobin has made in a part.
func (p *picks) turn(part int) uint64 {
	switch {
	case p == nil:
		return 0
	case part < len(p.parts):
		return p.parts[part].picker.Turn()
	}
	return p.picker.Turn()
}

// part returns the destination that a call goes to: that of its hash where the policy goes by hashes, so that a key stays
// at one version.
func (p *picks) part(random, hash uint64) *picks {
	at := uint32(random >> 16)
	if p.parts[0].picker.Policy().Hashes() {
		at = uint32(hash * 0x9e3779b97f4a7c15 >> 32)
	}
	i := slices.IndexFunc(p.parts, func(part *picks) bool { return at <= part.upTo })
	return p.parts[max(i, 0)]
}
