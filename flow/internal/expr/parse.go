package expr

import (
	"strconv"
	"unicode/utf8"
)

// parser reads a JSON document into the form that Decode yields, in one go and without what a general decoder carries along. What is out of the
// ordinary (an escape in a text, a number that is not a short whole one, a fault) it leaves to encoding/json.
type parser struct {
	data []byte
	at   int
}

// parse returns the document's value; ok is false if it is out of the ordinary.
func parse(data []byte, schema *Schema) (value any, ok bool) {
	p := parser{data: data}
	return p.value(schema, 0)
}

// peek goes behind white space, and returns what comes; 0 at the end.
func (p *parser) peek() byte {
	for ; p.at < len(p.data); p.at++ {
		if c := p.data[p.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

func (p *parser) value(schema *Schema, depth int) (any, bool) {
	if schema == nil {
		schema = Any
	}
	if depth > 64 {
		return nil, false
	}
	switch c := p.peek(); c {
	case '{':
		return p.object(schema, depth)
	case '[':
		return p.array(schema, depth)
	case '"':
		text, ok := p.text()
		return text, ok
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	case 'n':
		return nil, p.word("null")
	default:
		return p.number(schema)
	}
}

func (p *parser) word(word string) bool {
	if len(p.data)-p.at < len(word) || string(p.data[p.at:p.at+len(word)]) != word {
		return false
	}
	p.at += len(word)
	return true
}

// text reads a string without escapes.
func (p *parser) text() (string, bool) {
	p.at++
	from := p.at
	ascii := true
	for ; p.at < len(p.data); p.at++ {
		switch c := p.data[p.at]; {
		case c == '"':
			raw := p.data[from:p.at]
			p.at++
			return string(raw), ascii || utf8.Valid(raw)
		case c == '\\' || c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// number reads a whole number of at most 15 digits, which a float64 holds as well.
func (p *parser) number(schema *Schema) (any, bool) {
	from := p.at
	if p.at < len(p.data) && p.data[p.at] == '-' {
		p.at++
	}
	first := p.at
	for p.at < len(p.data) && p.data[p.at] >= '0' && p.data[p.at] <= '9' {
		p.at++
	}
	digits := p.at - first
	if digits == 0 || digits > 15 || digits > 1 && p.data[first] == '0' {
		return nil, false
	}
	if p.at < len(p.data) {
		if c := p.data[p.at]; c == '.' || c == 'e' || c == 'E' {
			return nil, false
		}
	}
	whole, err := strconv.ParseInt(string(p.data[from:p.at]), 10, 64)
	if err != nil || whole == 0 && first > from { // -0
		return nil, false
	}
	if schema.Type == "number" {
		return float64(whole), true
	}
	return whole, true
}

func (p *parser) array(schema *Schema, depth int) (any, bool) {
	p.at++
	out := []any{}
	if p.peek() == ']' {
		p.at++
		return out, true
	}
	for {
		item, ok := p.value(schema.Items, depth+1)
		if !ok {
			return nil, false
		}
		out = append(out, item)
		switch p.peek() {
		case ',':
			p.at++
		case ']':
			p.at++
			return out, true
		default:
			return nil, false
		}
	}
}

func (p *parser) object(schema *Schema, depth int) (any, bool) {
	p.at++
	out := map[string]any{}
	if p.peek() == '}' {
		p.at++
		return out, true
	}
	for {
		if p.peek() != '"' {
			return nil, false
		}
		name, ok := p.text()
		if !ok || p.peek() != ':' {
			return nil, false
		}
		p.at++
		property, known := schema.Properties[name]
		if !known {
			property = schema.Extra
		}
		if out[name], ok = p.value(property, depth+1); !ok {
			return nil, false
		}
		switch p.peek() {
		case ',':
			p.at++
		case '}':
			p.at++
			return out, true
		default:
			return nil, false
		}
	}
}
