package expr_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow/internal/expr"
)

// What is looked up is what CEL says; what is not there fails the same.
func TestSelections(t *testing.T) {
	t.Parallel()
	env, err := expr.NewEnv(map[string]*expr.Schema{"params": expr.Map(nil), "n": expr.Integer})
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]any{"n": int64(7), "params": map[string]any{
		"text": "x", "on": true, "half": 0.5, "none": nil, "list": []any{int64(1)}, "deep": map[string]any{"er": map[string]any{"still": "y"}},
	}}
	for source, same := range map[string]string{
		"n": "n + 0", "params.text": "params.text + ''", "params.on": "params.on || false", "params.half": "params.half * 1.0", "params.none": "[params.none][0]",
		"params.list": "[params.list][0]", "params.deep.er.still": "[params.deep.er.still][0]", "params.deep.er": "[params.deep.er][0]", "(params).text": "params['text']",
	} {
		var got [2]any
		for i, one := range []string{source, same} {
			compiled, issues := env.Compile(one, nil)
			if len(issues) > 0 {
				t.Fatal(one, issues)
			}
			if got[i], err = compiled.Eval(vars); err != nil {
				t.Fatal(one, err)
			}
		}
		if diff := cmp.Diff(got[1], got[0]); diff != "" {
			t.Errorf("%s: %s", source, diff)
		}
	}
	for _, source := range []string{"params.gone", "params.text.more", "params.deep.gone.more"} {
		compiled, issues := env.Compile(source, nil)
		if len(issues) > 0 {
			t.Fatal(source, issues)
		}
		if value, err := compiled.Eval(vars); err == nil {
			t.Errorf("%s is %v, want an error", source, value)
		}
	}
}
