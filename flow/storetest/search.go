package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

func ids(rows []flow.Row) []string {
	var out []string
	for _, row := range rows {
		out = append(out, row.ID)
	}
	return out
}

// search checks every field of the filter that list does not.
func search(t *testing.T, s flow.Store) {
	module := func(name string) flow.Tag { return flow.Tag{Name: "param.module", Value: name} }
	device := func(name string) flow.Tag { return flow.Tag{Name: "device", Value: name} }
	for i := range 6 {
		x := create(fmt.Sprintf("x%d", i))
		x.Row.Started = epoch.Add(time.Duration(i) * time.Minute)
		x.Tags = []flow.Tag{module([]string{"shop.cart", "shop.web"}[i%2]), {Name: "param.count", Value: "2"}}
		switch i {
		case 1:
			x.Row.Version = 2
			x.Tags = append(x.Tags, device("d7"))
		case 2:
			x.Row.Step = "two"
		}
		commit(t, s, nil, x)
		switch i {
		case 3:
			stuck := follow(x, flow.Stuck, flow.Wake{Kind: flow.WakePerson, For: "step two: 100% \"broken\""})
			stuck.Tags = []flow.Tag{device("d7"), module("shop.web")} // one is there already
			commit(t, s, nil, stuck)
		case 4, 5:
			failed := follow(x, flow.Failed, flow.Wake{Kind: flow.WakeNone})
			failed.Row.Error = "exit: no_such'device"
			failed.Row.Ended = epoch.Add(time.Duration(i) * time.Hour)
			commit(t, s, nil, failed)
		}
	}
	stale := follow(create("x0"), flow.Running, flow.Wake{Kind: flow.WakeLease})
	stale.Prev, stale.Tags = 99, []flow.Tag{device("d9")}
	commit(t, s, []error{flow.ErrStale}, stale)
	for _, one := range []struct {
		name   string
		filter flow.Filter
		want   []string
	}{
		{"param", flow.Filter{Params: map[string]string{"module": "shop.web"}}, []string{"x5", "x3", "x1"}},
		{"two params", flow.Filter{Params: map[string]string{"module": "shop.cart", "count": "2"}}, []string{"x4", "x2", "x0"}},
		{"another value", flow.Filter{Params: map[string]string{"module": "shop.cart", "count": "3"}}, nil},
		{"device", flow.Filter{Device: "d7"}, []string{"x3", "x1"}},
		{"device and state", flow.Filter{Device: "d7", States: []flow.State{flow.Stuck}}, []string{"x3"}},
		{"tags of a refused transition", flow.Filter{Device: "d9"}, nil},
		{"version", flow.Filter{Version: 2}, []string{"x1"}},
		{"step", flow.Filter{Step: "two"}, []string{"x2"}},
		{"wakes", flow.Filter{Wakes: []flow.WakeKind{flow.WakePerson, flow.WakeNone}}, []string{"x5", "x4", "x3"}},
		{"text of an error", flow.Filter{Text: "such'dev"}, []string{"x5", "x4"}},
		{"text of what is waited for", flow.Filter{Text: `100% "b`}, []string{"x3"}},
		{"text is no pattern", flow.Filter{Text: "no%device"}, nil},
		{"until", flow.Filter{Until: epoch.Add(2 * time.Minute)}, []string{"x1", "x0"}},
		{"between", flow.Filter{Since: epoch.Add(time.Minute), Until: epoch.Add(3 * time.Minute)}, []string{"x2", "x1"}},
		{"ended before", flow.Filter{EndedBefore: epoch.Add(5 * time.Hour)}, []string{"x4"}},
		{"oldest", flow.Filter{Oldest: true, Limit: 2}, []string{"x0", "x1"}},
		{"oldest, next page", flow.Filter{Oldest: true, Limit: 2, After: "x1"}, []string{"x2", "x3"}},
	} {
		rows, err := s.List(t.Context(), one.filter)
		if err != nil {
			t.Fatalf("%s: %v", one.name, err)
		}
		if diff := cmp.Diff(one.want, ids(rows)); diff != "" {
			t.Errorf("%s: %s", one.name, diff)
		}
	}
}

// remove checks that what has ended goes whole, and that what is open stays whole.
func remove(t *testing.T, s flow.Store) {
	tag := []flow.Tag{{Name: "device", Value: "d1"}}
	done, open := create("done"), create("open")
	done.Row.Key, done.Tags, open.Tags = "k", tag, tag
	commit(t, s, nil, done, follow(done, flow.Done, flow.Wake{Kind: flow.WakeNone}), open)
	for _, want := range []int{1, 0} { // again removes nothing
		n, err := s.Remove(t.Context(), []string{"open", "nobody", "done"})
		if err != nil || n != want {
			t.Fatalf("removed %d, %v; want %d", n, err, want)
		}
	}
	if n, err := s.Remove(t.Context(), nil); err != nil || n != 0 {
		t.Fatalf("remove of nothing: %d, %v", n, err)
	}
	if _, err := s.Get(t.Context(), "done"); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("get of what was removed: %v, want ErrNotFound", err)
	}
	if left, err := s.History(t.Context(), "done", 0, 0); err != nil || len(left) != 0 {
		t.Errorf("history of what was removed: %v, %v", left, err)
	}
	if _, err := s.ByKey(t.Context(), "f", "k"); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("by key: %v, want ErrNotFound", err)
	}
	rows, err := s.List(t.Context(), flow.Filter{Device: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"open"}, ids(rows)); diff != "" {
		t.Error(diff)
	}
	commit(t, s, nil, follow(open, flow.Done, flow.Wake{Kind: flow.WakeNone})) // the open one lives
	again := create("done")
	again.Row.Key = "k"
	commit(t, s, nil, again)
	if rows, err := s.List(t.Context(), flow.Filter{Device: "d1"}); err != nil || len(rows) != 1 {
		t.Errorf("tags of what was removed stand: %v, %v", ids(rows), err)
	}
}
