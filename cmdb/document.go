package cmdb

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// declaration is one object as a document declares it.
type declaration struct {
	object   Object
	document string
	lines    []place  // the object's own first
	given    []string // those of lifeFields that the document has
}

// place is the line of a field. There are as many as a fleet has fields, and all of them are seldom looked for: a list of
// names that are shared is the smallest that holds them.
type place struct {
	field string // path
	line  int
}

// lifeFields are the fields of a device that no document changes.
var lifeFields = []string{"state", "module", "holder", "fault"}

// line is where a field stands, or the nearest field above it.
func (d *declaration) line(field string) int {
	for {
		for _, p := range d.lines {
			if p.field == field {
				return p.line
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			return d.lines[0].line
		}
		field = field[:cut]
	}
}

func (d *declaration) fault(field, value, problem, mend string) Fault {
	ref := d.object.Ref()
	return Fault{Document: d.document, Line: d.line(field), Kind: ref.Kind, Name: ref.Name, Field: field, Value: value, Problem: problem, Mend: mend}
}

// aliasNodes is how many nodes aliases may add to a document.
const aliasNodes = 100_000

// Parse reads the objects of one document and checks each by itself, without looking at a DB: relations are
// checked by Plan. All faults are returned at once, as Faults.
func Parse(doc Document) ([]Object, error) {
	declarations, faults := parse(doc)
	if len(faults) > 0 {
		return nil, faults
	}
	objects := make([]Object, len(declarations))
	for i, d := range declarations {
		objects[i] = d.object
	}
	return objects, nil
}

func parse(doc Document) ([]*declaration, Faults) {
	var (
		out    []*declaration
		faults Faults
	)
	decoder := yaml.NewDecoder(bytes.NewReader(doc.Data))
	p := &parser{document: doc.Name, budget: len(doc.Data) + aliasNodes, paths: make(map[string]string)}
	for {
		var node yaml.Node
		err := decodeNode(decoder, &node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			faults = append(faults, Fault{Document: doc.Name, Problem: "is not YAML: " + clip(strings.TrimPrefix(err.Error(), "yaml: ")), Mend: "mend the syntax there"})
			break
		}
		if node.Kind == yaml.DocumentNode && len(node.Content) == 1 && node.Content[0].Kind == yaml.ScalarNode && node.Content[0].Tag == "!!null" {
			continue // an empty document between two lines of dashes
		}
		p.faults = nil
		if d := p.declaration(&node); d != nil {
			out = append(out, d)
		}
		faults = append(faults, p.faults...)
	}
	return out, faults
}

// decodeNode turns a panic of the YAML library on hostile input into an error.
func decodeNode(decoder *yaml.Decoder, node *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return decoder.Decode(node)
}

// parser reads one object's node into its struct. Unlike the YAML library's own decoder it knows the line of
// each field, takes the text of a scalar as written where a string is wanted (version: 1.10), and refuses
// what it does not know.
type parser struct {
	document string
	faults   Faults
	budget   int
	lines    []place           // of the object that is read
	paths    map[string]string // the one copy of each field's path
	kind     Kind
	name     string
}

// at notes where a field stands.
func (p *parser) at(node *yaml.Node, field string) {
	path, known := p.paths[field]
	if !known {
		path = strings.Clone(field)
		p.paths[path] = path
	}
	p.lines = append(p.lines, place{path, node.Line})
}

func (p *parser) fault(node *yaml.Node, field, problem, mend string) {
	p.faults = append(p.faults, Fault{Document: p.document, Line: node.Line, Kind: p.kind, Name: p.name, Field: field, Value: node.Value, Problem: problem, Mend: mend})
}

func (p *parser) declaration(node *yaml.Node) *declaration {
	p.kind, p.name, p.lines = "", "", p.lines[:0]
	for node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	if node.Kind != yaml.MappingNode {
		p.fault(node, "", "is no object", "write kind: and name: and the object's fields")
		return nil
	}
	p.lines = append(p.lines, place{"", node.Line})
	kind := child(node, "kind")
	if kind == nil {
		p.fault(node, "kind", "is missing", "use one of "+joinKinds())
		return nil
	}
	if name := child(node, "name"); name != nil {
		p.name = clip(name.Value)
	}
	p.kind = Kind(kind.Value)
	object, err := newObject(p.kind)
	if err != nil {
		p.fault(kind, "kind", "is unknown", "use one of "+joinKinds())
		return nil
	}
	d := &declaration{object: object, document: p.document}
	before := len(p.faults)
	p.into(node, reflect.ValueOf(object).Elem(), "", 0)
	d.lines = slices.Clone(p.lines)
	for _, field := range lifeFields {
		if child(node, field) != nil {
			d.given = append(d.given, field)
		}
	}
	if n, ok := object.(normalizer); ok {
		n.normalize()
	}
	if c, ok := object.(checked); ok && len(p.faults) == before { // a field that could not be read would be blamed twice
		check := &checker{report: func(field, value, problem, mend string) {
			p.faults = append(p.faults, d.fault(field, value, problem, mend))
		}}
		if check.bounded(object); len(p.faults) == before {
			c.check(check)
		}
	}
	if len(p.faults) > before {
		return nil
	}
	return d
}

func child(node *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

const maxDepth = 32

// into sets v from node.
func (p *parser) into(node *yaml.Node, v reflect.Value, field string, depth int) {
	p.budget--
	if p.budget < 0 || depth > maxDepth {
		if p.budget >= -1 {
			p.fault(node, field, "is too deep or too large", "write fewer aliases and levels")
		}
		p.budget = min(p.budget, -1)
		return
	}
	if node.Kind == yaml.AliasNode {
		p.into(node.Alias, v, field, depth+1)
		return
	}
	p.at(node, field)
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // as if it were not there
	}
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		p.text(node, text, field)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		p.into(node, v.Elem(), field, depth+1)
	case reflect.Struct:
		p.object(node, v, field, depth)
	case reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			p.fault(node, field, "is no list", "write one element per line after a dash, or [a, b]")
			return
		}
		list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
		for i, element := range node.Content {
			p.into(element, list.Index(i), at(field, i, ""), depth+1)
		}
		if len(node.Content) > 0 {
			v.Set(list)
		}
	case reflect.Map:
		p.table(node, v, field, depth)
	default:
		p.scalar(node, v, field)
	}
}

