package rule

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Level is a distance between caller and instance.
type Level uint8

const (
	SameDevice Level = iota
	SameSite
	SameCity
	Anywhere
	levels
)

// String returns "device", "site", "city" or "any".
func (l Level) String() string {
	return [...]string{"device", "site", "city", "any", "none"}[min(l, levels)]
}

// Place is where a caller or an instance is. An empty field is not known, and equal to none.
type Place struct{ Device, Site, City string }

// Level returns how far q is from p.
func (p Place) Level(q Place) Level {
	switch {
	case p.Device != "" && p.Device == q.Device:
		return SameDevice
	case p.Site != "" && p.Site == q.Site:
		return SameSite
	case p.City != "" && p.City == q.City:
		return SameCity
	}
	return Anywhere
}

// Locality prefers instances that are near, and overflows to those farther away as the near ones lose capacity: in
// proportion, without a cliff.
//
// Of the calls that reach a level, the part min(1, Spare * C / D) stays there and the rest goes on to the next level. C
// is the capacity in force of the level's candidates: full weight by share, health, slow start and latency, so that a
// level that is slow for being overloaded gets less, too. D is the capacity that its calls demand: Demand's part of the
// capacity of all candidates, or without a Demand the level's full capacity, on the assumption that it was sized for its
// callers. What is left after the last level goes to all levels in proportion to C. The shape is that of Envoy's priority
// levels with an overprovisioning factor; there, D is always the level's own size.
//
// While Spare * C >= D nothing leaves the level; from there on, an instance in force at the level is asked for at most
// Spare times what it would be asked for if all were well, as long as there is capacity elsewhere.
type Locality struct {
	// Prefer is the narrowest level that is preferred: "device", "site" or "city"; "any" prefers none. Default: any.
	Prefer string `json:"prefer,omitempty"`
	// Spare is how much more than its demand a level is taken to have: 1.4 keeps all calls while 71 % of the
	// capacity is there. At least 1. Default: 1.4.
	Spare float64 `json:"spare,omitempty"`
	// Demand is the part of all calls to the service that comes from a site or city, by its name, 0 to 1.
	Demand map[string]float64 `json:"demand,omitempty"`
}

const defaultSpare = 1.4

func (l Locality) check(where string) (errs []error) {
	switch l.Prefer {
	case "", "device", "site", "city", "any":
	default:
		errs = append(errs, fmt.Errorf("%s.prefer is %q: want device, site, city or any", where, l.Prefer))
	}
	if l.Spare != 0 && !(l.Spare >= 1 && l.Spare <= 100) {
		errs = append(errs, fmt.Errorf("%s.spare is %v: want 1 to 100; 1.4 keeps all calls near while 71 %% of the capacity is there", where, l.Spare))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Demand)) {
		if d := l.Demand[name]; !(d >= 0 && d <= 1) {
			errs = append(errs, fmt.Errorf("%s.demand[%s] is %v: want a part of all calls, 0 to 1", where, name, d))
		}
		errs = append(errs, checkText(where+".demand", "name", name)...)
	}
	return errs
}

// group returns which of the groups of candidates a level belongs to: levels nearer than Prefer are one with it.
func (l Locality) group(at Level) Level {
	switch l.Prefer {
	case "device":
		return at
	case "site":
		return max(at, SameSite)
	case "city":
		return max(at, SameCity)
	}
	return Anywhere
}

// capacity is what the candidates of one group have.
type capacity struct{ full, inForce float64 }

// share returns the part of the calls that each group gets; their sum is 1 unless no group has capacity in force.
func (l Locality) share(from Place, groups [levels]capacity) (out [levels]float64) {
	spare := l.Spare
	if spare < 1 {
		spare = defaultSpare
	}
	var full, inForce float64
	for _, g := range groups {
		full += g.full
		inForce += g.inForce
	}
	if inForce <= 0 {
		return out
	}
	rest := 1.0
	for at, g := range groups {
		if g.inForce <= 0 {
			continue
		}
		demand := g.full
		if part, ok := l.demand(from, Level(at)); ok {
			demand = part * full
		}
		keeps := 1.0
		if demand > 0 {
			keeps = math.Min(1, spare*g.inForce/demand)
		}
		out[at] = rest * keeps
		rest -= out[at]
	}
	for at, g := range groups {
		out[at] += rest * g.inForce / inForce
	}
	return out
}

// demand returns the declared part of the calls that comes from where from is, at a level.
func (l Locality) demand(from Place, at Level) (float64, bool) {
	var name string
	switch at {
	case SameSite:
		name = from.Site
	case SameCity:
		name = from.City
	}
	part, ok := l.Demand[name]
	return part, ok && name != ""
}
