package scale

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Prefs order candidates: first by city, then by site, then by type. What is named earlier is better; cities and
// sites that are not named come last and are used when the better ones do not suffice.
type Prefs struct {
	Cities []string `json:"cities,omitempty"`
	Sites  []string `json:"sites,omitempty"`
	Types  []string `json:"types,omitempty"` // if given, no other type is taken
}

// Candidate is an idle device.
type Candidate struct {
	Name string `json:"name"`
	Site string `json:"site"`
	City string `json:"city"`
	Type string `json:"type"`
}

// tier is how far a device is from what is preferred; smaller is better, compared from the left.
type tier struct {
	city, site, kind int
	typeName         string // tells types of one rank apart, so that a tier has one capacity
}

func (a tier) compare(b tier) int {
	return cmp.Or(cmp.Compare(a.city, b.city), cmp.Compare(a.site, b.site), cmp.Compare(a.kind, b.kind), cmp.Compare(a.typeName, b.typeName))
}

func (p Prefs) tier(site, city, typeName string) tier {
	return tier{rank(p.Cities, city), rank(p.Sites, site), rank(p.Types, typeName), typeName}
}

// rank is the place of a name in a list, or the length of the list.
func rank(list []string, name string) int {
	if i := slices.Index(list, name); i >= 0 {
		return i
	}
	return len(list)
}

// Placement is the outcome of Place.
type Placement struct {
	Picked   []Candidate `json:"picked"`   // best first
	Capacity float64     `json:"capacity"` // of those picked
	Short    float64     `json:"short"`    // what is wanted and not there
	Reason   Reason      `json:"reason"`
}

// Place picks idle devices that together have the wanted capacity, in requests per second; capacity is that of a
// device by type. A device whose type has none is not taken. Devices of different types are mixed.
//
// Candidates fall into tiers by city, then site, then type. Of all choices that have the capacity, Place returns
// one with the fewest devices of the worst tier, of these one with the fewest of the next worst, and so on; it is
// exact. Within a tier names decide, so that the same candidates give the same choice. If all of them together do
// not have the capacity, all are picked. limit bounds the number of devices, 0 means none: the best are kept.
func Place(want float64, candidates []Candidate, capacity map[string]float64, prefs Prefs, limit int) Placement {
	type group struct {
		tier    tier
		members []Candidate
		each    float64
	}
	byTier := make(map[tier]int)
	var groups []group
	total, fit := 0.0, 0
	for _, c := range candidates {
		each := capacity[c.Type]
		if each <= 0 || len(prefs.Types) > 0 && !slices.Contains(prefs.Types, c.Type) {
			continue
		}
		t := prefs.tier(c.Site, c.City, c.Type)
		i, ok := byTier[t]
		if !ok {
			i = len(groups)
			byTier[t] = i
			groups = append(groups, group{tier: t, each: each})
		}
		groups[i].members = append(groups[i].members, c)
		total += each
		fit++
	}
	slices.SortFunc(groups, func(a, b group) int { return b.tier.compare(a.tier) }) // worst first
	// From the worst tier on, take only what all better ones together lack.
	need, better := want, total
	var out Placement
	var picked [][]Candidate
	for _, g := range groups {
		better -= g.each * float64(len(g.members))
		n := int(min(float64(len(g.members)), max(0, math.Ceil((need-better)/g.each-1e-9)))) // bounded first: want may be infinite
		slices.SortFunc(g.members, func(a, b Candidate) int { return cmp.Compare(a.Name, b.Name) })
		picked = append(picked, g.members[:n])
		need -= g.each * float64(n)
	}
	slices.Reverse(picked)
	for _, tier := range picked {
		out.Picked = append(out.Picked, tier...)
	}
	if limit > 0 && len(out.Picked) > limit {
		out.Picked = out.Picked[:limit]
	}
	for _, c := range out.Picked {
		out.Capacity += capacity[c.Type]
	}
	if out.Short = want - out.Capacity; out.Short < 1e-9 {
		out.Short = 0
	}
	out.Reason = Reason{Code: "placed", Numbers: []Number{{"want", want}, {"capacity", out.Capacity}, {"devices", float64(len(out.Picked))},
		{"idle", float64(len(candidates))}, {"fit", float64(fit)}}}
	if len(out.Picked) == 0 {
		out.Reason.Code = CodeNoDevices
	}
	return out
}

// Leave picks the devices that leave a module: at most limit of them, so that those that stay have the capacity
// keep and are at least min. The worst tier leaves first, and in a tier the newest. A device that cannot leave
// without falling below keep is passed over for a smaller one.
func Leave(keep float64, least, limit int, serving []Device, capacity map[string]float64, prefs Prefs) []Device {
	order := slices.Clone(serving)
	slices.SortFunc(order, func(a, b Device) int {
		return cmp.Or(prefs.tier(b.Site, b.City, b.Type).compare(prefs.tier(a.Site, a.City, a.Type)),
			b.Since.Compare(a.Since), cmp.Compare(b.Name, a.Name))
	})
	left, have := len(serving), 0.0
	for _, d := range serving {
		have += capacity[d.Type]
	}
	var out []Device
	for _, d := range order {
		if len(out) == limit || left <= least {
			break
		}
		if have-capacity[d.Type] < keep-1e-9 {
			continue
		}
		have -= capacity[d.Type]
		left--
		out = append(out, d)
	}
	return out
}

// prefs fills what the module leaves open from the devices that serve.
func (m Module) prefs() Prefs {
	p := m.Prefs
	if len(p.Cities) == 0 {
		p.Cities = common(m.Serving, func(d Device) string { return d.City })
	}
	if len(p.Sites) == 0 {
		p.Sites = common(m.Serving, func(d Device) string { return d.Site })
	}
	return p
}

// common lists the values of a field, the most frequent first.
func common(devices []Device, field func(Device) string) []string {
	count := make(map[string]int)
	var out []string
	for _, d := range devices {
		if v := field(d); v != "" {
			if count[v]++; count[v] == 1 {
				out = append(out, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	return out
}

// latest is the later of two times; zero is none.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
