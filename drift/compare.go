package drift

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Compare says how live differs from desired, in the order of kind and subject. It is pure: it reads the two
// values and nothing else, and writes nothing.
//
// What the coverage of live says it could not see is neither as declared nor different, so there is no finding
// about it. Fields that the declaration leaves empty are not compared. The findings carry no device, time or
// status: those are an Agent's to give.
func Compare(desired, live State) []Finding {
	sight := sightOf(live)
	rules := ignoreRules(desired.Ignore)
	var out []Finding
	compareFiles(desired, live, sight, func(f Finding, diffs []difference) { out = rules.appendTo(out, f, diffs) })
	if sight.sees(KindProcess) {
		compareProcesses(desired, live, func(f Finding, diffs []difference) { out = rules.appendTo(out, f, diffs) })
	}
	if sight.sees(KindPort) {
		comparePorts(desired, live, func(f Finding, diffs []difference) { out = rules.appendTo(out, f, diffs) })
	}
	slices.SortFunc(out, func(a, b Finding) int { return a.Key().compare(b.Key()) })
	return out
}

// difference is one field in which a subject differs.
type difference struct{ field, expected, actual string }

// sight is what a live state can be believed about.
type sight struct {
	all     bool
	kinds   map[Kind]bool
	unknown map[string]bool // paths that could not be read
}

func sightOf(live State) sight {
	s := sight{all: len(live.Coverage) == 0, kinds: make(map[Kind]bool)}
	for _, c := range live.Coverage {
		for _, k := range c.Kinds {
			s.kinds[k] = s.kinds[k] || !c.Blind
		}
		for _, g := range c.Gaps {
			if g.Unknown {
				if s.unknown == nil {
					s.unknown = make(map[string]bool)
				}
				s.unknown[g.Subject] = true
			}
		}
	}
	return s
}

func (s sight) sees(kind Kind) bool { return s.all || s.kinds[kind] }

func compareFiles(desired, live State, sight sight, found func(Finding, []difference)) {
	for name, want := range desired.Files {
		kind := want.kind()
		if !sight.sees(kind) || sight.unknown[name] {
			continue
		}
		have, there := live.Files[name]
		if diffs := compareFile(want, have, there); len(diffs) > 0 {
			f := Finding{Kind: kind, Subject: name}
			if want.fileType() != Absent {
				declared := want
				f.File = &declared
			}
			found(f, diffs)
		}
	}
	if len(desired.Exact.Dirs) == 0 {
		return
	}
	parents := declaredParents(desired.Files)
	for name, have := range live.Files {
		_, declared := desired.Files[name]
		kind := have.kind()
		if declared || parents[name] || sight.unknown[name] || !sight.sees(kind) || !desired.Exact.covers(name) {
			continue
		}
		found(Finding{Kind: kind, Subject: name}, []difference{{FieldUnexpected, "nothing", have.describe()}})
	}
}

// covers says whether name lies below one of the exact directories.
func (e Exact) covers(name string) bool {
	for _, dir := range e.Dirs {
		if below(name, dir) {
			return true
		}
	}
	return false
}

// below says whether name lies under dir, which is a path in its clean form; all lies under ".".
func below(name, dir string) bool {
	return dir == "." || len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}

// declaredParents holds every directory that a declared file needs.
func declaredParents(files map[string]File) map[string]bool {
	parents := make(map[string]bool)
	for name := range files {
		for dir := path.Dir(name); !parents[dir]; dir = path.Dir(dir) {
			parents[dir] = true
			if dir == "." || dir == "/" {
				break
			}
		}
	}
	return parents
}

