package cmdb_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

// running is a DB whose Run goes on until stop.
type running struct {
	*cmdb.DB
	stop func()
}

// run runs a DB on s, or on a new store.
func run(t testing.TB, s ...cmdb.Store) running {
	t.Helper()
	if len(s) == 0 {
		s = append(s, memstore.New())
	}
	db, err := cmdb.New(cmdb.Config{Store: s[0]})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := db.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if err := db.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return running{db, func() { cancel(); wait.Wait() }}
}

// open runs a DB on s until the test ends.
func open(t testing.TB, s cmdb.Store) *cmdb.DB {
	t.Helper()
	db := run(t, s)
	t.Cleanup(db.stop)
	return db.DB
}

// shop is a DB with the declarations of testdata/site.
func shop(t testing.TB) *cmdb.DB {
	t.Helper()
	db := open(t, memstore.New())
	apply(t, db, cmdb.Dir("testdata/site"))
	return db
}

func apply(t testing.TB, db *cmdb.DB, source cmdb.Source, opts ...cmdb.PlanOption) *cmdb.Plan {
	t.Helper()
	plan, err := db.Plan(t.Context(), source, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Apply(t.Context(), plan, cmdb.By("test"), cmdb.Because("set up")); err != nil {
		t.Fatal(err)
	}
	return plan
}

func names(devices []cmdb.Device) []string {
	out := make([]string, len(devices))
	for i, d := range devices {
		out[i] = d.Name
	}
	return out
}

func docs(texts ...string) cmdb.Source {
	data := make([][]byte, len(texts))
	for i, text := range texts {
		data[i] = []byte(text)
	}
	return cmdb.Documents(data...)
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := cmdb.New(cmdb.Config{ExpireEvery: -1, KeepHistory: -2, KeepAcquisitions: -3})
	for _, field := range []string{"Store", "ExpireEvery", "KeepHistory", "KeepAcquisitions"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("New does not name %s: %v", field, err)
		}
	}
}

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

func TestParseNamesPlaceAndMend(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"no kind", "name: x", `d.yaml:1: kind "" is missing; use one of site, device_type, init_profile, business, module, device`},
		{"unknown kind", "kind: sight\nname: x", `kind "sight" is unknown`},
		{"unknown field", "kind: site\nname: x\ncity: c\ntitel: y", `d.yaml:4: site x: titel "y" is an unknown field; did you mean title?`},
		{"twice", "kind: site\nname: x\ncity: c\ncity: d", `d.yaml:4: site x: city "city" is there twice; keep one of them`},
		{"bad name", "kind: site\nname: X y\ncity: c", `name "X y" is not a name`},
		{"number", "kind: device_type\nname: t\ncores: many", `d.yaml:3: device_type t: cores "many" is no whole number; write digits only`},
		{"list", "kind: module\nname: m\npackages: cart", `d.yaml:3: module m: packages "cart" is no list`},
		{"nested", "kind: module\nname: m\npackages:\n- name: p\n  version: 1\n- name: p\n  version: 2", `d.yaml:6: module m: packages[1].name "p" is there twice, first at 0; keep one of them`},
		{"path", "kind: module\nname: m\nfiles: [{source: s, path: ../../etc/passwd}]", `files[0].path "../../etc/passwd" is not a path below the device's root`},
		{"duration", "kind: module\nname: m\nscripts:\n- {name: s, path: p, timeout: soon}", `d.yaml:4: module m: scripts[0].timeout "soon" cannot be read; write a duration such as 30s or 1m30s`},
		{"syntax", "kind: [", `d.yaml: is not YAML: line 1`},
		{"scalar", "hello", `d.yaml:1: is no object`},
		{"aliases that explode", "kind: module\nname: m\nprocesses:\n- &p {name: p, command: [" + strings.Repeat("a,", 999) + "a]}\n" + strings.Repeat("- *p\n", 999), `is too deep or too large`},
		{"merge key", "kind: site\nname: x\ncity: c\nlabels: {<<: {a: b}}", `has a key that is no text`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := cmdb.Parse(cmdb.Document{Name: "d.yaml", Data: []byte(test.text)})
			if !errors.Is(err, cmdb.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %s\ngot  %v", test.want, err)
			}
		})
	}
}

