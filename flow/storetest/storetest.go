// Package storetest holds implementations of flow.Store to their contract.
package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zhiyun-ops/zhiyun/flow"
)

// Run tests the store that open returns. open is called once per test, must return an empty store, and closes it with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) flow.Store) {
	for _, one := range []struct {
		name string
		test func(*testing.T, flow.Store)
	}{
		{"CreateAndAppend", createAndAppend},
		{"StaleAndExisting", staleAndExisting},
		{"AnyText", anyText},
		{"History", history},
		{"LongHistory", longHistory},
		{"List", list},
		{"Search", search},
		{"Remove", remove},
		{"Locks", locks},
		{"Definitions", definitions},
		{"Notices", notices},
		{"ConcurrentWriters", concurrentWriters},
		{"Linearizable", linearizable},
		{"Wakes", wakes},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			one.test(t, open(t))
		})
	}
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678_000, time.UTC)

// create is a transition that creates an execution.
func create(id string) flow.Transition {
	return flow.Transition{
		Row: flow.Row{
			ID: id, Flow: "f", Version: 1, State: flow.Running, Wake: flow.Wake{Kind: flow.WakeLease}, Seq: 2, Actor: "a", Reason: "r", Step: "one",
			Started: epoch, Updated: epoch,
		},
		Record: flow.Record{Seq: 1, At: epoch, Body: []byte(`[{"kind":"execution.started"},{"kind":"attempt.started"}]`)},
	}
}

// follow is a transition that comes after t.
func follow(t flow.Transition, state flow.State, wake flow.Wake) flow.Transition {
	next := flow.Transition{Prev: t.Row.Seq, Row: t.Row}
	next.Row.Seq++
	next.Row.State, next.Row.Wake, next.Row.Updated = state, wake, epoch.Add(time.Second)
	if state.Ended() {
		next.Row.Ended = next.Row.Updated
	}
	next.Record = flow.Record{Seq: t.Row.Seq + 1, At: next.Row.Updated, Body: []byte(`[{"kind":"execution.done"}]`)}
	return next
}

// commit commits and wants the fates given, nil for all good.
func commit(t *testing.T, s flow.Store, want []error, batch ...flow.Transition) {
	t.Helper()
	fates, err := s.Commit(t.Context(), batch)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	if len(fates) != len(batch) {
		t.Fatalf("%d fates for %d transitions", len(fates), len(batch))
	}
	for i, fate := range fates {
		var wanted error
		if i < len(want) {
			wanted = want[i]
		}
		if !errors.Is(fate, wanted) {
			t.Fatalf("fate of transition %d: %v, want %v", i, fate, wanted)
		}
	}
}

