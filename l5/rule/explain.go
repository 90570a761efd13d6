package rule

// Factors say what rules, locality and subset make of one member.
type Factors struct {
	Level    Level   // how far it is
	Rule     float64 // the part of the calls that goes to the destinations it is in; 0: it is in none
	Locality float64 // what its level multiplies its weight by
	Subset   float64 // what its level's subset multiplies its weight by; 0: this process does not call it
	Share    float64 // of all the class's calls that are spread by weight, 0..1
}

// Explain returns the factors of all members, as Weigh applies them.
func (l *Layout) Explain(loads []Load) []Factors {
	out := make([]Factors, l.members)
	for i := range out {
		out[i].Level = l.at[i]
	}
	split := l.Weigh(loads)
	parts, routed := l.parts, l.route != nil && !split.FellBack
	if !routed {
		parts = nil
		if l.fallback != nil {
			parts = []part{*l.fallback}
		}
	}
	next := 0 // Weigh leaves out destinations that take no calls
	for i := range parts {
		p := &parts[i]
		if _, ok := l.weigh(p, loads); !ok || routed && p.weight <= 0 {
			continue
		}
		l.explain(p, split.Picks[next], loads, out)
		next++
	}
	return out
}

// explain adds what one destination makes of its members.
func (l *Layout) explain(p *part, pick Pick, loads []Load, out []Factors) {
	var sum float64
	weights := make(map[int32]float64, len(pick.Indexes))
	for k, i := range pick.Indexes {
		sum += pick.Weights[k]
		weights[i] = pick.Weights[k]
	}
	for _, indexes := range p.groups {
		var all, called, weighed float64
		for _, i := range indexes {
			all += loads[i].InForce
			if w := weights[i]; w > 0 {
				called += loads[i].InForce
				weighed += w
			}
		}
		for _, i := range indexes {
			f := &out[i]
			f.Rule += pick.Share
			f.Locality = 1 // where nobody takes calls, it is not for the distance
			if all > 0 {
				f.Locality = weighed / all
			}
			if w := weights[i]; w > 0 {
				f.Subset = all / called
				f.Share += pick.Share * w / sum
			}
		}
	}
}
