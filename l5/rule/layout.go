package rule

// Layout is the candidates of one class of calls. It is made when rules or members change; Weigh follows health. It is
// immutable.
type Layout struct {
	table    *Table
	route    *Route // nil: the class of calls that match none
	members  int
	at       []Level // per member: how far it is
	parts    []part  // the route's destinations
	fallback *part   // all members; nil: there is none
}

// part is one destination.
type part struct {
	weight float64
	groups [levels][]int32 // candidates by group of levels, in the order of the subset's rank
}

// Layout returns the candidates of a class among members.
func (t *Table) Layout(class int, members []Member) Layout {
	l := Layout{table: t, members: len(members), at: make([]Level, len(members))}
	for i, m := range members {
		l.at[i] = t.caller.Level(m.Place)
	}
	all := func() *part {
		p := t.part(Destination{}, members, l.at)
		return &p
	}
	if class >= len(t.routes) {
		l.fallback = all()
		return l
	}
	l.route = &t.routes[class]
	equal := true
	for _, d := range l.route.To {
		equal = equal && d.Weight == 0
	}
	for _, d := range l.route.To {
		p := t.part(d, members, l.at)
		p.weight = float64(d.Weight)
		if equal {
			p.weight = 1
		}
		l.parts = append(l.parts, p)
	}
	if l.route.Fallback != FallbackFail {
		l.fallback = all()
	}
	return l
}

func (t *Table) part(d Destination, members []Member, at []Level) part {
	var p part
	for i, m := range members {
		if d.selects(m, t.caller) {
			group := t.settings.Locality.group(at[i])
			p.groups[group] = append(p.groups[group], int32(i))
		}
	}
	if t.settings.Subset > 0 {
		for _, indexes := range p.groups {
			if len(indexes) > t.settings.Subset {
				rank(t.caller.Seed, indexes, members)
			}
		}
	}
	return p
}

// Load is what a member can carry.
type Load struct {
	Full    float64 // as registered: full weight by share
	InForce float64 // by health and latency as well; 0 takes no calls
}

// Pick is the part of a class's calls that goes to one destination.
type Pick struct {
	Share float64 // of the class's calls, 0..1; the shares of a Split add up to 1
	// Indexes and Weights are the instances to pick from, by their index among the members, and their weights: those of
	// Load.InForce, moved between levels of locality.
	Indexes []int32
	Weights []float64
}

// Split says where the calls of one class go.
type Split struct {
	Picks []Pick
	// FellBack says that no destination of the route has an instance that takes calls.
	FellBack bool
}

// Weigh returns where calls go, given what each member can carry. No picks: nowhere.
func (l *Layout) Weigh(loads []Load) Split {
	var out Split
	var total float64
	for i := range l.parts {
		p := &l.parts[i]
		if p.weight <= 0 {
			continue
		}
		if pick, ok := l.weigh(p, loads); ok {
			pick.Share = p.weight
			total += p.weight
			out.Picks = append(out.Picks, pick)
		}
	}
	for i := range out.Picks {
		out.Picks[i].Share /= total
	}
	if len(out.Picks) > 0 || l.fallback == nil {
		return out
	}
	out.FellBack = l.route != nil
	if pick, ok := l.weigh(l.fallback, loads); ok {
		pick.Share = 1
		out.Picks = []Pick{pick}
	}
	return out
}

// weigh applies locality and subset to one destination.
func (l *Layout) weigh(p *part, loads []Load) (Pick, bool) {
	var groups [levels]capacity
	var n int
	for at, indexes := range p.groups {
		for _, i := range indexes {
			groups[at].full += loads[i].Full
			groups[at].inForce += loads[i].InForce
		}
		n += len(indexes)
	}
	settings := l.table.settings
	if settings.Subset > 0 {
		n = min(n, settings.Subset*int(levels))
	}
	pick := Pick{Indexes: make([]int32, 0, n), Weights: make([]float64, 0, n)}
	var total float64
	for _, g := range groups {
		total += g.inForce
	}
	for at, share := range settings.Locality.share(l.table.caller.Place, groups) {
		if share <= 0 {
			continue
		}
		from := len(pick.Indexes)
		var sum float64
		for _, i := range p.groups[at] {
			if loads[i].InForce <= 0 {
				continue
			}
			pick.Indexes = append(pick.Indexes, i)
			pick.Weights = append(pick.Weights, loads[i].InForce)
			sum += loads[i].InForce
			if len(pick.Indexes)-from == settings.Subset {
				break
			}
		}
		for k := from; k < len(pick.Weights); k++ {
			pick.Weights[k] *= share * total / sum
		}
	}
	return pick, len(pick.Indexes) > 0
}

// Level returns how far a member is.
func (l *Layout) Level(member int) Level { return l.at[member] }
