package rule_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	rules := parse(t, `{"locality": {"prefer": "site"}, "routes": [
		{"name": "canary", "to": [{"select": {"version": "v2"}, "weight": 5}, {"select": {"version": "v1"}, "weight": 95}]}]}`)
	table := rule.Compile(rules, rule.Caller{Place: rule.Place{Site: "sz-1", City: "sz"}}, rules.Settings)
	layout := table.Layout(table.Plain(), shop)
	var got []string
	for i, f := range layout.Explain(loads(len(shop))) {
		got = append(got, fmt.Sprintf("%s %s rule %.4g locality %.4g subset %.4g share %.4g", shop[i].Addr, f.Level, f.Rule, f.Locality, f.Subset, f.Share))
	}
	want := []string{
		"a:1 site rule 0.95 locality 3 subset 1 share 0.95", "a:2 city rule 0.95 locality 0 subset 0 share 0",
		"b:1 any rule 0.05 locality 1 subset 1 share 0.05", "c:1 any rule 0.95 locality 0 subset 0 share 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is explained is what is done: factors multiply to the weights that calls are spread by, and shares add up to 1.
func TestExplainSaysWhatWeighDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members := fleet()
		loads := make([]rule.Load, len(members))
		for i := range loads {
			loads[i] = rule.Load{Full: 100, InForce: rapid.SampledFrom([]float64{0, 10, 100}).Draw(t, "in force")}
		}
		settings := rule.Settings{Subset: rapid.IntRange(0, 3).Draw(t, "subset"), Locality: rule.Locality{Prefer: rapid.SampledFrom([]string{"", "device", "site"}).Draw(t, "prefer")}}
		table := rule.Compile(rule.Rules{}, rule.Caller{Place: here, Seed: rapid.Uint64().Draw(t, "seed")}, settings)
		layout := table.Layout(table.Plain(), members)
		split, factors := layout.Weigh(loads), layout.Explain(loads)
		if len(split.Picks) == 0 {
			return
		}
		weights := make(map[int]float64)
		for k, i := range split.Picks[0].Indexes {
			weights[int(i)] = split.Picks[0].Weights[k]
		}
		var sum float64
		for i, f := range factors {
			sum += f.Share
			if product := loads[i].InForce * f.Locality * f.Subset; math.Abs(product-weights[i]) > 1e-6 {
				t.Fatalf("%s: %v in force, %+v make %.4f; its weight is %.4f", members[i].Addr, loads[i].InForce, f, product, weights[i])
			}
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Fatalf("shares add up to %v", sum)
		}
	})
}