func compareFile(want, have File, there bool) []difference {
	wantType := want.fileType()
	switch {
	case wantType == Absent && there:
		return []difference{{FieldUnexpected, "nothing", have.describe()}}
	case wantType == Absent:
		return nil
	case !there:
		return []difference{{FieldMissing, want.describe(), "nothing"}}
	}
	if haveType := have.fileType(); haveType != wantType {
		return []difference{{FieldType, want.describe(), have.describe()}}
	}
	var diffs []difference
	if want.Digest != "" && wantType == Regular && want.Digest != have.Digest && bareDigest(want.Digest) != bareDigest(have.Digest) {
		diffs = append(diffs, difference{FieldContent, shortDigest(want.Digest), shortDigest(have.Digest)})
	}
	if want.Mode != 0 && wantType != Link && want.Mode != have.Mode {
		diffs = append(diffs, difference{FieldMode, want.Mode.String(), have.Mode.String()})
	}
	if wantType == Link && want.Link != "" && want.Link != have.Link {
		diffs = append(diffs, difference{FieldTarget, "-> " + want.Link, "-> " + have.Link})
	}
	return diffs
}

// describe is the file in a few words.
func (f File) describe() string {
	switch t := f.fileType(); t {
	case Regular:
		var parts []string
		if f.Digest != "" {
			parts = append(parts, shortDigest(f.Digest))
		}
		if f.Mode != 0 {
			parts = append(parts, f.Mode.String())
		}
		if len(parts) == 0 {
			return "file"
		}
		return "file " + strings.Join(parts, " ")
	case Link:
		return "link -> " + f.Link
	case Outside:
		return "a path that leaves the root through a link"
	case Special:
		return "special file"
	default:
		return string(t)
	}
}

func bareDigest(d string) string { return strings.ToLower(strings.TrimPrefix(d, "sha256:")) }

// shortDigest keeps enough of a digest for a person to tell two apart.
func shortDigest(d string) string {
	bare := bareDigest(d)
	return "sha256:" + bare[:min(12, len(bare))]
}

func compareProcesses(desired, live State, found func(Finding, []difference)) {
	taken := make([]bool, len(live.Processes))
	for _, want := range desired.Processes {
		var good, wrong []Process
		for i, have := range live.Processes {
			if taken[i] {
				continue
			}
			switch named, fits := have.Name != "" && have.Name == want.Name, want.fits(have); {
			case named && !fits:
				taken[i] = true
				wrong = append(wrong, have)
			case named, fits && have.Name == "":
				taken[i] = true
				good = append(good, have)
			}
		}
		declared := want
		f := Finding{Kind: KindProcess, Subject: want.Name, Process: &declared}
		switch count := max(want.Count, 1); {
		case len(wrong) > 0:
			f.Who = Who{PID: wrong[0].PID, Exe: wrong[0].Exe}
			if !want.fitsExe(wrong[0]) {
				found(f, []difference{{FieldExe, want.Exe, wrong[0].describe()}})
			} else {
				found(f, []difference{{FieldArgv, strings.Join(want.Argv, " "), wrong[0].describe()}})
			}
		case len(good) == 0:
			found(f, []difference{{FieldMissing, want.describe(), "not running"}})
		case len(good) != count:
			found(f, []difference{{FieldCount, strconv.Itoa(count), strconv.Itoa(len(good))}})
		default:
			if i := slices.IndexFunc(good, func(p Process) bool { return p.Stopped }); i >= 0 {
				f.Who = Who{PID: good[i].PID, Exe: good[i].Exe}
				found(f, []difference{{FieldStopped, "running", "stopped by a signal or a debugger"}})
			}
		}
	}
	if !desired.Exact.Processes {
		return
	}
	for i, have := range live.Processes {
		if taken[i] {
			continue
		}
		name := have.Name
		if name == "" {
			name = path.Base(have.Exe)
		}
		f := Finding{Kind: KindProcess, Subject: fmt.Sprintf("%s[%d]", name, have.PID), Who: Who{PID: have.PID, Exe: have.Exe}}
		found(f, []difference{{FieldUnexpected, "nothing", have.describe()}})
	}
}

// fits says whether a live process is what is declared, by its executable and arguments.
func (p Process) fits(live Process) bool { return p.fitsExe(live) && p.fitsArgv(live) }

func (p Process) fitsExe(live Process) bool {
	switch {
	case p.Exe == "", live.Exe == "" && live.Name != "": // not declared, or not known
		return true
	case strings.Contains(p.Exe, "/"):
		return p.Exe == live.Exe
	default:
		return p.Exe == path.Base(live.Exe)
	}
}

