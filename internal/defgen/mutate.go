package defgen

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
	"go.yaml.in/yaml/v3"
)

// site is a place of a document where a mutation can be made: what stands there is replaced.
type site struct {
	line, column int // from 1
	old, new     string
	uses         []string // a fault may be said where one of these stands, as well
	parent       [2]int   // or, if set, anywhere in these lines
}

// scalar is one scalar of a document.
type scalar struct {
	path, key    string
	node, holder *yaml.Node
}

// walk lists the scalars of a document.
func walk(node *yaml.Node, path string, out *[]scalar) {
	switch node.Kind {
	case yaml.DocumentNode:
		walk(node.Content[0], "", out)
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			if value.Kind == yaml.ScalarNode {
				*out = append(*out, scalar{path + "." + key.Value, key.Value, value, node})
			}
			walk(value, path+"."+key.Value, out)
		}
	case yaml.SequenceNode:
		for _, item := range node.Content {
			walk(item, path+"[]", out)
		}
	}
}

// mutation is a way to break a document at one point.
type mutation struct {
	name  string
	sites func(doc string, lines []string, scalars []scalar) []site
}

var (
	stepRef  = regexp.MustCompile(`\bsteps\.(s[0-9]+)\b`)
	paramRef = regexp.MustCompile(`\bparams\.(p[0-3])\b`)
	declared = regexp.MustCompile(`(?m)^ *- name: (s[0-9]+)$`)
)

// inline reports whether a scalar stands in one line as it is, so that a byte of its value has its place in the document.
func inline(lines []string, s scalar) bool {
	text := lines[s.node.Line-1][s.node.Column-1:]
	return strings.HasPrefix(strings.TrimLeft(text, `'"`), s.node.Value)
}

// each replaces the value of the scalars whose path ends so.
func each(with string, suffixes ...string) func(string, []string, []scalar) []site {
	return func(_ string, lines []string, scalars []scalar) []site {
		var out []site
		for _, s := range scalars {
			if inline(lines, s) && slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(s.path, suffix) }) {
				text := lines[s.node.Line-1][s.node.Column-1:]
				end := len(s.node.Value)
				if quote := text[0]; quote == '\'' || quote == '"' {
					end += 2
				}
				out = append(out, site{line: s.node.Line, column: s.node.Column, old: text[:end], new: with})
			}
		}
		return out
	}
}

// found replaces a group of a pattern wherever it stands.
func found(pattern *regexp.Regexp, group int, with string) func(string, []string, []scalar) []site {
	return func(_ string, lines []string, _ []scalar) []site {
		var out []site
		for i, line := range lines {
			for _, at := range pattern.FindAllStringSubmatchIndex(line, -1) {
				from, to := at[2*group], at[2*group+1]
				out = append(out, site{line: i + 1, column: from + 1, old: line[from:to], new: with})
			}
		}
		return out
	}
}

