package flow

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// codec reads a field of a mapping from a document, and writes it into one.
type codec[T any] struct {
	read  func(d *document, into *T, n *yaml.Node, path string)
	write func(f *format, from *T) *yaml.Node // nil: it is not said
}

func asText[T any](at func(*T) *string) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.text(n, path) },
		func(_ *format, from *T) *yaml.Node { return textNode(*at(from)) },
	}
}

// asFullText is a text that is not empty.
func asFullText[T any](at func(*T) *string) codec[T] {
	c := asText(at)
	c.read = func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.fullText(n, path) }
	return c
}

func asTexts[T any](at func(*T) *[]string) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.texts(n, path) },
		func(_ *format, from *T) *yaml.Node { return textsNode(*at(from)) },
	}
}

// asActors is a list of people and roles.
func asActors[T any](at func(*T) *[]string) codec[T] {
	c := asTexts(at)
	c.read = func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.actors(n, path) }
	return c
}

// asWord is one of some words.
func asWord[T any, W ~string](at func(*T) *W, words ...W) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = readWord(d, n, path, words...) },
		func(_ *format, from *T) *yaml.Node { return textNode(string(*at(from))) },
	}
}

func asDuration[T any](at func(*T) *Duration) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.duration(n, path) },
		func(_ *format, from *T) *yaml.Node {
			if *at(from) == 0 {
				return nil
			}
			return textNode(shortDuration(*at(from)))
		},
	}
}

// shortDuration leaves out what is zero: 2h, not 2h0m0s.
func shortDuration(d Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func asCount[T any](at func(*T) *int) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.count(n, path) },
		func(_ *format, from *T) *yaml.Node {
			if *at(from) == 0 {
				return nil
			}
			return valueNode(int64(*at(from)))
		},
	}
}

func asMapping[T any](at func(*T) *map[string]any) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.mapping(n, path) },
		func(_ *format, from *T) *yaml.Node {
			if *at(from) == nil {
				return nil
			}
			return valueNode(*at(from))
		},
	}
}

func asSteps[T any](at func(*T) *[]Step) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) { *at(into) = d.steps(n, path) },
		func(f *format, from *T) *yaml.Node { return listNode(f, *at(from), f.step) },
	}
}

// asFields is a mapping with fields of its own, which start as preset.
func asFields[T, U any](at func(*T) **U, table func(*format) []field[U], preset U) codec[T] {
	return codec[T]{
		func(d *document, into *T, n *yaml.Node, path string) {
			made := preset
			*at(into) = &made
			readFields(d, n, path, &made, table(d.format))
		},
		func(f *format, from *T) *yaml.Node {
			if *at(from) == nil {
				return nil
			}
			return writeFields(f, *at(from), table(f))
		},
	}
}

// writeFields writes a mapping in the order of its table.
func writeFields[T any](f *format, from *T, table []field[T]) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, one := range table {
		if value := one.write(f, from); value != nil {
			out.Content = append(out.Content, keyNode(one.name), value)
		}
	}
	return out
}

// listNode writes mappings of the same table.
func listNode[T any](f *format, items []T, table []field[T]) *yaml.Node {
	if len(items) == 0 {
		return nil
	}
	out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range items {
		out.Content = append(out.Content, writeFields(f, &items[i], table))
	}
	return out
}

func keyNode(name string) *yaml.Node {
	node := &yaml.Node{}
	node.SetString(name)
	return node
}

// textNode writes a text; nil for an empty one.
func textNode(text string) *yaml.Node {
	if text == "" {
		return nil
	}
	return valueNode(text)
}

func textsNode(texts []string) *yaml.Node {
	if len(texts) == 0 {
		return nil
	}
	out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, text := range texts {
		out.Content = append(out.Content, valueNode(text))
	}
	return out
}

// valueNode writes any value so that it is read back as the same: texts stay texts, and a float stays one if it is whole. Texts stand in one line, so
// that each byte of an expression has its place.
func valueNode(value any) *yaml.Node {
	switch v := plain(value).(type) {
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	case int64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v, 10)}
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if v == math.Trunc(v) && math.Abs(v) < 1e15 {
			text = strconv.FormatFloat(v, 'f', 1, 64)
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: text}
	case string:
		node := &yaml.Node{}
		node.SetString(v)
		if node.Style == yaml.LiteralStyle {
			node.Style = yaml.DoubleQuotedStyle
		}
		return node
	case []any:
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if len(v) == 0 {
			out.Style = yaml.FlowStyle
		}
		for _, item := range v {
			out.Content = append(out.Content, valueNode(item))
		}
		return out
	case map[string]any:
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if len(v) == 0 {
			out.Style = yaml.FlowStyle
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			out.Content = append(out.Content, keyNode(name), valueNode(v[name]))
		}
		return out
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
}