func TestLifeOfADevice(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	acquired, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "exec-1", Key: "acquire", Module: "shop.cart", Count: 2, City: "shenzhen", Types: []string{"c1", "b6"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"d2", "d1"}, names(acquired)); diff != "" {
		t.Errorf("first types first: %s", diff)
	}
	if err := db.Serve(ctx, "exec-1", "d2", "", cmdb.By("flow"), cmdb.Because("expand")); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "exec-2", "d1", "", cmdb.By("flow")); !errors.Is(err, cmdb.ErrState) {
		t.Errorf("another owner serves: %v", err)
	}
	if released, err := db.Release(ctx, "exec-1", []string{"d1", "d2", "d3", "nope"}); err != nil || !slices.Equal(released, []string{"d1"}) {
		t.Errorf("release: %v, %v", released, err)
	}
	if _, err := db.Hold(ctx, "exec-3", []string{"d2"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	d, err := db.Device("d2")
	if err != nil || d.State != cmdb.Held || d.Holder != "exec-3" || d.Module != "shop.cart" {
		t.Errorf("held for contraction: %+v, %v", d, err)
	}
	if err := db.MarkFaulty(ctx, "d2", "disk gone", cmdb.By("drift")); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "exec-3", "d2", "shop.cart"); !errors.Is(err, cmdb.ErrState) {
		t.Errorf("a faulty device is served: %v", err)
	}
	if err := db.Retire(ctx, "d2", cmdb.By("ann")); err != nil {
		t.Fatal(err)
	}
	if err := db.Repair(ctx, "d2", cmdb.By("ann")); !errors.Is(err, cmdb.ErrState) {
		t.Errorf("a retired device is repaired: %v", err)
	}
	want := map[cmdb.State]int{cmdb.Idle: 3, cmdb.Held: 0, cmdb.InService: 0, cmdb.Faulty: 0, cmdb.Retired: 1}
	if diff := cmp.Diff(want, db.Counts()); diff != "" {
		t.Errorf("I10: %s", diff)
	}
	if _, err := db.Delete(ctx, cmdb.KindDevice, "d2", cmdb.By("ann")); err != nil {
		t.Fatal(err)
	}
	history, err := db.History(ctx, cmdb.KindDevice, "d2")
	if err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, c := range history {
		story = append(story, c.Action+" by "+c.Actor)
	}
	if diff := cmp.Diff([]string{"create by test", "acquire by exec-1", "serve by flow", "hold by exec-3", "mark_faulty by drift", "retire by ann", "delete by ann"}, story); diff != "" {
		t.Error(diff)
	}
	if history[2].Reason != "expand" || history[2].Execution != "exec-1" || history[4].Reason != "disk gone" {
		t.Errorf("reason and execution are kept: %+v", history)
	}
}

