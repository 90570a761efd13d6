package drift

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Peers says how a new device differs from one in service, both observed: a finding's Expected is what serving has, its
// Actual what fresh has. What is the device's own is not compared: the content of files and the arguments of processes
// that are declared PerDevice (by either), addresses, process ids and times. ignore takes the module's exceptions. It is
// pure. What either side's coverage does not see is not compared.
func Peers(fresh, serving State, ignore ...Ignore) []Finding {
	a, b := sightOf(fresh), sightOf(serving)
	rules := ignoreRules(ignore)
	var out []Finding
	add := func(f Finding, diffs ...difference) { out = rules.appendTo(out, f, diffs) }
	peerFiles(fresh, serving, func(kind Kind, name string) bool {
		return a.sees(kind) && b.sees(kind) && !a.unknown[name] && !b.unknown[name]
	}, add)
	if a.sees(KindProcess) && b.sees(KindProcess) {
		peerCounts(KindProcess, processGroups(fresh), processGroups(serving), add)
	}
	if a.sees(KindPort) && b.sees(KindPort) {
		peerCounts(KindPort, portGroups(fresh), portGroups(serving), add)
	}
	slices.SortFunc(out, func(a, b Finding) int { return a.Key().compare(b.Key()) })
	return out
}

func peerFiles(fresh, serving State, seen func(Kind, string) bool, add func(Finding, ...difference)) {
	for name, want := range serving.Files {
		if !seen(want.kind(), name) {
			continue
		}
		have, there := fresh.Files[name]
		if want.PerDevice || have.PerDevice {
			want.Digest = ""
		}
		if diffs := compareFile(want, have, there); len(diffs) > 0 {
			add(Finding{Kind: want.kind(), Subject: name}, diffs...)
		}
	}
	for name, have := range fresh.Files {
		if _, both := serving.Files[name]; !both && seen(have.kind(), name) {
			add(Finding{Kind: have.kind(), Subject: name}, difference{FieldUnexpected, "nothing", have.describe()})
		}
	}
}

// group is what a device has of one sort of process or port.
type group struct {
	count int
	text  string // of one of them
}

// processGroups counts processes by name, or by executable where they have none, and by arguments unless these are
// the device's own.
func processGroups(s State) map[string]group {
	groups := make(map[string]group)
	for _, p := range s.Processes {
		name := p.Name
		if name == "" {
			name = path.Base(p.Exe)
		}
		if !p.PerDevice && len(p.Argv) > 1 {
			name += " " + strings.Join(p.Argv[1:], " ")
		}
		g := groups[name]
		groups[name] = group{g.count + 1, name}
	}
	return groups
}

func portGroups(s State) map[string]group {
	groups := make(map[string]group)
	for _, p := range s.Ports {
		text := p.subject()
		if p.Process != "" {
			text += " by " + p.Process
		}
		groups[p.subject()] = group{1, text}
	}
	return groups
}

func peerCounts(kind Kind, fresh, serving map[string]group, add func(Finding, ...difference)) {
	for name, want := range serving {
		have, there := fresh[name]
		f := Finding{Kind: kind, Subject: name}
		switch {
		case !there:
			add(f, difference{FieldMissing, want.text, "nothing"})
		case have.count != want.count:
			add(f, difference{FieldCount, strconv.Itoa(want.count), strconv.Itoa(have.count)})
		case have.text != want.text:
			add(f, difference{FieldListener, want.text, have.text})
		}
	}
	for name, have := range fresh {
		if _, both := serving[name]; !both {
			add(Finding{Kind: kind, Subject: name}, difference{FieldUnexpected, "nothing", fmt.Sprintf("%d of %s", have.count, have.text)})
		}
	}
}