func (p *parser) text(node *yaml.Node, into encoding.TextUnmarshaler, field string) {
	if node.Kind != yaml.ScalarNode {
		p.fault(node, field, "is no text", "write a single value")
		return
	}
	if err := into.UnmarshalText([]byte(node.Value)); err != nil {
		mend := "write it as the error says"
		switch into.(type) {
		case *Duration:
			mend = "write a duration such as 30s or 1m30s"
		default:
			mend = "write a time such as 2026-01-02T15:04:05Z"
		}
		p.fault(node, field, "cannot be read", mend)
	}
}

func (p *parser) table(node *yaml.Node, v reflect.Value, field string, depth int) {
	if node.Kind != yaml.MappingNode {
		p.fault(node, field, "is no table", "write key: value lines")
		return
	}
	if len(node.Content) == 0 {
		return
	}
	m := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			p.fault(key, field, "has a key that is no text", "write key: value lines; merge keys are not read")
			continue
		}
		path := key.Value
		if field != "" {
			path = field + "." + key.Value
		}
		if m.MapIndex(reflect.ValueOf(key.Value)).IsValid() {
			p.fault(key, path, "is there twice", "keep one of them")
			continue
		}
		element := reflect.New(v.Type().Elem()).Elem()
		p.into(node.Content[i+1], element, path, depth+1)
		m.SetMapIndex(reflect.ValueOf(key.Value), element)
	}
	v.Set(m)
}

func (p *parser) object(node *yaml.Node, v reflect.Value, field string, depth int) {
	if node.Kind != yaml.MappingNode {
		p.fault(node, field, "is no object", "write its fields as key: value lines")
		return
	}
	names := fieldNames(v.Type())
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		path := key.Value
		if field != "" {
			path = field + "." + key.Value
		}
		if field == "" && key.Value == "kind" && !seen["kind"] {
			seen["kind"] = true
			continue
		}
		if field == "" && key.Value == "meta" {
			continue // the DB's own; a document may hold what was printed
		}
		index := slices.Index(names, key.Value)
		if key.Kind != yaml.ScalarNode || index < 0 {
			p.faults = append(p.faults, Fault{Document: p.document, Line: key.Line, Kind: p.kind, Name: p.name, Field: path, Value: node.Content[i+1].Value,
				Problem: "is an unknown field", Mend: suggest(key.Value, names)})
			continue
		}
		if seen[key.Value] {
			p.fault(key, path, "is there twice", "keep one of them")
			continue
		}
		seen[key.Value] = true
		p.into(node.Content[i+1], v.Field(index), path, depth+1)
	}
}

func (p *parser) scalar(node *yaml.Node, v reflect.Value, field string) {
	if node.Kind != yaml.ScalarNode {
		p.fault(node, field, "is no single value", "write one value")
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(node.Value)
	case reflect.Bool:
		b, err := strconv.ParseBool(node.Value)
		if err != nil {
			p.fault(node, field, "is neither true nor false", "write true or false")
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(node.Value, 10, 64)
		if err != nil {
			p.fault(node, field, "is no whole number", "write digits only")
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(node.Value, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			p.fault(node, field, "is no number", "write a number such as 0.5")
			f = 0
		}
		v.SetFloat(f)
	default:
		p.fault(node, field, "cannot be set", "leave it out")
	}
}

// fieldNames are the names that documents use for a struct's fields, by index.
func fieldNames(t reflect.Type) []string {
	fields := fieldsOf(t)
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// suggest names the field that was probably meant.
func suggest(got string, names []string) string {
	best, bestDistance := "", 3
	for _, name := range names {
		if d := distance(got, name); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	known := slices.DeleteFunc(slices.Sorted(slices.Values(names)), func(n string) bool { return n == "meta" })
	return "use one of " + strings.Join(known, ", ")
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
