package flow

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var proofSchemas = []string{
	`{"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer", "minimum": 0}, "x": {"type": ["number", "null"]}}, "required": ["a"], "additionalProperties": false}`,
	`{"type": "object", "additionalProperties": {"type": "array", "items": {"type": "boolean"}}}`,
	`{"properties": {"mode": {"enum": ["on", "off"]}, "list": {"type": "array", "items": {"type": "object", "required": ["id"]}}}}`,
	`{"type": "array", "items": {"type": "string", "minLength": 2}}`,
	`true`, `{"oneOf": [{"type": "string"}, {"type": "integer"}]}`, `{"type": "number", "maximum": 5}`,
}

func proofSchema(t testing.TB, source string) *jsonschema.Schema {
	t.Helper()
	_, compiled, err := compileSchema("x", json.RawMessage(source), false)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func TestProves(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		schema int
		doc    string
		want   bool
	}{
		{0, `{"a":"x","n":3,"x":null}`, true}, {0, ` { "a" : "x" , "x" : 1.5e3 } `, true},
		{0, `{"n":3}`, false}, {0, `{"a":"x","b":1}`, false}, {0, `{"a":"x","n":-1}`, false}, {0, `{"a":"x","n":1.0}`, false}, {0, `{"a":"x","a":5}`, false}, {0, `[]`, false}, {0, `{"a":"x"`, false},
		{1, `{"a":[true,false],"b":[]}`, true}, {1, `{"a":[1]}`, false}, {1, `{}`, true},
		{2, `{"mode":"on","list":[{"id":{"deep":[1,"two",null]}},{"id":0}]}`, true}, {2, `{"mode":"o\u006e"}`, false}, {2, `{"mode":1}`, false}, {2, `{"list":[{}]}`, false}, {2, `"text"`, true},
		{3, `["ab"]`, false}, {4, `1`, false}, {5, `1`, false}, {6, `1`, false},
		{1, strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100), false},
	} {
		if got := proves(proofSchema(t, proofSchemas[one.schema]), json.RawMessage(one.doc)); got != one.want {
			t.Errorf("%s against %s: %t, want %t", one.doc, proofSchemas[one.schema], got, one.want)
		}
	}
}

// A field that the library adds to schemas is a keyword that has to be looked at, or to be refused by simple.
func TestProofKnowsSchemas(t *testing.T) {
	t.Parallel()
	typ := reflect.TypeFor[jsonschema.Schema]()
	exported := 0
	for i := range typ.NumField() {
		if typ.Field(i).IsExported() {
			exported++
		}
	}
	if exported != 63 {
		t.Errorf("jsonschema.Schema has %d fields: see what is new, and have simple know it", exported)
	}
}

// What is proved is valid.
func FuzzProves(f *testing.F) {
	for i := range proofSchemas {
		f.Add(i, `{"a":"x","n":3,"mode":"on","list":[{"id":1}]}`)
		f.Add(i, `[true, "a", null, {"b": [1.5, -2e9]}]`)
	}
	var schemas []*jsonschema.Schema
	for _, source := range proofSchemas {
		schemas = append(schemas, proofSchema(f, source))
	}
	f.Fuzz(func(t *testing.T, which int, doc string) {
		schema := schemas[max(which, -which, 0)%len(schemas)]
		if !proves(schema, json.RawMessage(doc)) {
			return
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(doc)))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Fatalf("%s is proved and is not valid: %v", doc, err)
		}
	})
}

func BenchmarkProves(b *testing.B) {
	schema, doc := proofSchema(b, proofSchemas[0]), json.RawMessage(`{"a":"some text","n":3,"x":1.5}`)
	b.ReportAllocs()
	for b.Loop() {
		if !proves(schema, doc) {
			b.Fatal("not proved")
		}
	}
}
