package l5_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// Every factor of a weight is told, and they multiply to it.
func TestExplainTellsFactors(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	versions(t, s, 2)
	rules(t, s, strings.Replace(canary, "{", `{"locality": {"prefer": "site"}, "isolate": {"127.0.0.1:101": "heap dump"}, `, 1))
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:1": 50}); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Site, c.Failures = "sz-1", 3 })
	route(t, c, "a")
	await(t, "the share", func() bool { return c.Explain("a").Instances[0].Share == 50 })
	explanation := c.Explain("a")
	if explanation.Route != "canary" || explanation.RulesRevision == 0 || explanation.Locality.Prefer != "site" || explanation.Site != "sz-1" || explanation.Policy != "two-choices" {
		t.Errorf("got %+v", explanation)
	}
	var got []string
	for _, i := range explanation.Instances {
		line, product := fmt.Sprintf("%s %s %.0f %% %s:", i.Addr, i.Distance, 100*i.PickShare, i.Reason), 1.0
		for _, f := range i.Factors {
			line += fmt.Sprintf(" %s %.3g", f.Name, f.Value)
			if f.Name != "rule" {
				product *= f.Value
			}
		}
		if product != i.Weight {
			t.Errorf("the factors of %s make %v, its weight is %v", i.Addr, product, i.Weight)
		}
		got = append(got, line)
	}
	const healthy = " capacity 1 start 1 latency 1 health 1"
	want := []string{
		"127.0.0.1:1 site 95 % up; rule x0.95, locality x3: weight 100 gray 0.5" + healthy + " rule 0.95 locality 3 subset 1",
		"127.0.0.1:101 site 0 % isolated: heap dump: takes no calls: weight 100 gray 1 state 0",
		"127.0.0.1:102 any 5 % up; rule x0.05: weight 100 gray 1" + healthy + " rule 0.05 locality 1 subset 1",
		"127.0.0.1:2 any 0 % calls stay nearer while there is capacity: this is any: takes no calls: weight 100 gray 1" + healthy + " rule 0.95 locality 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(explanation); err != nil {
		t.Error(err)
	}
	testers := c.Explain("a", l5.Label{Key: "user", Value: "tester"})
	if testers.Route != "testers" || testers.Instances[0].PickShare != 0 || testers.Instances[2].PickShare != 1 {
		t.Errorf("for testers: %+v", testers)
	}
}

// What failed, when and how often, and what was refused and why.
func TestExplainGivesEvidence(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 4, 100)); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Failures, c.MaxInFlight = 3, 1 })
	broken := errors.New("status 503")
	await(t, "an ejection", func() bool {
		r, err := c.Route(within(t), "a")
		if err != nil {
			t.Fatal(err)
		}
		r.Done(l5.Outcome{Err: map[bool]error{true: broken}[r.Addr() == "127.0.0.1:1"]})
		return len(c.Explain("a").Instances[0].History) > 0
	})
	got := c.Explain("a").Instances[0]
	if got.Failures < 3 || got.History[0].At.IsZero() || !strings.Contains(got.History[0].Reason, "status 503") || got.History[0].From.String() != "up" {
		t.Errorf("got %+v", got)
	}
	for range 10 {
		c.Route(within(t), "a") // never done: they are in flight
	}
	if refused := c.Explain("a").Refused["instance_full"]; refused == 0 {
		t.Error("no call was refused")
	}
}