func get(t *testing.T, s flow.Store, id string) flow.Row {
	t.Helper()
	row, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// What a tool says need not be text: it must not keep others from being stored, nor be lost with all that stands around it.
func anyText(t *testing.T, s flow.Store) {
	const odd = "before\x00 \xff\xfe after"
	one := create("x")
	one.Row.Step, one.Row.Error, one.Row.Reason = odd, odd, odd
	one.Record.Body = []byte("[{\"kind\":\"execution.started\",\"text\":\"before \xff after\"}]")
	one.Notices = []flow.Notice{{ID: "n", Text: odd}}
	one.Tags = []flow.Tag{{Name: "param.a", Value: odd}}
	moved := follow(one, flow.Running, flow.Wake{Kind: flow.WakePerson, For: odd})
	moved.Record.Body = one.Record.Body
	commit(t, s, nil, one, create("y"))
	commit(t, s, nil, moved)
	if row := get(t, s, "x"); !strings.HasPrefix(row.Error, "before") || !strings.HasPrefix(row.Wake.For, "before") {
		t.Errorf("an error that is not text is %q; a wait, %q", row.Error, row.Wake.For)
	}
	records, err := s.History(t.Context(), "x", 0, 0)
	if err != nil || len(records) != 2 {
		t.Fatal(len(records), err)
	}
	for _, r := range records {
		if events, err := flow.DecodeEvents("x", r); err != nil || !strings.HasPrefix(events[0].Text, "before ") || !strings.HasSuffix(events[0].Text, " after") {
			t.Errorf("%q: %v, %v", r.Body, events, err)
		}
	}
}

func createAndAppend(t *testing.T, s flow.Store) {
	if _, err := s.Get(t.Context(), "x"); !errors.Is(err, flow.ErrNotFound) {
		t.Fatalf("get of nothing: %v, want ErrNotFound", err)
	}
	first := create("x")
	first.Row.Key, first.Row.Parent, first.Row.Error = "k", "p", "code: message"
	timer := follow(first, flow.Running, flow.Wake{Kind: flow.WakeTimer, At: epoch.Add(time.Hour)})
	commit(t, s, nil, first)
	if diff := cmp.Diff(first.Row, get(t, s, "x")); diff != "" {
		t.Fatal(diff)
	}
	commit(t, s, nil, timer)
	if diff := cmp.Diff(timer.Row, get(t, s, "x")); diff != "" {
		t.Fatal(diff)
	}
	person := follow(timer, flow.Stuck, flow.Wake{Kind: flow.WakePerson, For: "advice"})
	person.Row.Paused = true
	done := follow(person, flow.Done, flow.Wake{Kind: flow.WakeNone})
	commit(t, s, nil, person, done)
	if diff := cmp.Diff(done.Row, get(t, s, "x")); diff != "" {
		t.Fatal(diff)
	}
	row, err := s.ByKey(t.Context(), "f", "k")
	if err != nil || row.ID != "x" {
		t.Fatalf("by key: %v, %v", row, err)
	}
	for _, key := range [][2]string{{"f", "other"}, {"other", "k"}, {"f", ""}} {
		if _, err := s.ByKey(t.Context(), key[0], key[1]); !errors.Is(err, flow.ErrNotFound) {
			t.Errorf("by key %v: %v, want ErrNotFound", key, err)
		}
	}
}

// A transition that is refused changes nothing and does not hinder its neighbours.
func staleAndExisting(t *testing.T, s flow.Store) {
	a := create("a")
	a.Row.Key = "k"
	next := follow(a, flow.Done, flow.Wake{Kind: flow.WakeNone})
	sameKey := create("b")
	sameKey.Row.Key = "k"
	stale := next
	stale.Prev = 1
	stale.Record.Seq = 2
	other := create("c")
	missing := follow(create("nobody"), flow.Done, flow.Wake{Kind: flow.WakeNone})
	missing.Notices = []flow.Notice{{ID: "never"}}
	commit(t, s, []error{nil, flow.ErrExists, flow.ErrExists, flow.ErrStale, flow.ErrStale, nil, nil, flow.ErrStale}, a, a, sameKey, stale, missing, other, next, next)
	if row := get(t, s, "a"); row.Seq != 3 || row.State != flow.Done {
		t.Fatalf("a is %+v", row)
	}
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, flow.ErrNotFound) {
		t.Fatalf("b: %v, want ErrNotFound", err)
	}
	if left, err := s.Notices(t.Context(), 10); err != nil || len(left) != 0 {
		t.Fatalf("notices of a refused transition: %v, %v", left, err)
	}
	records, err := s.History(t.Context(), "a", 0, 0)
	if err != nil || len(records) != 2 {
		t.Fatalf("history of a: %v, %v; want two records", records, err)
	}
}