func (p Process) fitsArgv(live Process) bool {
	if live.Argv == nil && live.Name != "" {
		return true // not known
	}
	rest := live.Argv
	for i, want := range p.Argv {
		at := slices.IndexFunc(rest, func(have string) bool {
			return have == want || i == 0 && !strings.Contains(want, "/") && path.Base(have) == want
		})
		if at < 0 {
			return false
		}
		rest = rest[at+1:]
	}
	return true
}

func (p Process) describe() string {
	words := p.Argv
	if len(words) == 0 {
		words = []string{p.Exe}
	}
	text := strings.TrimSpace(strings.Join(words, " "))
	if text == "" {
		text = p.Name
	}
	if p.PID != 0 {
		text += fmt.Sprintf(" (pid %d)", p.PID)
	}
	return text
}

func comparePorts(desired, live State, found func(Finding, []difference)) {
	taken := make([]bool, len(live.Ports))
	for _, want := range desired.Ports {
		var listener *Port
		for i := range live.Ports {
			if have := &live.Ports[i]; !taken[i] && want.fits(*have) {
				taken[i] = true
				if listener == nil || listener.Process != want.Process {
					listener = have
				}
			}
		}
		declared := want
		f := Finding{Kind: KindPort, Subject: want.subject(), Port: &declared}
		switch {
		case listener == nil:
			found(f, []difference{{FieldMissing, want.describe(), "nobody listens"}})
		case want.Process != "" && listener.Process != "" && listener.Process != want.Process:
			f.Who = Who{PID: listener.PID, Exe: listener.Exe}
			found(f, []difference{{FieldListener, want.Process, listener.describe()}})
		}
	}
	if !desired.Exact.Ports {
		return
	}
	seen := make(map[string]bool)
	for i, have := range live.Ports {
		if taken[i] || seen[have.subject()] {
			continue
		}
		seen[have.subject()] = true
		f := Finding{Kind: KindPort, Subject: have.subject(), Who: Who{PID: have.PID, Exe: have.Exe}}
		found(f, []difference{{FieldUnexpected, "nobody listens", have.describe()}})
	}
}

// fits says whether a live listener serves the declared port. One that listens on every address serves each.
func (p Port) fits(live Port) bool {
	if p.proto() != live.proto() || p.Port != live.Port {
		return false
	}
	return p.Addr == "" || p.Addr == live.Addr || live.Addr == "0.0.0.0" || live.Addr == "::"
}

func (p Port) describe() string {
	text := p.subject()
	if p.Addr != "" {
		text += " on " + p.Addr
	}
	switch {
	case p.Process != "":
		text += " by " + p.Process
	case p.Exe != "":
		text += " by " + p.Exe
	}
	if p.PID != 0 {
		text += fmt.Sprintf(" (pid %d)", p.PID)
	}
	return text
}

// ignoreRules are the declared exceptions to a comparison.
type ignoreRules []Ignore

// appendTo adds f, made of what is left of diffs, unless nothing is.
func (r ignoreRules) appendTo(out []Finding, f Finding, diffs []difference) []Finding {
	var expected, actual []string
	for _, d := range diffs {
		if slices.ContainsFunc(r, func(rule Ignore) bool { return rule.covers(f.Key(), d.field) }) {
			continue
		}
		f.Fields = append(f.Fields, d.field)
		expected = append(expected, d.expected)
		actual = append(actual, d.actual)
	}
	if len(f.Fields) == 0 {
		return out
	}
	f.Expected, f.Actual = strings.Join(expected, " "), strings.Join(actual, " ")
	return append(out, f)
}

func (i Ignore) covers(key Key, field string) bool {
	return (i.Field == "" || i.Field == field) && covers(i.Kind, i.Subject, key)
}

// covers says whether kind and pattern, either of which may be empty for any, fit key.
func covers(kind Kind, pattern string, key Key) bool {
	if kind != "" && kind != key.Kind {
		return false
	}
	if pattern == "" || pattern == key.Subject {
		return true
	}
	if dir, all := strings.CutSuffix(pattern, "/..."); all {
		return below(key.Subject, dir)
	}
	ok, err := path.Match(pattern, key.Subject)
	return err == nil && ok
}
