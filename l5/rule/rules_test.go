package rule_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// Every bad rule is refused with the field, the value and what would be right.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	route := func(rest string) string { return `{"routes":[{"name":"a",` + rest + `}]}` }
	for _, test := range []struct {
		name, document string
		want           []string // parts of the error
	}{
		{"no JSON", "{\n\"subset\": 5,\n}", []string{"line 3", "JSON"}},
		{"no document", `[]`, []string{"not a document"}},
		{"unknown field", `{"subsets":5}`, []string{"subsets"}},
		{"more follows", `{} {}`, []string{"something follows"}},
		{"wrong type", `{"subset":"five"}`, []string{"subset", "string"}},
		{"subset", `{"subset":-5}`, []string{"subset is -5", "leave it out for all"}},
		{"policy", `{"policy":"best"}`, []string{`policy is "best"`, "want one of"}},
		{"prefer", `{"locality":{"prefer":"rack"}}`, []string{`locality.prefer is "rack"`, "device, site, city or any"}},
		{"spare", `{"locality":{"spare":0.5}}`, []string{"locality.spare is 0.5", "1 to 100"}},
		{"demand", `{"locality":{"demand":{"sz":1.5}}}`, []string{"locality.demand[sz] is 1.5", "0 to 1"}},
		{"name", `{"routes":[{"name":"a b","to":[{}]}]}`, []string{`routes[0].name is "a b"`, "letters"}},
		{"two of a name", `{"routes":[{"name":"a","match":{"sites":["x"]},"to":[{}]},{"name":"a","to":[{}]}]}`, []string{`routes[1].name is "a" as is routes[0].name`}},
		{"no destination", route(`"to":[]`), []string{"routes[0] (a).to has 0 destinations", "1 to 16"}},
		{"weight", route(`"to":[{"weight":-5}]`), []string{"to[0].weight is -5", "0 to 1000000"}},
		{"fallback", route(`"to":[{}],"fallback":"retry"`), []string{`fallback is "retry"`, "any or fail"}},
		{"attribute", route(`"to":[{"select":{"@rack":"1"}}]`), []string{`"@rack"`, "@addr, @device"}},
		{"mirror", route(`"to":[{"select":{"lane":"@callee"}}]`), []string{`"@callee"`, "@caller"}},
		{"empty value", route(`"to":[{"select":{"lane":""}}]`), []string{"to[0].select[lane]", "printable"}},
		{"empty list", route(`"to":[{}],"match":{"sites":[]}`), []string{"match.sites is empty", "leave it out"}},
		{"star", route(`"to":[{}],"match":{"sites":["s*"]}`), []string{`match.sites[0] is "s*"`, "end of a caller"}},
		{"label star", route(`"to":[{}],"match":{"labels":{"u":["x*"]}}`), []string{`match.labels[u] is "x*"`, "* alone"}},
		{"no label value", route(`"to":[{}],"match":{"labels":{"u":[]}}`), []string{"match.labels[u] is empty"}},
		{"unreachable", `{"routes":[{"name":"a","to":[{}]},{"name":"b","to":[{}]}]}`, []string{`routes[0] ("a") matches every call`, "put it last"}},
		{"isolated address", `{"isolate":{"web-17":"x"}}`, []string{`"web-17"`, "host:port"}},
		{"no reason", `{"isolate":{"10.0.0.1:80":" "}}`, []string{`isolate["10.0.0.1:80"]`, "why"}},
		{"all at once", `{"subset":-1,"policy":"x","routes":[{"name":"","to":[]}]}`, []string{"subset is -1", "policy is", "routes[0].name", "to has 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := rule.Parse([]byte(test.document))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
		})
	}
}

func TestParseRefusesTooMany(t *testing.T) {
	t.Parallel()
	var many rule.Rules
	for i := range rule.MaxConditions + 1 {
		many.Routes = append(many.Routes, rule.Route{
			Name: fmt.Sprint("r", i), To: []rule.Destination{{}}, Match: rule.Match{Labels: map[string][]string{"user": {fmt.Sprint(i)}}},
		})
	}
	err := many.Check()
	if err == nil || !strings.Contains(err.Error(), "routes has 65: want at most 64") || !strings.Contains(err.Error(), "65 different conditions") {
		t.Errorf("got %v", err)
	}
}

// What a newer version wrote is used as far as it is understood, route by route.
func TestRead(t *testing.T) {
	t.Parallel()
	got, faults := rule.Read([]byte(`{"subset": 7, "later": true, "locality": {"prefer": "planet"}, "routes": [
		{"name": "a", "match": {"sites": ["x"]}, "to": [{}]},
		{"name": "b", "match": {"sites": ["x"], "hours": [9]}, "to": [{}]},
		{"name": "c", "to": [{}]}]}`))
	want := rule.Rules{Settings: rule.Settings{Subset: 7}, Routes: []rule.Route{
		{Name: "a", Match: rule.Match{Sites: []string{"x"}}, To: []rule.Destination{{}}}, {Name: "c", To: []rule.Destination{{}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(faults) != 2 || !strings.Contains(faults[0].Error(), "planet") || !strings.Contains(faults[1].Error(), "routes[1]") {
		t.Errorf("faults: %v", faults)
	}
	if _, faults := rule.Read([]byte("nonsense")); len(faults) != 1 {
		t.Errorf("faults of nonsense: %v", faults)
	}
	if r, faults := rule.Read(nil); len(faults) != 0 || len(r.Routes) != 0 {
		t.Errorf("nothing: %v, %v", r, faults)
	}
}

// Settings come field by field from the first who says something.
func TestSettingsOver(t *testing.T) {
	t.Parallel()
	program := rule.Settings{Subset: 5}
	document := rule.Settings{Subset: 9, Locality: rule.Locality{Prefer: "site"}}
	fallback := rule.Settings{Policy: "p", Locality: rule.Locality{Prefer: "city", Spare: 2, Demand: map[string]float64{"sz": 1}}}
	want := rule.Settings{Policy: "p", Subset: 5, Locality: rule.Locality{Prefer: "site", Spare: 2, Demand: map[string]float64{"sz": 1}}}
	if diff := cmp.Diff(want, program.Over(document).Over(fallback)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"locality":{"prefer":"site","demand":{"sz":0.5}},"subset":5,"isolate":{"[::1]:80":"x"}}`))
	f.Add([]byte(`{"routes":[{"name":"a","match":{"callers":["x*"],"labels":{"k":["*","v"]}},"to":[{"select":{"@site":"@caller"},"weight":3}],"fallback":"fail"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		loose, _ := rule.Read(data)
		rule.Compile(loose, rule.Caller{}, loose.Settings)
		rules, err := rule.Parse(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(rules)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rule.Parse(again); err != nil {
			t.Fatalf("%s was accepted, but not when written again as %s: %v", data, again, err)
		}
		table := rule.Compile(rules, rule.Caller{Module: "x"}, rules.Settings)
		for class := range table.Classes() {
			layout := table.Layout(class, []rule.Member{{Addr: "a:1"}, {Addr: "b:1"}})
			var sum float64
			split := layout.Weigh([]rule.Load{{Full: 1, InForce: 1}, {Full: 1, InForce: 1}})
			for _, pick := range split.Picks {
				sum += pick.Share
			}
			if len(split.Picks) > 0 && (sum < 0.999 || sum > 1.001) {
				t.Fatalf("class %d: shares add up to %v", class, sum)
			}
		}
	})
}
