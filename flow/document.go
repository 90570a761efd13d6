package flow

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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
	maxDepth   = 64 // of values within values
	maxNesting = 16 // of steps within steps
	maxCount   = 100_000
	maxFaults  = 100 // that are listed
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
	format *format
	stored bool // it was saved once, maybe by a release that refused less
	lines  []string
	places map[string]*yaml.Node // by path
	faults []Fault
	// warnings are told by Lint, and refuse nothing.
	warnings []Fault

	stepped int // steps read
	depth   int // of blocks
}

// fault keeps what is wrong. After the first hundred nobody reads on.
func (d *document) fault(node *yaml.Node, path, format string, args ...any) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, faultAt(node, path, format, args...))
	}
}

// refuse keeps what is wrong by a rule that is younger than the format. Documents that were stored without it go on: executions of theirs are open.
func (d *document) refuse(node *yaml.Node, path, format string, args ...any) {
	if !d.stored {
		d.fault(node, path, format, args...)
	}
}

func (d *document) warn(node *yaml.Node, path, format string, args ...any) {
	if len(d.warnings) < maxFaults {
		one := faultAt(node, path, format, args...)
		one.Warning = true
		d.warnings = append(d.warnings, one)
	}
}

func faultAt(node *yaml.Node, path, format string, args ...any) Fault {
	f := Fault{Line: 1, Column: 1, Path: path, Message: fmt.Sprintf(format, args...)}
	if node != nil {
		f.Line, f.Column = max(node.Line, 1), max(node.Column, 1)
	}
	return f
}

// parse reads the form of a document that is to be saved. What it means is checked by compile.
func parse(source []byte) *document { return read(source, false) }

// parseStored reads the form of one that was saved, maybe by a release that refused less.
func parseStored(source []byte) *document { return read(source, true) }

func read(source []byte, stored bool) *document {
	sum := sha256.Sum256(source)
	d := &document{format: newFormat(), stored: stored, places: map[string]*yaml.Node{}}
	d.Source, d.Digest = slices.Clone(source), hex.EncodeToString(sum[:])
	if len(source) > MaxDocument {
		d.fault(nil, "", "the document has %d bytes; at most %d are allowed", len(source), MaxDocument)
		return d
	}
	d.lines = strings.Split(string(source), "\n")
	var root, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	if err := decoder.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		d.yamlError(err)
		return d
	}
	for !stored { // of a stored one the rest was never read
		err := decoder.Decode(&more)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			d.yamlError(err)
			return d
		}
		if more.Content[0].Tag != "!!null" {
			d.fault(more.Content[0], "", "another document begins here; a file holds one flow: write it into a file of its own")
			return d
		}
	}
	if len(root.Content) != 1 {
		d.fault(nil, "", "the document is empty; it starts with flow: NAME")
		return d
	}
	top := root.Content[0]
	readFields(d, top, "", &d.Definition, d.format.document)
	d.laid = newLayout(&d.Definition)
	d.names()
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
	d.faults = append(d.faults, Fault{Line: line, Column: 1, Message: "not YAML: " + text})
}

func (d *document) text(node *yaml.Node, path string) string {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		d.fault(node, path, "want a text")
		return ""
	}
	return strings.TrimSpace(node.Value)
}

func (d *document) fullText(node *yaml.Node, path string) string {
	text := d.text(node, path)
	if text == "" && node.Kind == yaml.ScalarNode {
		d.fault(node, path, "is empty")
	}
	return text
}

func (d *document) texts(node *yaml.Node, path string) []string {
	switch {
	case node.Kind != yaml.SequenceNode:
		d.fault(node, path, "want a list of texts")
		return nil
	case len(node.Content) == 0:
		d.fault(node, path, "is empty; name one at least, or leave it out")
		return nil
	}
	out := make([]string, len(node.Content))
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.places[at] = item
		out[i] = d.fullText(item, at)
	}
	return out
}

// actors reads who may do something: names, or role:NAME.
func (d *document) actors(node *yaml.Node, path string) []string {
	out := d.texts(node, path)
	for i, one := range out {
		at := fmt.Sprintf("%s[%d]", path, i)
		if slices.Contains(out[:i], one) {
			d.fault(d.places[at], at, "%q is said twice", one)
		}
		if role, is := strings.CutPrefix(one, "role:"); is && strings.TrimSpace(role) == "" {
			d.fault(d.places[at], at, "names no role; want role:NAME")
		}
	}
	return out
}

func (d *document) level(node *yaml.Node, path string) *int {
	var value int
	if err := node.Decode(&value); err != nil || node.Tag != "!!int" || value < 0 || value > 9 {
		d.fault(node, path, "want a whole number from 0 to 9")
	}
	return &value
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
	if err := node.Decode(&value); err != nil || node.Tag != "!!int" || value < 1 || value > maxCount {
		d.fault(node, path, "want a whole number from 1 to %d", maxCount)
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
