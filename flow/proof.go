package flow

import (
	"encoding/json"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// proves reports whether a JSON document surely fits a schema. It knows the keywords that nearly all tools use, reads the document once and
// allocates nothing; whatever it does not know or does not see at once is not proved, and then the full validation says so, or why not.
func proves(schema *jsonschema.Schema, data json.RawMessage) bool {
	w := walk{data: data}
	return json.Valid(data) && w.value(schema, 0)
}

// walk is a place in a valid JSON document.
type walk struct {
	data []byte
	at   int
}

var (
	typeNull, typeBoolean = schemaType("null"), schemaType("boolean")
	typeNumber, typeInt   = schemaType("number"), schemaType("integer")
	typeString            = schemaType("string")
	typeArray, typeObject = schemaType("array"), schemaType("object")
)

func schemaType(name string) jsonschema.Types {
	var t jsonschema.Types
	t.Add(name)
	return t
}

// simple reports whether a schema holds nothing that value does not look at. A test knows the list of the library's fields.
func simple(s *jsonschema.Schema) bool {
	return s.Bool == nil && s.Ref == nil && s.RecursiveRef == nil && s.DynamicRef == nil && s.Const == nil && s.Not == nil && s.AllOf == nil && s.AnyOf == nil &&
		s.OneOf == nil && s.If == nil && s.Then == nil && s.Else == nil && s.Format == nil &&
		s.MaxProperties == nil && s.MinProperties == nil && s.PropertyNames == nil && s.PatternProperties == nil && s.Dependencies == nil &&
		s.DependentRequired == nil && s.DependentSchemas == nil && s.UnevaluatedProperties == nil &&
		s.MinItems == nil && s.MaxItems == nil && !s.UniqueItems && s.Contains == nil && s.MinContains == nil && s.MaxContains == nil && s.Items == nil &&
		s.AdditionalItems == nil && s.PrefixItems == nil && s.UnevaluatedItems == nil &&
		s.MinLength == nil && s.MaxLength == nil && s.Pattern == nil && s.ContentEncoding == nil && s.ContentMediaType == nil && s.ContentSchema == nil &&
		s.Maximum == nil && s.ExclusiveMaximum == nil && s.ExclusiveMinimum == nil && s.MultipleOf == nil && len(s.Extensions) == 0
}

// value goes behind the next value, if that fits the schema; nil is any.
func (w *walk) value(s *jsonschema.Schema, depth int) bool {
	if depth > 64 {
		return false
	}
	types := ^jsonschema.Types(0)
	if s != nil {
		if !simple(s) {
			return false
		}
		if s.Types != nil {
			types = *s.Types
		}
	}
	w.space()
	c := w.data[w.at]
	if s != nil && s.Enum != nil && c != '"' {
		return false
	}
	switch c {
	case '{':
		return types&typeObject != 0 && w.object(s, depth)
	case '[':
		return types&typeArray != 0 && w.array(s, depth)
	case '"':
		text, plain := w.text()
		return types&typeString != 0 && (s == nil || s.Enum == nil || plain && among(text, s.Enum.Values))
	case 't', 'f':
		w.at += 4
		if c == 'f' {
			w.at++
		}
		return types&typeBoolean != 0
	case 'n':
		w.at += 4
		return types&typeNull != 0
	}
	whole := w.number()
	if s != nil && s.Minimum != nil && (c == '-' || s.Minimum.Sign() > 0) {
		return false
	}
	return types&typeNumber != 0 || whole && types&typeInt != 0
}

func (w *walk) space() {
	for c := w.data[w.at]; c == ' ' || c == '\n' || c == '\t' || c == '\r'; c = w.data[w.at] {
		w.at++
	}
}

// next goes behind the separator of a list or object that ends with last, and reports whether another entry comes.
func (w *walk) next(last byte) bool {
	w.space()
	c := w.data[w.at]
	w.at++
	return c != last
}

func (w *walk) object(s *jsonschema.Schema, depth int) bool {
	var open, extra = true, (*jsonschema.Schema)(nil)
	var required []string
	if s != nil {
		switch v := s.AdditionalProperties.(type) {
		case bool:
			open = v
		case *jsonschema.Schema:
			extra = v
		}
		required = s.Required
	}
	if len(required) > 64 {
		return false
	}
	missing := uint64(1)<<len(required) - 1
	w.at++
	w.space()
	if w.data[w.at] == '}' {
		w.at++
		return missing == 0
	}
	for {
		w.space()
		name, plain := w.text()
		if !plain {
			return false
		}
		for i := range required {
			if required[i] == string(name) {
				missing &^= 1 << i
			}
		}
		inner := extra
		if s != nil {
			if property := s.Properties[string(name)]; property != nil {
				inner = property
			} else if !open {
				return false
			}
		}
		w.space()
		w.at++ // the colon
		if !w.value(inner, depth+1) {
			return false
		}
		if !w.next('}') {
			return missing == 0
		}
	}
}

func (w *walk) array(s *jsonschema.Schema, depth int) bool {
	var items *jsonschema.Schema
	if s != nil {
		items = s.Items2020
	}
	w.at++
	w.space()
	if w.data[w.at] == ']' {
		w.at++
		return true
	}
	for {
		if !w.value(items, depth+1) {
			return false
		}
		if !w.next(']') {
			return true
		}
	}
}

// text goes behind a string; it is plain if its bytes are what it says.
func (w *walk) text() (text []byte, plain bool) {
	w.at++
	from := w.at
	plain = true
	for ; w.data[w.at] != '"'; w.at++ {
		if c := w.data[w.at]; c == '\\' {
			plain = false
			w.at++
		} else if c >= 0x80 {
			plain = false // it may be mended on its way to Go
		}
	}
	w.at++
	return w.data[from : w.at-1], plain
}

// number goes behind a number, and reports whether it is written as a whole one.
func (w *walk) number() bool {
	whole := true
	for ; w.at < len(w.data); w.at++ {
		switch c := w.data[w.at]; {
		case c >= '0' && c <= '9', c == '-', c == '+':
		case c == '.', c == 'e', c == 'E':
			whole = false
		default:
			return whole
		}
	}
	return whole
}

func among(text []byte, values []any) bool {
	for _, value := range values {
		if one, ok := value.(string); ok && one == string(text) {
			return true
		}
	}
	return false
}