var mutations = []mutation{
	{"a reference to no step", found(stepRef, 1, "nobody")},
	{"a reference to no parameter", found(paramRef, 1, "nobody")},
	{"no field of an output", found(regexp.MustCompile(`\bsteps\.s[0-9]+\.(text|n|ok|list|items|from|comment)\b`), 1, "nothing")},
	{"a later step", func(doc string, lines []string, _ []scalar) []site {
		names := declared.FindAllStringSubmatch(doc, -1)
		last := names[len(names)-1][1]
		return slices.DeleteFunc(found(stepRef, 1, last)(doc, lines, nil), func(s site) bool {
			at := strings.Index(doc, "- name: "+last+"\n")
			return s.line > strings.Count(doc[:at], "\n")+1 || s.old == last // what comes behind it sees it: the flow's output
		})
	}},
	{"a renamed step that is used", renamed(declared, "steps.")},
	{"a renamed parameter that is used", renamed(regexp.MustCompile(`(?m)^  (p[0-3]): `), "params.")},
	{"a name twice", func(doc string, lines []string, _ []scalar) []site {
		names := declared.FindAllStringSubmatch(doc, -1)
		out := found(declared, 1, names[0][1])(doc, lines, nil)
		out = slices.DeleteFunc(out, func(s site) bool { return s.old == names[0][1] })
		for i := range out {
			out[i].uses = []string{"steps." + out[i].old}
		}
		return out
	}},
	{"an unknown tool", each("maek", ".tool")},
	{"an unknown field", func(_ string, lines []string, scalars []scalar) []site {
		var out []site
		for _, s := range scalars {
			if strings.Contains(s.path, ".with.") || strings.Contains(s.path, ".output") || strings.Contains(s.path, ".default") || strings.Contains(s.path, ".enum") || strings.Contains(s.path, ".params.") {
				continue
			}
			if at := strings.Index(lines[s.node.Line-1], s.key+": "); at >= 0 && strings.Count(lines[s.node.Line-1], s.key+": ") == 1 {
				out = append(out, site{line: s.node.Line, column: at + 1, old: s.key, new: s.key + "q", parent: extent(s.holder)})
			}
		}
		return out
	}},
	{"an input that the tool does not take", found(regexp.MustCompile(`^ +(text|list|ok): \$\{(?:params|steps)`), 1, "texts")},
	{"a text for a number", func(doc string, lines []string, scalars []scalar) []site {
		return each("many", ".parallel", ".batch", ".attempts", ".max", ".count", ".priority", ".min")(doc, lines, scalars)
	}},
	{"zero", each("0", ".parallel", ".batch", ".attempts", ".count", ".repeat.max")},
	{"a wrong input", each("{}", ".with.text")},
	{"a number for a text", each("3", ".with.text")},
	{"a text for an input that is a number", each("many", ".with.n")},
	{"a text for a list", each("'many'", ".with.list")},
	{"an int for a condition", each("params.p1", ".if", ".when", ".until")},
	{"a condition that always holds", each(`"true"`, ".if", ".when", ".until")},
	{"a condition that never holds", each("1 > 2", ".if", ".when", ".until")},
	{"no list", each("params.p1", ".each")},
	{"a duration without its unit", each("30", ".timeout", ".total", ".backoff", ".every", ".heartbeat")},
	{"an endless wait", each("9999h", ".sleep", ".timeout")},
	{"an unknown word", each("sometimes", ".on_failure", ".severity", ".undo", "params.p0.type")},
	{"no time", each("'7'", ".from", ".to")},
	{"no quota", each("0%", ".quota")},
	{"an expression that is not closed", found(regexp.MustCompile(`(?:^|[^$])\$\{[^}]*(\})`), 1, "")},
	{"a broken expression", found(regexp.MustCompile(`(\.size\(\)|\.replace\('a', 'b'\)| \* 2 \+)`), 1, ".")},
	{"a test the wrong way", found(regexp.MustCompile(`\((has)\(`), 1, "!has")},
	{"no flow", each("Called!", ".flow")},
	{"no parameter of the flow", func(_ string, lines []string, scalars []scalar) []site {
		var out []site
		for _, s := range scalars {
			if at := strings.Index(lines[s.node.Line-1], "text: "); at >= 0 && strings.HasSuffix(s.path, ".with.text") {
				out = append(out, site{line: s.node.Line, column: at + 1, old: "text", new: "txt"})
			}
		}
		return out
	}},
	{"a field that goes with another", func(_ string, lines []string, _ []scalar) []site {
		var out []site
		for i, line := range lines {
			if at := strings.Index(line, "- name: s"); at >= 0 {
				pad := "\n" + strings.Repeat(" ", at+2)
				out = append(out, site{line: i + 1, column: len(line) + 1, new: pad + "then: []"}, site{line: i + 1, column: len(line) + 1, new: pad + "tool: make" + pad + "flow: called"})
			}
		}
		return out
	}},
	{"a name that is none", found(declared, 1, "Step-One")},
	{"a required field dropped", func(_ string, lines []string, scalars []scalar) []site {
		var out []site
		for _, s := range scalars {
			required := slices.ContainsFunc([]string{".with.text", ".repeat.until", ".repeat.max", ".approve.text", ".notify.text", ".window.from", ".name"}, func(suffix string) bool { return strings.HasSuffix(s.path, suffix) })
			line := lines[s.node.Line-1]
			if !required || !inline(lines, s) || strings.Contains(line, "{") && !strings.Contains(line, "${") || s.key == "name" && !strings.Contains(line, "- name: s") {
				continue
			}
			// Its line becomes a comment; a name leaves its dash.
			at := strings.Index(line, s.key+": ")
			made := site{line: s.node.Line, column: at + 1, new: "# ", parent: extent(s.holder)}
			if s.key == "name" {
				made.uses = []string{"steps." + s.node.Value}
			}
			out = append(out, made)
		}
		return out
	}},
}

