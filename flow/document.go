package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
	"go.yaml.in/yaml/v3"
)

// Limits of a document.
const (
	MaxDocument = 1 << 20 // bytes
	MaxSteps    = 20_000
	maxDepth    = 64 // of values within values
)

var (
	flowName = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,62}$`)
	stepName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	toolName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,127}$`)
)

// celReserved are words that CEL does not accept as the name of a field.
var celReserved = []string{"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop", "package", "namespace", "null", "return", "true", "var", "void", "while"}

// document is a parsed definition with the places of what it says.
type document struct {
	Definition
	lines  []string
	places map[string]*yaml.Node // by path
	faults []Fault

	named   map[string]int // the line of each step's name
	stepped int            // steps read
	depth   int            // of blocks
}

func (d *document) fault(node *yaml.Node, path, format string, args ...any) {
	line, column := 1, 1
	if node != nil {
		line, column = max(node.Line, 1), max(node.Column, 1)
	}
	d.faults = append(d.faults, Fault{line, column, path, fmt.Sprintf(format, args...)})
}

// parse reads the document's form. What it means is checked by compile.
func parse(source []byte) *document {
	sum := sha256.Sum256(source)
	d := &document{places: map[string]*yaml.Node{}, named: map[string]int{}}
	d.Source, d.Digest = slices.Clone(source), hex.EncodeToString(sum[:])
	if len(source) > MaxDocument {
		d.fault(nil, "", "the document has %d bytes; at most %d are allowed", len(source), MaxDocument)
		return d
	}
	d.lines = strings.Split(string(source), "\n")
	var root yaml.Node
	if err := yaml.Unmarshal(source, &root); err != nil {
		d.yamlError(err)
		return d
	}
	if len(root.Content) != 1 {
		d.fault(nil, "", "the document is empty; it starts with flow: NAME")
		return d
	}
	top := root.Content[0]
	d.fields(top, "", map[string]func(*yaml.Node, string){
		"flow": func(n *yaml.Node, path string) {
			d.Name = d.text(n, path)
			if !flowName.MatchString(d.Name) {
				d.fault(n, path, "%q is not a flow's name: lower case letters, digits, dots, dashes and underscores, at most 63", d.Name)
			}
		},
		"title":    func(n *yaml.Node, path string) { d.Title = d.text(n, path) },
		"params":   d.params,
		"steps":    func(n *yaml.Node, path string) { d.Steps = d.steps(n, path) },
		"output":   func(n *yaml.Node, path string) { d.Output = d.mapping(n, path) },
		"locks":    func(n *yaml.Node, path string) { d.Locks = d.texts(n, path) },
		"start":    func(n *yaml.Node, path string) { d.Start = d.starters(n, path) },
		"priority": func(n *yaml.Node, path string) { d.Priority = d.priority(n, path) },
	})
	if d.Name == "" && len(d.faults) == 0 {
		d.fault(top, "flow", "is missing; a document starts with flow: NAME")
	}
	if len(d.Steps) == 0 && len(d.faults) == 0 {
		d.fault(top, "steps", "is missing; a flow has at least one step")
	}
	d.laid = newLayout(&d.Definition)
	return d
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

func (d *document) yamlError(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		fmt.Sscan(found[1], &line)
		text = strings.Replace(text, found[0], "", 1)
	}
	d.faults = append(d.faults, Fault{line, 1, "", "not YAML: " + text})
}

// fields walks a mapping and refuses keys that are unknown or said twice.
func (d *document) fields(node *yaml.Node, path string, known map[string]func(*yaml.Node, string)) {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want a mapping")
		return
	}
	if path != "" {
		d.places[path] = node
		path += "."
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := path + key.Value
		read := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(key, at, "want a name as the key")
		case seen[key.Value]:
			d.fault(key, at, "is said twice")
		case read == nil:
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			d.fault(key, at, "%q is unknown here; known are %s%s", key.Value, strings.Join(names, ", "), meant(key.Value, names))
		default:
			if value.Kind == yaml.AliasNode {
				d.fault(value, at, "anchors and aliases are not part of the format; write the value out")
				continue
			}
			d.places[at] = value
			read(value, at)
		}
		seen[key.Value] = true
	}
}

func (d *document) text(node *yaml.Node, path string) string {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		d.fault(node, path, "want a text")
		return ""
	}
	return strings.TrimSpace(node.Value)
}

func (d *document) duration(node *yaml.Node, path string) Duration {
	var value Duration
	if err := value.UnmarshalText([]byte(d.text(node, path))); err != nil {
		d.fault(node, path, "%v", err)
	} else if value <= 0 {
		d.fault(node, path, "%s is not more than nothing", value)
	} else if time.Duration(value) > 365*24*time.Hour {
		d.fault(node, path, "%s is more than a year", value)
	}
	return value
}

func (d *document) count(node *yaml.Node, path string) int {
	var value int
	if err := node.Decode(&value); err != nil || node.Tag != "!!int" || value < 1 || value > 100_000 {
		d.fault(node, path, "want a whole number from 1 to 100000")
	}
	return value
}

