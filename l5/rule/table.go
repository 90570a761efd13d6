package rule

import (
	"maps"
	"slices"
	"strings"
)

// Label is one label of a call.
type Label struct{ Key, Value string }

// Caller is who calls.
type Caller struct {
	Module string
	Place
	Labels map[string]string
	// Seed tells processes apart where each takes a subset.
	Seed uint64
}

// Member is one instance. Its index among the members stands for it.
type Member struct {
	Addr, Module string
	Place
	Labels map[string]string
}

// attributes are the keys of Destination.Select that are no labels.
var attributes = []string{"@addr", "@device", "@module", "@site", "@city"}

// Table is the rules of a service as they concern one caller: what can be decided without the call is decided. It is
// immutable.
type Table struct {
	settings Settings
	caller   Caller
	routes   []Route  // that this caller's calls can match, in order
	needs    []uint64 // per route: the conditions that a call must meet
	meets    map[Label]uint64
	any      map[string]uint64 // conditions that any value of a key meets
	plain    int               // class of a call without labels
}

// Compile returns the table of rules for a caller. Settings of rules count before those of below.
func Compile(rules Rules, caller Caller, settings Settings) *Table {
	t := &Table{settings: settings, caller: caller, meets: make(map[Label]uint64), any: make(map[string]uint64)}
	bits := make(map[string]uint64)
	for _, route := range rules.Routes {
		if !route.Match.admits(caller) {
			continue
		}
		need, ok := uint64(0), true
		for _, key := range slices.Sorted(maps.Keys(route.Match.Labels)) {
			values := route.Match.Labels[key]
			name := condition(key, values)
			bit := bits[name]
			if bit == 0 {
				if ok = len(bits) < MaxConditions; !ok {
					break // Check refuses such rules; what was not checked is left out
				}
				bit = 1 << len(bits)
				bits[name] = bit
			}
			need |= bit
			for _, value := range values {
				if value == "*" {
					t.any[key] |= bit
					continue
				}
				t.meets[Label{key, value}] |= bit
			}
		}
		if !ok {
			continue
		}
		t.routes, t.needs = append(t.routes, route), append(t.needs, need)
		if need == 0 {
			break // every call of this caller that gets here matches
		}
	}
	t.plain = t.class(0)
	return t
}

// condition names a condition on a label of a call.
func condition(key string, values []string) string {
	return key + "\x00" + strings.Join(slices.Compact(slices.Sorted(slices.Values(values))), "\x00")
}

// admits reports whether calls of caller can match.
func (m Match) admits(caller Caller) bool {
	if len(m.Callers) > 0 && !slices.ContainsFunc(m.Callers, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return open && strings.HasPrefix(caller.Module, prefix) || pattern == caller.Module
	}) {
		return false
	}
	for _, list := range []struct {
		values []string
		have   string
	}{{m.Devices, caller.Device}, {m.Sites, caller.Site}, {m.Cities, caller.City}} {
		if len(list.values) > 0 && !slices.Contains(list.values, list.have) {
			return false
		}
	}
	for key, values := range m.CallerLabels {
		have, ok := caller.Labels[key]
		if !ok || !slices.Contains(values, have) && !slices.Contains(values, "*") {
			return false
		}
	}
	return true
}

// Classes returns how many classes calls fall into. The last is that of calls that match no route.
func (t *Table) Classes() int { return len(t.routes) + 1 }

// Plain returns the class of calls without labels.
func (t *Table) Plain() int { return t.plain }

// Class returns the class of a call by its labels. It allocates nothing.
func (t *Table) Class(labels []Label) int {
	if len(labels) == 0 || len(t.meets)+len(t.any) == 0 {
		return t.plain
	}
	var met uint64
	for _, l := range labels {
		met |= t.meets[l]
		if len(t.any) > 0 {
			met |= t.any[l.Key]
		}
	}
	return t.class(met)
}

func (t *Table) class(met uint64) int {
	for i, need := range t.needs {
		if met&need == need {
			return i
		}
	}
	return len(t.routes)
}

// Name returns the name of a class's route; empty for that of calls that match none.
func (t *Table) Name(class int) string {
	if class < len(t.routes) {
		return t.routes[class].Name
	}
	return ""
}

// Settings returns the settings in force.
func (t *Table) Settings() Settings { return t.settings }

// selects reports whether members of a destination include m.
func (d Destination) selects(m Member, caller Caller) bool {
	for key, want := range d.Select {
		if want == "@caller" {
			mirrored, ok := attribute(key, Member{Module: caller.Module, Place: caller.Place, Labels: caller.Labels})
			if !ok {
				return false
			}
			want = mirrored
		}
		if have, ok := attribute(key, m); !ok || have != want {
			return false
		}
	}
	return true
}

// attribute returns what m has under a key of Select.
func attribute(key string, m Member) (value string, ok bool) {
	switch key {
	case "@addr":
		value = m.Addr
	case "@device":
		value = m.Device
	case "@module":
		value = m.Module
	case "@site":
		value = m.Site
	case "@city":
		value = m.City
	default:
		value, ok = m.Labels[key]
		return value, ok
	}
	return value, value != ""
}
