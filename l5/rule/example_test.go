package rule_test

import (
	"fmt"

	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// A canary gets 5 % of the calls of one caller.
func Example() {
	rules, err := rule.Parse([]byte(`{"routes": [{"name": "canary", "match": {"callers": ["shop.web"]},
		"to": [{"select": {"version": "v2"}, "weight": 5}, {"select": {"version": "v1"}, "weight": 95}]}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	members := []rule.Member{
		{Addr: "10.0.0.1:80", Labels: map[string]string{"version": "v1"}},
		{Addr: "10.0.0.2:80", Labels: map[string]string{"version": "v2"}},
	}
	table := rule.Compile(rules, rule.Caller{Module: "shop.web"}, rules.Settings)
	layout := table.Layout(table.Class(nil), members)
	for _, pick := range layout.Weigh([]rule.Load{{Full: 100, InForce: 100}, {Full: 100, InForce: 100}}).Picks {
		for _, i := range pick.Indexes {
			fmt.Printf("%.0f %% to %s\n", 100*pick.Share, members[i].Addr)
		}
	}
	// Output:
	// 5 % to 10.0.0.2:80
	// 95 % to 10.0.0.1:80
}

// What is wrong is said with field, value and what would be right.
func ExampleParse() {
	_, err := rule.Parse([]byte(`{"locality": {"prefer": "rack"}}`))
	fmt.Println(err)
	// Output: l5/rule: locality.prefer is "rack": want device, site, city or any
}