// value decodes any value, recording the place of each part.
func (d *document) value(node *yaml.Node, path string, depth int) any {
	d.places[path] = node
	if depth > maxDepth {
		d.fault(node, path, "is nested more than %d deep", maxDepth)
		return nil
	}
	switch node.Kind {
	case yaml.ScalarNode:
		switch node.Tag {
		case "!!str", "!!timestamp", "!!binary":
			return node.Value
		}
		var value any
		if err := node.Decode(&value); err != nil {
			d.fault(node, path, "%v", err)
			return nil
		}
		if f, ok := value.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			d.fault(node, path, "%v has no JSON form", node.Value)
			return nil
		}
		if u, ok := value.(uint64); ok {
			d.fault(node, path, "%d is too large", u)
			return nil
		}
		return expr.Normal(value, nil)
	case yaml.SequenceNode:
		out := make([]any, len(node.Content))
		for i, item := range node.Content {
			out[i] = d.value(item, fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
		return out
	case yaml.MappingNode:
		out := make(map[string]any, len(node.Content)/2)
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				d.fault(key, path, "want a name as the key")
				continue
			}
			if _, twice := out[key.Value]; twice {
				d.fault(key, path+"."+key.Value, "is said twice")
			}
			out[key.Value] = d.value(node.Content[i+1], path+"."+key.Value, depth+1)
		}
		return out
	}
	d.fault(node, path, "anchors and aliases are not part of the format; write the value out")
	return nil
}

func (d *document) mapping(node *yaml.Node, path string) map[string]any {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want a mapping of names to values")
		return nil
	}
	object, _ := d.value(node, path, 0).(map[string]any)
	return object
}

func (d *document) params(node *yaml.Node, path string) {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want a mapping of parameter names to types")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := path + "." + key.Value
		if seen[key.Value] {
			d.fault(key, at, "is said twice")
			continue
		}
		seen[key.Value] = true
		if !stepName.MatchString(key.Value) || slices.Contains(celReserved, key.Value) {
			d.fault(key, at, "%q is not a parameter's name: lower case letters, digits and underscores, and no word of CEL's", key.Value)
		}
		d.Params = append(d.Params, d.param(key, value, at))
	}
}

func (d *document) param(key, node *yaml.Node, path string) Param {
	p := Param{Name: key.Value, Type: "string"}
	var defaultNode, enumNode *yaml.Node
	number := func(into **float64) func(*yaml.Node, string) {
		return func(n *yaml.Node, path string) {
			var value float64
			if err := n.Decode(&value); err != nil || (n.Tag != "!!int" && n.Tag != "!!float") || math.IsNaN(value) {
				d.fault(n, path, "want a number")
				return
			}
			*into = &value
		}
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" {
		p.Type = node.Value // the short form, name: type
	} else {
		d.fields(node, path, map[string]func(*yaml.Node, string){
			"type":  func(n *yaml.Node, path string) { p.Type = d.text(n, path) },
			"title": func(n *yaml.Node, path string) { p.Title = d.text(n, path) },
			"required": func(n *yaml.Node, path string) {
				if err := n.Decode(&p.Required); err != nil || n.Tag != "!!bool" {
					d.fault(n, path, "want true or false")
				}
			},
			"default": func(n *yaml.Node, path string) { defaultNode, p.Default = n, d.value(n, path, 0) },
			"min":     number(&p.Min),
			"max":     number(&p.Max),
			"enum": func(n *yaml.Node, path string) {
				enumNode = n
				list, ok := d.value(n, path, 0).([]any)
				if !ok || len(list) == 0 {
					d.fault(n, path, "want a list of the values allowed")
				}
				p.Enum = list
			},
			"pattern": func(n *yaml.Node, path string) { p.Pattern = d.text(n, path) },
		})
	}
	d.finishParam(&p, path, node, defaultNode, enumNode)
	return p
}

func (d *document) finishParam(p *Param, path string, node, defaultNode, enumNode *yaml.Node) {
	var err error
	if p.value, err = parseType(p.Type); err != nil {
		at := d.places[path+".type"]
		if at == nil {
			at = node
		}
		d.fault(at, path+".type", "%v", err)
		p.value = &valueType{kind: "any"}
		return
	}
	p.Type = p.value.name()
	if p.Pattern != "" {
		if p.value.pattern, err = regexp.Compile(`^(?:` + p.Pattern + `)$`); err != nil {
			d.fault(d.places[path+".pattern"], path+".pattern", "%v", err)
		} else if p.value.kind != "string" {
			d.fault(d.places[path+".pattern"], path+".pattern", "a pattern is for a string, this is %s", p.Type)
		}
	}
	if p.Min != nil && p.Max != nil && *p.Min > *p.Max {
		d.fault(d.places[path+".min"], path+".min", "%v is more than max, %v", *p.Min, *p.Max)
	}
	for i, one := range p.Enum {
		if p.Enum[i], err = p.value.accept(one); err != nil {
			d.fault(enumNode, path+".enum", "entry %d %v", i, err)
		}
	}
	if defaultNode != nil {
		switch {
		case p.Required:
			d.fault(defaultNode, path+".default", "a required parameter has no default")
		case p.value.secret:
			d.fault(defaultNode, path+".default", "a secret has no default: documents are no place for secrets")
		default:
			if p.Default, err = p.accept(p.Default); err != nil {
				d.fault(defaultNode, path+".default", "%v", err)
			}
		}
	}
}

// meant proposes the known name that is nearest to a misspelt one.
func meant(wrong string, known []string) string {
	best, distance := "", len(wrong)/3+1
	for _, name := range known {
		if n := edits(wrong, name); n <= distance {
			if n < distance || best == "" {
				best, distance = name, n
			}
		}
	}
	if best == "" || best == wrong {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// edits is the Levenshtein distance of two short names.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