func history(t *testing.T, s flow.Store) {
	first := create("x")
	second := follow(first, flow.Running, flow.Wake{Kind: flow.WakeLease})
	third := follow(second, flow.Done, flow.Wake{Kind: flow.WakeNone})
	commit(t, s, nil, first, second, third, create("y"))
	all := []flow.Record{first.Record, second.Record, third.Record}
	for _, one := range []struct {
		after int64
		limit int
		want  []flow.Record
	}{{0, 0, all}, {0, 2, all[:2]}, {2, 0, all[1:]}, {3, 1, all[2:]}, {4, 0, nil}} {
		got, err := s.History(t.Context(), "x", one.after, one.limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(one.want, got); diff != "" && len(one.want)+len(got) > 0 {
			t.Errorf("after %d limit %d: %s", one.after, one.limit, diff)
		}
	}
	if got, err := s.History(t.Context(), "nobody", 0, 0); err != nil || len(got) != 0 {
		t.Errorf("history of nobody: %v, %v", got, err)
	}
}

func list(t *testing.T, s flow.Store) {
	for i := range 6 {
		x := create(fmt.Sprintf("x%d", i))
		x.Row.Started = epoch.Add(time.Duration(i) * time.Minute)
		if i == 2 {
			x.Row.Flow, x.Row.Actor, x.Row.Key, x.Row.Parent = "g", "b", "key", "x0"
		}
		commit(t, s, nil, x)
		if i%2 == 1 {
			commit(t, s, nil, follow(x, flow.Done, flow.Wake{Kind: flow.WakeNone}))
		}
	}
	for _, one := range []struct {
		name   string
		filter flow.Filter
		want   []string
	}{
		{"all", flow.Filter{}, []string{"x5", "x4", "x3", "x2", "x1", "x0"}},
		{"open", flow.Filter{Open: true}, []string{"x4", "x2", "x0"}},
		{"flow", flow.Filter{Flow: "g"}, []string{"x2"}},
		{"actor", flow.Filter{Actor: "b"}, []string{"x2"}},
		{"key", flow.Filter{Key: "key"}, []string{"x2"}},
		{"parent", flow.Filter{Parent: "x0"}, []string{"x2"}},
		{"states", flow.Filter{States: []flow.State{flow.Done, flow.Failed}}, []string{"x5", "x3", "x1"}},
		{"since", flow.Filter{Since: epoch.Add(4 * time.Minute)}, []string{"x5", "x4"}},
		{"page", flow.Filter{Limit: 2}, []string{"x5", "x4"}},
		{"next page", flow.Filter{Limit: 2, After: "x4"}, []string{"x3", "x2"}},
		{"open next page", flow.Filter{Open: true, After: "x4"}, []string{"x2", "x0"}},
	} {
		rows, err := s.List(t.Context(), one.filter)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, row := range rows {
			got = append(got, row.ID)
		}
		if diff := cmp.Diff(one.want, got); diff != "" {
			t.Errorf("%s: %s", one.name, diff)
		}
	}
}

func definitions(t *testing.T, s flow.Store) {
	if _, err := s.Definition(t.Context(), "f", 0); !errors.Is(err, flow.ErrNotFound) {
		t.Fatalf("definition of nothing: %v, want ErrNotFound", err)
	}
	record := func(name string, version int) flow.DefinitionRecord {
		return flow.DefinitionRecord{Name: name, Version: version, Digest: fmt.Sprint(name, version), Source: []byte("flow: " + name), SavedAt: epoch}
	}
	for _, r := range []flow.DefinitionRecord{record("f", 1), record("f", 2), record("a", 1)} {
		if err := s.PutDefinition(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutDefinition(t.Context(), record("f", 2)); !errors.Is(err, flow.ErrExists) {
		t.Fatalf("put again: %v, want ErrExists", err)
	}
	for version, want := range map[int]int{0: 2, 1: 1, 2: 2} {
		got, err := s.Definition(t.Context(), "f", version)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(record("f", want), got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := s.Definition(t.Context(), "f", 3); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("version 3: %v, want ErrNotFound", err)
	}
	got, err := s.Definitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]flow.DefinitionRecord{record("a", 1), record("f", 2)}, got); diff != "" {
		t.Error(diff)
	}
}

func notices(t *testing.T, s flow.Store) {
	x := create("x")
	for i := range 3 {
		x.Notices = append(x.Notices, flow.Notice{ID: fmt.Sprintf("x/%d", i), Execution: "x", Flow: "f", Kind: "step", Severity: "info", Text: "t", At: epoch})
	}
	commit(t, s, nil, x)
	for i := range 3 {
		left, err := s.Notices(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(x.Notices[i:min(i+2, 3)], left); diff != "" {
			t.Fatal(diff)
		}
		for range 2 { // delivered twice is delivered
			if err := s.Delivered(t.Context(), left[0].ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left, err := s.Notices(t.Context(), 2); err != nil || len(left) != 0 {
		t.Fatalf("left: %v, %v", left, err)
	}
}

// Of writers that race for the same execution one wins each turn, and the history has no gap.
func concurrentWriters(t *testing.T, s flow.Store) {
	const writers, turns = 4, 20
	commit(t, s, nil, create("x"))
	won := make(chan int, writers)
	for range writers {
		go func() { // ends after its turns; the test waits for it on won
			n := 0
			for range turns {
				row, err := s.Get(t.Context(), "x")
				if err != nil {
					t.Error(err)
					break
				}
				next := follow(flow.Transition{Row: row}, flow.Running, flow.Wake{Kind: flow.WakeLease})
				fates, err := s.Commit(t.Context(), []flow.Transition{next})
				switch {
				case err != nil:
					t.Error(err)
				case fates[0] == nil:
					n++
				case !errors.Is(fates[0], flow.ErrStale):
					t.Error(fates[0])
				}
			}
			won <- n
		}()
	}
	total := 0
	for range writers {
		total += <-won
	}
	records, err := s.History(t.Context(), "x", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != total+1 {
		t.Fatalf("%d records after %d commits that were not refused", len(records), total)
	}
	if row := get(t, s, "x"); row.Seq != int64(2+total) {
		t.Fatalf("seq %d after %d commits", row.Seq, total)
	}
}
