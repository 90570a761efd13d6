package flow_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// What a person types means what the parameter's type says, and an error names parameter, type and text.
func TestParametersAreReadFromText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind, text string
		want       any
		says       string // of the error
	}{
		{kind: "string", text: "1", want: "1"},
		{kind: "string", text: "true", want: "true"},
		{kind: "string", text: `"a"`, want: `"a"`},
		{kind: "string", text: "", want: ""},
		{kind: "secret", text: "007", want: "007"},
		{kind: "int", text: "9007199254740993", want: int64(9007199254740993)},
		{kind: "int", text: "-3", want: int64(-3)},
		{kind: "int", text: "two", says: `parameter "x" (int): "two" is no whole number`},
		{kind: "int", text: "1.5", says: `"1.5" is no whole number`},
		{kind: "int", text: "", says: `"" is no whole number`},
		{kind: "float", text: "2", want: 2.0},
		{kind: "float", text: "1e3", want: 1000.0},
		{kind: "float", text: "NaN", says: "want float"},
		{kind: "bool", text: "false", want: false},
		{kind: "bool", text: "yes", says: `parameter "x" (bool): "yes" is no bool; want true or false`},
		{kind: "list<string>", text: "d1, d2", want: []any{"d1", "d2"}},
		{kind: "list<string>", text: `["1", "a,b"]`, want: []any{"1", "a,b"}},
		{kind: "list<string>", text: `[1]`, says: "entry 0 is the int 1, want string"},
		{kind: "list<int>", text: "1,2", want: []any{int64(1), int64(2)}},
		{kind: "list<int>", text: "1,x", says: `parameter "x" (list<int>): "x" is no whole number`},
		{kind: "list<string>", text: "", want: []any{}},
		{kind: "map<int>", text: `{"a": 1}`, want: map[string]any{"a": int64(1)}},
		{kind: "map<int>", text: "a=1", says: "is no JSON object"},
		{kind: "any", text: "12", want: int64(12)},
		{kind: "any", text: "a b", want: "a b"},
		{kind: "number", text: "1", says: `type "number" is unknown`},
	} {
		p := flow.Param{Name: "x", Type: test.kind}
		got, err := p.FromText(test.text)
		if test.says != "" {
			if !errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s %q: %v, %v; want an error that says %q", test.kind, test.text, got, err, test.says)
			}
			continue
		}
		if err != nil || !cmp.Equal(got, test.want) {
			t.Errorf("%s %q: %#v, %v; want %#v", test.kind, test.text, got, err, test.want)
		}
	}
	most := 3.0
	p := flow.Param{Name: "x", Type: "int", Max: &most}
	if _, err := p.FromText("4"); !errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), "want at most 3") {
		t.Errorf("beyond its bound: %v", err)
	}
}
