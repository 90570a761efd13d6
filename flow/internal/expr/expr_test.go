package expr_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

func env(t testing.TB) *expr.Env {
	t.Helper()
	out := expr.ParseSchema(map[string]any{
		"type": "object", "required": []any{"ip"},
		"properties": map[string]any{
			"ip":   map[string]any{"type": "array", "items": map[string]any{"type": "string"}},
			"load": map[string]any{"type": "number"},
			"free": map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "integer"}},
		},
	})
	e, err := expr.NewEnv(map[string]*expr.Schema{
		"params": {Type: "object", Properties: map[string]*expr.Schema{"count": expr.Integer, "any": expr.Any, "list": expr.List(expr.Integer)}},
		"out":    out,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func vars(t testing.TB) map[string]any {
	t.Helper()
	out, err := expr.Decode([]byte(`{"ip": ["10.0.0.1", "10.0.0.2"], "load": 2, "free": {"a": 1}}`), &expr.Schema{Type: "object", Properties: map[string]*expr.Schema{"load": expr.Number}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"params": map[string]any{"count": int64(3), "any": nil, "list": []any{int64(1), int64(2)}}, "out": out}
}

func TestEval(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]any{
		`out.ip[0] != "" && params.count > 2`: true,
		`out.ip.map(x, x.split(".")[3])`:      []any{"1", "2"},
		`params.count * 2`:                    int64(6),
		`out.load + 0.5`:                      2.5,
		`out.free["a"] + out.free.a`:          int64(2),
		`has(out.load) ? "y" : "n"`:           "y",
		`{"a": [params.count, 1], "b": null}`: map[string]any{"a": []any{int64(3), int64(1)}, "b": nil},
		`duration("90s")`:                     "1m30s",
		`params.list.all(i, i > 0)`:           true,
	} {
		x, issues := env(t).Compile(source, nil)
		if len(issues) > 0 {
			t.Errorf("%s: %v", source, issues)
			continue
		}
		got, err := x.Eval(vars(t))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", source, err, diff)
		}
	}
}

func TestIssuesHavePlaces(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]expr.Issue{
		"out.ipp":                        {1, 4, "undefined field 'ipp'"},
		"1 +":                            {1, 4, "mismatched input"},
		"params.count ==\n  'x'":         {1, 14, "found no matching overload"},
		"nobody.x":                       {1, 1, "undeclared reference"},
		strings.Repeat("1+", 9000) + "1": {1, 1, "bytes; at most"},
	} {
		_, issues := env(t).Compile(source, nil)
		if len(issues) == 0 || issues[0].Line != want.Line || issues[0].Column != want.Column || !strings.Contains(issues[0].Message, want.Message) {
			t.Errorf("%.40q: %v, want %v", source, issues, want)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]expr.Part{
		"":                      {{Text: ""}},
		"plain":                 {{Text: "plain"}},
		"${a}":                  {{Text: "a", Expr: true, Offset: 2}},
		"x ${a['}']} y":         {{Text: "x "}, {Text: "a['}']", Expr: true, Offset: 4}, {Text: " y"}},
		"$${a} ${ {'k': 1}.k }": {{Text: "${a} "}, {Text: " {'k': 1}.k ", Expr: true, Offset: 8}},
	} {
		got, _, err := expr.Split(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	if _, at, err := expr.Split("ab ${c"); err == nil || at != 3 {
		t.Errorf("not closed: %d, %v", at, err)
	}
}

func BenchmarkEval(b *testing.B) {
	x, issues := env(b).Compile(`out.ip[0] != "" && params.count > 3`, nil)
	if len(issues) > 0 {
		b.Fatal(issues)
	}
	v := vars(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Eval(v); err != nil {
			b.Fatal(err)
		}
	}
}

// An expression with a loop runs under limits, which cost it something.
func BenchmarkEvalLoop(b *testing.B) {
	x, issues := env(b).Compile(`out.ip.exists(x, x.startsWith("10.")) && params.list.all(i, i > 0)`, nil)
	if len(issues) > 0 {
		b.Fatal(issues)
	}
	v := vars(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Eval(v); err != nil {
			b.Fatal(err)
		}
	}
}

// References, whether they are only asked for, and what a condition says is there.
func TestReferences(t *testing.T) {
	t.Parallel()
	e, err := expr.NewEnv(map[string]*expr.Schema{"s": expr.Any, "n": expr.Integer})
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"s.a > 1":                                "a",
		"has(s.a)":                               "?a",
		"has(s.a) && s.a.b > 1":                  "?a !a",
		"s.a.b > 1 && has(s.a)":                  "!a ?a",
		"has(s.a) || s.a > 1":                    "?a a",
		"!has(s.a) || s.a > 1":                   "?a !a",
		"!(has(s.a) && has(s.b)) || s.a > s.b":   "?a ?b !a !b",
		"has(s.a) ? s.a : s.b":                   "?a !a b",
		"!has(s.a) ? s.b : s.a":                  "?a b !a",
		"(has(s.a) || has(s.b)) && s.a > 1":      "?a ?b a",
		"[1].all(x, has(s.a) && s.a > x)":        "?a !a",
		"[s.a].map(s, s.b)":                      "a",
		"[1].map(x, s.a)[0] > 1 && has(s.a)":     "!a ?a",
		"has(s.a.b)":                             "a",
		"n > 1 ? has(s.a) : false":               "n ?a",
		"(has(s.a) ? s.a : 1) > 1 && s.a > 2":    "?a !a a",
		"{'k': s.a, s.b: [s.c]}.k > s.d[s.e](1)": "",
	} {
		x, issues := e.Compile(source, nil)
		if len(issues) > 0 {
			if want != "" {
				t.Errorf("%s: %v", source, issues)
			}
			continue
		}
		var got []string
		for _, ref := range x.Refs {
			name := ref.Field
			if name == "" {
				name = ref.Var
			}
			switch {
			case ref.Test:
				name = "?" + name
			case ref.Given:
				name = "!" + name
			}
			got = append(got, name)
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", source, diff)
		}
	}
	x, _ := e.Compile("has(s.a) && !(n > 1 || !has(s.b))", nil)
	if got := x.Given(true); len(got) != 2 || len(x.Given(false)) != 0 {
		t.Errorf("given %v, and %v if it is false", got, x.Given(false))
	}
}