func TestAcquireIsIdempotent(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	request := cmdb.AcquireRequest{Owner: "e", Key: "k", Count: 2}
	first, err := db.Acquire(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := db.Acquire(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	other := request
	other.Count = 1
	if _, err := db.Acquire(ctx, other); !errors.Is(err, cmdb.ErrKeyReused) {
		t.Errorf("one key, two requests: %v", err)
	}
	var lack *cmdb.NoDeviceError
	if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "f", Key: "k", Count: 3, City: "shenzhen"}); !errors.As(err, &lack) || lack.Idle != 1 || lack.IdleTotal != 2 {
		t.Errorf("too few: %v", err)
	}
	if _, err := db.Release(ctx, "e", names(first)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Acquire(ctx, request); !errors.Is(err, cmdb.ErrEnded) {
		t.Errorf("a late duplicate after the release: %v", err)
	}
}

func TestExpiredHoldsGoBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := shop(t)
		ctx := t.Context()
		if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "e", Key: "k", Module: "shop.cart", Names: []string{"d1", "d2"}, TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if err := db.Serve(ctx, "e", "d2", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if _, err := db.Hold(ctx, "f", []string{"d2"}, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if err := db.Renew(ctx, "e", []string{"d1"}, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if d, _ := db.Device("d1"); d.State != cmdb.Held {
			t.Errorf("a renewed hold ended: %+v", d)
		}
		if d, _ := db.Device("d2"); d.State != cmdb.InService || d.Module != "shop.cart" {
			t.Errorf("an expired Hold goes back into service: %+v", d)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if d, _ := db.Device("d1"); d.State != cmdb.Idle || d.Holder != "" || d.Module != "" {
			t.Errorf("an expired hold goes back to idle: %+v", d)
		}
	})
}

func TestReads(t *testing.T) {
	t.Parallel()
	db := shop(t)
	if got := names(db.Devices(cmdb.DeviceFilter{City: "shenzhen", Type: "b6", State: cmdb.Idle})); !slices.Equal(got, []string{"d1", "d3"}) {
		t.Errorf("devices: %v", got)
	}
	page, after, err := db.List(cmdb.KindDevice, cmdb.ListOptions{Filter: `state == "idle" && (site == "sz-1" || type == "b6")`, Limit: 3})
	if err != nil || len(page) != 3 || after != "d3" {
		t.Errorf("page: %v, after %q, %v", page, after, err)
	}
	page, after, err = db.List(cmdb.KindDevice, cmdb.ListOptions{Limit: 3, After: after})
	if err != nil || len(page) != 1 || after != "" {
		t.Errorf("last page: %v, after %q, %v", page, after, err)
	}
	page, _, err = db.List(cmdb.KindDevice, cmdb.ListOptions{Filter: `labels.rack == "a1"`})
	if err != nil || len(page) != 1 {
		t.Errorf("by label: %v, %v", page, err)
	}
	page, _, err = db.List(cmdb.KindModule, cmdb.ListOptions{Filter: `scale.min >= 2 && packages.exists(p, p.name == "cart")`})
	if err != nil || len(page) != 1 {
		t.Errorf("by nested fields: %v, %v", page, err)
	}
	if _, _, err := db.List(cmdb.KindDevice, cmdb.ListOptions{Filter: `stat == "idle"`}); !errors.Is(err, cmdb.ErrRequest) {
		t.Errorf("wrong filter: %v", err)
	}
	if m, err := db.Provider("shop.cart"); err != nil || m.Name != "shop.cart" {
		t.Errorf("provider: %v, %v", m, err)
	}
	if got := db.Callers("shop.cart"); !slices.Equal(got, []string{"shop.web"}) {
		t.Errorf("callers: %v", got)
	}
	if _, err := db.Device("nope"); !errors.Is(err, cmdb.ErrNotFound) {
		t.Errorf("missing device: %v", err)
	}
}

func TestWatchSeesEachCommitWhole(t *testing.T) {
	t.Parallel()
	db := shop(t)
	after := db.Revision()
	if _, err := db.Acquire(t.Context(), cmdb.AcquireRequest{Owner: "e", Key: "k", Count: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Release(t.Context(), "e", []string{"d1"}); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for event, err := range db.Watch(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		var line []string
		for _, o := range event.Objects {
			d, ok := o.New.(*cmdb.Device)
			if !ok {
				t.Fatalf("unexpected %v", o)
			}
			line = append(line, d.Name+" "+string(d.State))
		}
		if got = append(got, line); len(got) == 2 {
			break
		}
	}
	if diff := cmp.Diff([][]string{{"d1 held", "d2 held"}, {"d1 idle"}}, got); diff != "" {
		t.Error(diff)
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