// renamed renames declarations that are used.
func renamed(pattern *regexp.Regexp, prefix string) func(string, []string, []scalar) []site {
	return func(doc string, lines []string, _ []scalar) []site {
		out := found(pattern, 1, "other_name")(doc, lines, nil)
		out = slices.DeleteFunc(out, func(s site) bool { return !regexp.MustCompile(regexp.QuoteMeta(prefix+s.old) + `\b`).MatchString(doc) })
		for i := range out {
			out[i].uses = []string{prefix + out[i].old}
		}
		return out
	}
}

// extent returns the lines of a mapping and of the one that holds it.
func extent(node *yaml.Node) [2]int {
	last := node.Line
	var deep func(*yaml.Node)
	deep = func(n *yaml.Node) {
		last = max(last, n.Line)
		for _, c := range n.Content {
			deep(c)
		}
	}
	deep(node)
	return [2]int{node.Line - 1, last}
}

// Says reports whether a fault is where the document was broken, or where what stood there is used.
func (b *Broken) Says(f flow.Fault) bool {
	s, lines := &b.at, strings.Split(b.Source, "\n")
	if f.Line < 1 || f.Line > len(lines) || f.Column < 1 || f.Column > len(lines[f.Line-1])+1 {
		return false
	}
	if s.parent != [2]int{} && f.Line >= s.parent[0] && f.Line <= s.parent[1] {
		return true
	}
	if from, to := s.line, s.line+strings.Count(s.new, "\n"); f.Line >= from && f.Line <= to {
		return true
	}
	return slices.ContainsFunc(s.uses, func(use string) bool { return strings.Contains(lines[f.Line-1], use) })
}

// Precise reports whether a fault in the line that was broken is in the value's own columns.
func (b *Broken) Precise(f flow.Fault) bool {
	s, lines := &b.at, strings.Split(b.Source, "\n")
	if f.Line != s.line || strings.Contains(s.new, "\n") || s.parent != [2]int{} {
		return true
	}
	value := strings.Index(lines[s.line-1], ": ") + 3 // a value starts behind its key
	if strings.Contains(lines[s.line-1], "{") && value > s.column {
		value = 1
	}
	return f.Column >= min(value, s.column) && f.Column <= len(lines[s.line-1])+1
}

func (s site) apply(doc string) string {
	lines := strings.Split(doc, "\n")
	line := lines[s.line-1]
	lines[s.line-1] = line[:s.column-1] + s.new + line[s.column-1+len(s.old):]
	return strings.Join(lines, "\n")
}

// Broken is a definition that is broken at one point.
type Broken struct {
	Kind   string // how
	Line   int
	Column int
	Source string
	at     site
}

// Kinds are the ways to break a definition.
func Kinds() []string {
	out := make([]string, len(mutations))
	for i := range mutations {
		out[i] = mutations[i].name
	}
	return out
}

// Made returns the document of a seed, which is good, and the same broken: each kind meets a third of the seeds, and one point that the seed decides.
func Made(seed uint64) (source string, broken []Broken, err error) {
	document, err := flow.Build(Definition(seed))
	if err != nil {
		return "", nil, fmt.Errorf("defgen: seed %d: %w", seed, err)
	}
	source = strings.TrimSuffix(string(document), "\n")
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return "", nil, fmt.Errorf("defgen: seed %d: %w", seed, err)
	}
	var scalars []scalar
	walk(&root, "", &scalars)
	lines := strings.Split(source, "\n")
	r := rand.New(rand.NewPCG(seed, 11))
	for i, m := range mutations {
		if uint64(i)%3 != seed%3 {
			continue
		}
		sites := m.sites(source, lines, scalars)
		if len(sites) == 0 {
			continue
		}
		at := sites[r.IntN(len(sites))]
		broken = append(broken, Broken{m.name, at.line, at.column, at.apply(source), at})
	}
	return source, broken, nil
}
