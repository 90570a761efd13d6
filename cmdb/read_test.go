package cmdb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

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

func TestReadsByEveryFilter(t *testing.T) {
	t.Parallel()
	db := shop(t)
	ctx := t.Context()
	if _, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "e", Key: "k", Module: "shop.cart", Names: []string{"d1", "d2"}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Serve(ctx, "e", "d2", ""); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		filter cmdb.DeviceFilter
		want   []string
	}{
		{cmdb.DeviceFilter{}, []string{"d1", "d2", "d3", "d4"}},
		{cmdb.DeviceFilter{Module: "shop.cart"}, []string{"d1", "d2"}},
		{cmdb.DeviceFilter{Module: "shop.cart", State: cmdb.InService}, []string{"d2"}},
		{cmdb.DeviceFilter{State: cmdb.InService}, []string{"d2"}},
		{cmdb.DeviceFilter{Holder: "e"}, []string{"d1"}},
		{cmdb.DeviceFilter{Site: "sz-1"}, []string{"d1", "d2"}},
		{cmdb.DeviceFilter{Type: "b6"}, []string{"d1", "d3", "d4"}},
		{cmdb.DeviceFilter{City: "shanghai"}, []string{"d4"}},
		{cmdb.DeviceFilter{City: "shanghai", State: cmdb.Held}, []string{}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, names(db.Devices(test.filter))); diff != "" {
			t.Errorf("%+v: %s", test.filter, diff)
		}
	}
	blast, err := db.BlastRadius(cmdb.KindSite, "sz-1")
	if err != nil || !slices.Equal(blast.Devices, []string{"d1", "d2"}) || !slices.Equal(blast.Modules, []string{"shop.cart"}) || !slices.Equal(blast.Callers, []string{"shop.web"}) {
		t.Errorf("if sz-1 goes: %+v, %v", blast, err)
	}
	if _, err := db.BlastRadius(cmdb.KindSite, "nope"); !errors.Is(err, cmdb.ErrNotFound) {
		t.Errorf("blast radius of nothing: %v", err)
	}
	m, err := db.Module("shop.web")
	if err != nil || !slices.Equal(m.Callees(), []string{"shop.cart"}) {
		t.Errorf("callees: %v, %v", m.Callees(), err)
	}
	if dt, err := db.DeviceType("c1"); err != nil || dt.Cores != 16 {
		t.Errorf("device type: %+v, %v", dt, err)
	}
	if a, err := db.Get(cmdb.KindAcquisition, "e/k"); err != nil || !slices.Equal(a.(*cmdb.Acquisition).Devices, []string{"d1", "d2"}) {
		t.Errorf("acquisition: %v, %v", a, err)
	}
	if _, err := db.Get("guard", "model"); !errors.Is(err, cmdb.ErrKind) {
		t.Errorf("a row of the DB's own is shown: %v", err)
	}
}

func TestFieldsFollowTheTypes(t *testing.T) {
	t.Parallel()
	fields, err := cmdb.Fields(cmdb.KindModule)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []cmdb.Field{
		{Path: "packages[].version", Type: "text", Layer: cmdb.LayerProgram, Set: true},
		{Path: "scale.capacity.KEY", Type: "number", Layer: cmdb.LayerHardware, Set: true},
		{Path: "scripts[].timeout", Type: "duration", Layer: cmdb.LayerProgram, Set: true},
		{Path: "permissions[]", Type: "text", Layer: cmdb.LayerExternal, Set: true},
		{Path: "configs[].template", Type: "text", Layer: cmdb.LayerConfig, Set: true},
	} {
		if !slices.Contains(fields, want) {
			t.Errorf("no field %+v", want)
		}
	}
	fields, err = cmdb.Fields(cmdb.KindDevice)
	if err != nil || !slices.Contains(fields, cmdb.Field{Path: "held_until", Type: "time", Layer: cmdb.LayerHardware}) {
		t.Errorf("device: %+v, %v", fields, err)
	}
}

// History goes on over a deletion, and keeps as many changes as it is told.
func TestHistoryIsBoundedAndGoesOn(t *testing.T) {
	t.Parallel()
	db, err := cmdb.New(cmdb.Config{Store: memstore.New(), KeepHistory: 5})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = db.Run(ctx) })
	defer func() { cancel(); wait.Wait() }()
	for round := range 4 {
		apply(t, db, docs(fmt.Sprintf("kind: site\nname: s\ncity: c%d", round)))
		apply(t, db, docs(fmt.Sprintf("kind: site\nname: s\ncity: d%d", round)))
		if _, err := db.Delete(ctx, cmdb.KindSite, "s", cmdb.By("ann")); err != nil {
			t.Fatal(err)
		}
	}
	changes, err := db.History(ctx, cmdb.KindSite, "s")
	if err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, c := range changes {
		story = append(story, fmt.Sprintf("%d %s", c.Version, c.Action))
	}
	// The last one stands in the tombstone, those before it are the five kept.
	if diff := cmp.Diff([]string{"7 create", "8 update", "9 delete", "10 create", "11 update", "12 delete"}, story); diff != "" {
		t.Error(diff)
	}
}
