package expr

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// slow is what Decode does with a document that is out of the ordinary.
func slow(data []byte, schema *Schema) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return Normal(value, schema), nil
}

// FuzzParse: what the parser reads is what encoding/json reads.
func FuzzParse(f *testing.F) {
	for _, doc := range []string{
		`{"a": 1, "f": 2, "list": [true, false, null, "x"], "m": {"k": -7}}`, ` [] `, `{"a":1,"a":2}`, `"\u0041"`, `-0`, `01`, `1e3`, `123456789012345678`, `"ü"`, "\"\xff\"",
		`{"a":1} rest`, `{"a":}`, `[1,]`, `tru`, `-`, ``,
	} {
		f.Add([]byte(doc))
	}
	schema := &Schema{Type: "object", Open: true, Properties: map[string]*Schema{"f": Number, "list": List(Any), "m": Map(Number)}}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, one := range []*Schema{schema, nil} {
			got, ok := parse(doc, one)
			if !ok {
				continue
			}
			want, err := slow(doc, one)
			if err != nil {
				t.Fatalf("%q is read as %v, and encoding/json says %v", doc, got, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%q: %s", doc, diff)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	doc := []byte(`{"ok":true,"ip":["10.0.0.1"],"step":17}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(doc, nil); err != nil {
			b.Fatal(err)
		}
	}
}
