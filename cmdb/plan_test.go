package cmdb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

func TestApplyTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	db := shop(t)
	before := db.Revision()
	plan := apply(t, db, cmdb.Dir("testdata/site"))
	if !plan.Empty() || plan.Unchanged != 13 {
		t.Errorf("second plan: %d changes, %d unchanged: %s", len(plan.Changes), plan.Unchanged, plan)
	}
	if db.Revision() != before {
		t.Errorf("an empty plan moved the revision from %d to %d", before, db.Revision())
	}
	m, err := db.Module("shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Packages[0].Version; got != "1.10" {
		t.Errorf("a version is text as written: got %q", got)
	}
	if got := m.Services[0].Weight; got != 100 {
		t.Errorf("default weight: got %d", got)
	}
}

func TestPlanSaysWhatWouldHappen(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "e1", Key: "k", Module: "shop.cart", Names: []string{"d1"}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "e1", "d1", ""); err != nil {
		t.Fatal(err)
	}
	text := `
kind: module
name: shop.cart
business: shop
packages: [{name: cart, version: "1.11"}, {name: libs, version: "3"}]
services: [{id: shop.cart, port: 8080}]
---
kind: site
name: bj-1
city: beijing
`
	plan, err := db.Plan(ctx, docs(text))
	if err != nil {
		t.Fatal(err)
	}
	got := plan.String()
	for _, want := range []string{
		"1 to create, 1 to update, 0 to delete",
		"+ site bj-1",
		`~ packages[cart].version: "1.10" -> "1.11"`,
		`+ packages[libs].version: "3"`,
		"touches 1 module (shop.cart), 1 device (d1), 2 sites (bj-1, sz-1), 1 caller (shop.web)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the plan does not say %q:\n%s", want, got)
		}
	}
}

func TestStalePlanIsRefused(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	site := func(city string) cmdb.Source { return docs("kind: site\nname: sz-1\ncity: " + city) }
	plan, err := db.Plan(ctx, site("dongguan"))
	if err != nil {
		t.Fatal(err)
	}
	// What does not matter to the plan does not make it stale.
	apply(t, db, docs("kind: site\nname: bj-1\ncity: beijing"))
	other, err := db.Plan(ctx, site("dongguan"))
	if err != nil {
		t.Fatal(err)
	}
	if plan.Hash != other.Hash {
		t.Errorf("same changes, hashes %s and %s", plan.Hash, other.Hash)
	}
	apply(t, db, site("huizhou"))
	if _, err := db.Apply(ctx, plan); !errors.Is(err, cmdb.ErrStale) {
		t.Errorf("apply of a stale plan: %v", err)
	}
	if s, _ := db.Site("sz-1"); s.City != "huizhou" {
		t.Errorf("a refused plan changed the site: %+v", s)
	}
	if _, err := db.Apply(ctx, plan, cmdb.Expect("0000")); !errors.Is(err, cmdb.ErrStale) {
		t.Errorf("apply with another hash expected: %v", err)
	}
}

func TestRelationsHold(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		source cmdb.Source
		opts   []cmdb.PlanOption
		want   string
	}{
		{"no such site", cmdb.Named{{Name: "x.yaml", Data: []byte("kind: device\nname: d9\naddr: 1.2.3.4\nsite: sz-9\ntype: b6")}}, nil,
			`x.yaml:4: device d9: site "sz-9" names no site; did you mean sz-1?`},
		{"no such service", docs("kind: module\nname: m\npermissions:\n- shop.cart\n- nowhere.at.all"), nil,
			`document 1:5: module m: permissions[1] "nowhere.at.all" names no service; declare it under services of the module that provides it`},
		{"site in use", nil, []cmdb.PlanOption{cmdb.Remove("site", "sh-1")},
			`device d4: site "sh-1" would name no site any more; keep the site, or change this first`},
		{"service in use", docs("kind: module\nname: shop.cart\nbusiness: shop"), nil,
			`module shop.web: permissions[0] "shop.cart" would name no service any more; keep the service, or change this first`},
		{"service twice", docs("kind: module\nname: m\nservices: [{id: shop.cart, port: 1}]"), nil,
			`document 1:3: module m: services "shop.cart" is provided by module/shop.cart already; choose another service id`},
		{"two modules of one document", docs("kind: module\nname: a\nservices: [{id: s, port: 1}]\n---\nkind: module\nname: b\nservices: [{id: s, port: 1}]"), nil,
			`document 1:7: module b: services "s" is provided by module/a already; choose another service id`},
		{"declared twice", docs("kind: site\nname: x\ncity: c", "kind: site\nname: x\ncity: d"), nil,
			`document 2:2: site x: name "x" is declared already at document 1:1; keep one of the two`},
		{"idle device removed", nil, []cmdb.PlanOption{cmdb.Remove("device", "d1")},
			`device d1: state "idle" is to be removed and is not retired; retire it first`},
		{"state by document", docs("kind: device\nname: d1\naddr: 127.0.1.1\nsite: sz-1\ntype: b6\nstate: retired"), nil,
			`document 1:6: device d1: state "retired" is not as it is now, and no document changes it; leave it out; acquire, serve, release, repair and retire change it`},
		{"businesses in a circle", docs("kind: business\nname: a\nowner: o\nparent: b\n---\nkind: business\nname: b\nowner: o\nparent: a"), nil,
			`document 1:4: business a: parent "b" leads back to the business itself; choose a parent outside of it` + "\n" +
				`document 1:9: business b: parent "a" leads back to the business itself; choose a parent outside of it`},
	}
	db := shop(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			plan, err := db.Plan(t.Context(), test.source, test.opts...)
			if !errors.Is(err, cmdb.ErrInvalid) {
				t.Fatalf("want faults, got plan %v, error %v", plan, err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPruneAndTwoReaders(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	a, b := open(t, s), open(t, s)
	apply(t, a, cmdb.Dir("testdata/site"))
	apply(t, b, docs("kind: site\nname: bj-1\ncity: beijing"))
	plan := apply(t, a, cmdb.Dir("testdata/site"), cmdb.Prune())
	if got := len(plan.Changes); got != 1 || plan.Changes[0].Ref.String() != "site/bj-1" || plan.Changes[0].Action != "delete" {
		t.Errorf("prune: %s", plan)
	}
	if len(a.Sites()) != 3 {
		t.Errorf("sites: %v", a.Sites())
	}
}
