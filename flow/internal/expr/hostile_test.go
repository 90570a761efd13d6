package expr_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// hostileVars are values far larger than the static bound reckons with.
func hostileVars() map[string]any {
	numbers, texts := make([]any, 1_000_000), make([]any, 20_000)
	for i := range numbers {
		numbers[i] = int64(i)
	}
	for i := range texts {
		texts[i] = "device-" + strings.Repeat("x", i%40)
	}
	return map[string]any{"v": map[string]any{
		"numbers": numbers, "texts": texts, "few": numbers[:1000],
		"text": strings.Repeat("a", 1<<20), "line": strings.Repeat("ab ", 300), "any": numbers,
	}}
}

func hostileEnv(t testing.TB) *expr.Env {
	t.Helper()
	e, err := expr.NewEnv(map[string]*expr.Schema{"v": {Type: "object", Properties: map[string]*expr.Schema{
		"numbers": expr.List(expr.Integer), "few": expr.List(expr.Integer), "texts": expr.List(expr.String), "text": expr.String, "line": expr.String, "any": expr.Any,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// double doubles a list n times; without sharing it would have 2^n entries.
func double(n int, by string) string { return "[1]" + strings.Repeat(".map(a, "+by+")", n) }

// hostile expressions: refused when saved, or stopped when they run.
var hostile = map[string]string{
	"three loops":            "v.few.map(a, v.few.map(b, v.few.map(c, a*b*c)))",
	"three loops, asking":    "v.few.exists(a, v.few.exists(b, v.few.exists(c, a+b+c == -1)))",
	"two loops":              "v.numbers.exists(a, v.numbers.exists(b, a + b == -1))",
	"a long loop":            "v.numbers.map(a, a * 2).size()",
	"a loop over nothing":    "v.numbers.exists(a, false)",
	"of an unknown type":     "v.any.exists(a, v.any.exists(b, a == -b - 1))",
	"comparing in a loop":    "v.few.exists(a, v.numbers != v.numbers)",
	"comparing often":        strings.Repeat("v.numbers != v.numbers || ", 500) + "false",
	"searching in a loop":    "v.few.exists(a, -1 in v.numbers)",
	"a text that doubles":    double(40, "string(a) + string(a)") + "[0]",
	"replace by more":        "v.text.replace('', v.text)",
	"replace by replace":     "v.line.replace('', v.line).replace('', v.line).replace('', v.line)",
	"join what is large":     "v.few.map(a, v.text).join()",
	"split in a loop":        "v.few.map(a, v.text.split(''))",
	"lists that double":      double(60, "[a, a]"),
	"comparing doubles":      double(60, "[a, a]") + " == " + double(60, "[a, a]"),
	"doubles in a map":       double(60, "{'l': a, 'r': a}"),
	"formatting doubles":     "'%s'.format(" + double(60, "[a, a]") + ")",
	"many digits":            "'%.99999999f'.format([1.0])",
	"adding lists":           "[v.numbers].map(a, a + a).map(a, a + a).map(a, a + a + a + a).map(a, a + a + a + a).map(a, a.size())",
	"a long sum":             "v.numbers" + strings.Repeat(" + [1]", 240),
	"a sum in a loop":        "v.few.map(x, [x]" + strings.Repeat(" + v.few", 150) + ")",
	"a sum of texts":         "v.text" + strings.Repeat(" + v.text", 240),
	"a long search":          "v.text.indexOf(v.text.substring(500000) + 'b')",
	"a large regex":          "v.line.matches('((a{0,100}){0,10}b){0,1}c')",
	"a regex on a long text": "v.text.matches('(a|aa)+$') && v.text.matches('(.*)(.*)(.*)b')",
	"a regex in a loop":      "v.texts.exists(a, v.texts.exists(b, a.matches(b + '$x')))",
	"a regex that is long":   "v.line.matches(v.text)",
	"regexes in a row":       strings.Repeat("v.line.matches('(a|ab)(c|bcd)(d*)$') || ", 100) + "v.text.matches('x+x+y')",
	"parentheses":            strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000),
	"brackets":               strings.Repeat("[", 5000),
	"choices":                strings.Repeat("true ? ", 2000) + "1" + strings.Repeat(" : 2", 2000),
	"minus":                  strings.Repeat("-", 10000) + "1",
	"a large source":         strings.Repeat("1+", 9000) + "1",
	"a deep source":          strings.Repeat("[1].map(a, ", 400) + "1" + strings.Repeat(")", 400),
}

// Each is refused or stopped, with an error that says so. How long that takes is in the log: it is at most 100 ms on a machine that does nothing else.
func TestHostileExpressions(t *testing.T) {
	t.Parallel()
	env, vars := hostileEnv(t), hostileVars()
	for name, source := range hostile {
		began := time.Now()
		x, issues := env.Compile(source, nil)
		compiled := time.Since(began)
		if len(issues) > 0 {
			t.Logf("%-24s refused after %-12s %.70s", name, compiled, issues[0].Message)
			continue
		}
		began = time.Now()
		value, err := x.Eval(vars)
		took := time.Since(began)
		switch {
		case errors.Is(err, expr.ErrCost):
			t.Logf("%-24s stopped after %-12s cost %d", name, took, x.Cost)
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case name != "minus": // which CEL works out at once
			t.Errorf("%s: is %T after %s, want it refused or stopped", name, value, took)
		}
	}
}

// The longest that a hostile expression runs before it is stopped.
func BenchmarkHostile(b *testing.B) {
	env, vars := hostileEnv(b), hostileVars()
	worst := time.Duration(0)
	for b.Loop() {
		for _, source := range hostile {
			x, issues := env.Compile(source, nil)
			if len(issues) > 0 {
				continue
			}
			began := time.Now()
			if _, err := x.Eval(vars); err == nil {
				continue
			}
			worst = max(worst, time.Since(began))
		}
	}
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
}
