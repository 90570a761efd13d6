package flow_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
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

// What is handed in is bounded, and who hands in more is told which parameter, how much of it, and what to do.
func TestParametersAreBounded(t *testing.T) {
	t.Parallel()
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: flow.NewTools()})
	if err != nil {
		t.Fatal(err)
	}
	save(t, engine, "flow: f\nparams: {text: string, long: {type: string, max: 400000}, token: secret, all: list<string>, any: any}\nsteps: [{name: say, notify: {text: hi}}]\n")
	runes := func(n int) string { return strings.Repeat("长", n) }
	many := func(n int) []string { return slices.Repeat([]string{strings.Repeat("x", 1<<10)}, n) }
	for name, c := range map[string]struct {
		params map[string]any
		want   string // "" is no error
	}{
		"all that a text holds": {map[string]any{"text": runes(flow.MaxText)}, ""},
		"more":                  {map[string]any{"text": runes(flow.MaxText + 1)}, `parameter "text" is 262145 characters, want at most 262144; a flow that takes more says so in its max`},
		"a secret":              {map[string]any{"token": runes(flow.MaxText + 1)}, `parameter "token" is 262145 characters`},
		"as the flow says":      {map[string]any{"long": runes(400_000)}, ""},
		"more than it says":     {map[string]any{"long": runes(400_001)}, `parameter "long" is 400001 characters, want at most 400000`},
		"a long list":           {map[string]any{"all": many(3 << 10)}, ""},
		"a list that is longer": {map[string]any{"all": many(4 << 10)}, "the parameters are 4206643 bytes as JSON, want at most 4194304"},
		"anything":              {map[string]any{"any": map[string]any{"deep": many(5 << 10)}}, "the parameters are"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := engine.Start(t.Context(), "f", c.params)
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, flow.ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("the error shows all of it: %d bytes", len(err.Error()))
			}
		})
	}
}
