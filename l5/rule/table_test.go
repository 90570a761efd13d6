package rule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

func parse(t testing.TB, document string) rule.Rules {
	t.Helper()
	rules, err := rule.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// shop is what most tests route in: v1 at a:1, a:2; v2 at b:1; a lane of its own at c:1.
var shop = []rule.Member{
	{Addr: "a:1", Labels: map[string]string{"version": "v1"}, Place: rule.Place{Device: "d1", Site: "sz-1", City: "sz"}},
	{Addr: "a:2", Labels: map[string]string{"version": "v1"}, Place: rule.Place{Device: "d2", Site: "sz-2", City: "sz"}},
	{Addr: "b:1", Labels: map[string]string{"version": "v2"}, Place: rule.Place{Device: "d3", Site: "sh-1", City: "sh"}},
	{Addr: "c:1", Labels: map[string]string{"version": "v1", "lane": "blue"}, Module: "shop.cart"},
}

func loads(members int, down ...int) []rule.Load {
	out := make([]rule.Load, members)
	for i := range out {
		out[i] = rule.Load{Full: 100, InForce: 100}
	}
	for _, i := range down {
		out[i].InForce = 0
	}
	return out
}

// where says where the calls of a class go: "share: addr*weight addr*weight; share: ...".
func where(layout rule.Layout, members []rule.Member, loads []rule.Load) string {
	split := layout.Weigh(loads)
	var out []string
	for _, pick := range split.Picks {
		part := fmt.Sprintf("%.4g:", pick.Share)
		for k, i := range pick.Indexes {
			part += fmt.Sprintf(" %s*%.4g", members[i].Addr, pick.Weights[k])
		}
		out = append(out, part)
	}
	if split.FellBack {
		out = append(out, "fell back")
	}
	return strings.Join(out, "; ")
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	const document = `{"routes": [
		{"name": "testers", "match": {"labels": {"user": ["tester", "dev"]}}, "to": [{"select": {"version": "v2"}}], "fallback": "fail"},
		{"name": "traced", "match": {"labels": {"trace": ["*"], "user": ["vip"]}}, "to": [{"select": {"@addr": "a:1"}}]},
		{"name": "lanes", "match": {"caller_labels": {"lane": ["*"]}}, "to": [{"select": {"lane": "@caller"}}]},
		{"name": "north", "match": {"cities": ["bj"], "devices": ["d9"]}, "to": [{"select": {"@site": "sz-1"}}]},
		{"name": "canary", "match": {"callers": ["shop.*", "pay"]}, "to": [{"select": {"version": "v2"}, "weight": 5}, {"select": {"version": "v1"}, "weight": 95}]}
	]}`
	const all = "1: a:1*100 a:2*100 b:1*100 c:1*100"
	for _, test := range []struct {
		name        string
		caller      rule.Caller
		labels      []rule.Label
		down        []int
		route, want string
	}{
		{"no route", rule.Caller{Module: "x"}, nil, nil, "", all},
		{"canary", rule.Caller{Module: "shop.web"}, nil, nil, "canary", "0.05: b:1*100; 0.95: a:1*100 a:2*100 c:1*100"},
		{"canary by whole name", rule.Caller{Module: "pay"}, nil, nil, "canary", "0.05: b:1*100; 0.95: a:1*100 a:2*100 c:1*100"},
		{"no prefix without a star", rule.Caller{Module: "pay.web"}, nil, nil, "", all},
		{"the canary is down", rule.Caller{Module: "pay"}, nil, []int{2}, "canary", "1: a:1*100 a:2*100 c:1*100"},
		{"all versions are down but the lane", rule.Caller{Module: "pay"}, nil, []int{0, 1, 2}, "canary", "1: c:1*100"},
		{"a call's label", rule.Caller{Module: "pay"}, []rule.Label{{"user", "dev"}}, nil, "testers", "1: b:1*100"},
		{"fallback fails", rule.Caller{Module: "pay"}, []rule.Label{{"user", "tester"}}, []int{2}, "testers", ""},
		{"two labels", rule.Caller{Module: "x"}, []rule.Label{{"user", "vip"}, {"trace", "7"}}, nil, "traced", "1: a:1*100"},
		{"one of two labels", rule.Caller{Module: "x"}, []rule.Label{{"user", "vip"}}, nil, "", all},
		{"labels that no route asks for", rule.Caller{Module: "x"}, []rule.Label{{"a", "b"}}, nil, "", all},
		{"mirrored", rule.Caller{Module: "x", Labels: map[string]string{"lane": "blue"}}, nil, nil, "lanes", "1: c:1*100"},
		{"mirrored, nobody there", rule.Caller{Module: "x", Labels: map[string]string{"lane": "red"}}, nil, nil, "lanes", all + "; fell back"},
		{"place", rule.Caller{Place: rule.Place{City: "bj", Device: "d9"}}, nil, nil, "north", "1: a:1*100"},
		{"half a place", rule.Caller{Place: rule.Place{City: "bj"}}, nil, nil, "", all},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rules := parse(t, document)
			table := rule.Compile(rules, test.caller, rules.Settings)
			class := table.Class(test.labels)
			if got := table.Name(class); got != test.route {
				t.Errorf("route %q, want %q", got, test.route)
			}
			if diff := cmp.Diff(test.want, where(table.Layout(class, shop), shop, loads(len(shop), test.down...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestClassAllocatesNothing(t *testing.T) {
	rules := parse(t, `{"routes": [{"name": "a", "match": {"labels": {"user": ["x"], "trace": ["*"]}}, "to": [{}]}]}`)
	table := rule.Compile(rules, rule.Caller{}, rule.Settings{})
	user := "x"
	if allocs := testing.AllocsPerRun(100, func() {
		if table.Class([]rule.Label{{"user", user}, {"trace", user}}) != 0 {
			t.Error("no match")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkClass(b *testing.B) {
	rules := parse(b, `{"routes": [
		{"name": "a", "match": {"labels": {"user": ["x"]}}, "to": [{}]}, {"name": "b", "match": {"labels": {"user": ["y"]}}, "to": [{}]}]}`)
	table := rule.Compile(rules, rule.Caller{}, rule.Settings{})
	b.ReportAllocs()
	for b.Loop() {
		table.Class([]rule.Label{{"user", "y"}})
	}
}
