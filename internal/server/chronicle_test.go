package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/server"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// act commits a transition of a rollout as gray does: the rollout and what tells of it, in one.
func act(t *testing.T, s store.Store, seq int64) {
	t.Helper()
	event, err := json.Marshal(gray.Event{Rollout: "r1", Service: "s", Seq: seq, At: time.Unix(1000+seq, 0).UTC(), To: gray.Running, Percent: int(seq), Reason: gray.Reason{Code: "gate_green"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Put("open/r1", []byte("{}")), store.Put(fmt.Sprintf("event/r1/%08d", seq), event).IfAbsent()); err != nil {
		t.Fatal(err)
	}
}

// book opens the audit record, which lives until the test ends or close is called.
func book(t *testing.T, path string) (db *records.DB, end func()) {
	t.Helper()
	db, err := records.Open(path, records.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	return db, func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// follow has a chronicle of gray follow the store until so many entries are there, and then kills it.
func follow(t *testing.T, s store.Store, db *records.DB, until int) []records.Entry {
	t.Helper()
	ctx, kill := context.WithTimeout(t.Context(), time.Minute)
	defer kill()
	done := make(chan error, 1)
	go func() { done <- server.ChronicleGray(ctx, s, db) }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		entries, err := db.AuditLog(ctx, records.Query{Actor: "gray", Limit: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) >= until {
			kill()
			<-done
			entries, err = db.AuditLog(t.Context(), records.Query{Actor: "gray", Limit: 10_000})
			if err != nil {
				t.Fatal(err)
			}
			return entries
		}
		<-tick.C
	}
}

func percents(entries []records.Entry) []string {
	var out []string
	for _, e := range slices.Backward(entries) {
		percent, _, _ := strings.Cut(e.Reason, " ")
		out = append(out, percent)
	}
	return out
}

// What a controller did before its server was killed is in the audit record once the next server runs, once and in
// order: when the entry was not written, and when it was and the cursor's watcher died after it.
func TestWhatWasDoneBeforeAKillIsAudited(t *testing.T) {
	t.Parallel()
	s := store.NewMemory()
	path := filepath.Join(t.TempDir(), "records.db")
	act(t, s, 1)
	db, end := book(t, path)
	follow(t, s, db, 1)
	end()
	// The server acts and is killed before anybody has told: nobody follows.
	act(t, s, 2)
	act(t, s, 3)
	db, end = book(t, path)
	entries := follow(t, s, db, 3)
	if diff := cmp.Diff([]string{"1", "2", "3"}, percents(entries)); diff != "" {
		t.Error(diff)
	}
	// The watch has to begin anew from what is there: nothing is told twice.
	act(t, s, 4)
	_, revision, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.Compact(revision)
	entries = follow(t, s, db, 4)
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, percents(entries)); diff != "" {
		t.Error(diff)
	}
	if entries[0].At != time.Unix(1004, 0).UTC() || entries[0].Object != "rollout/r1" || entries[0].Action != "rollout.running" {
		t.Errorf("the last entry is %+v", entries[0])
	}
	end()
}

// broken fails each commit of the audit record's reader for a while: the source's watch breaks at any moment.
type broken struct {
	store.Store
	left atomic.Int64
}

func (b *broken) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	if b.left.Add(-1) >= 0 {
		return nil, 0, errors.New("the cluster is away")
	}
	return b.Store.List(ctx, prefix)
}

func TestAStoreThatIsAwayDelaysTheAuditRecord(t *testing.T) {
	t.Parallel()
	s := &broken{Store: store.NewMemory()}
	s.left.Store(1)
	for seq := range int64(300) { // more than one commit takes
		act(t, s, seq+1)
	}
	db, end := book(t, filepath.Join(t.TempDir(), "records.db"))
	defer end()
	if entries := follow(t, s, db, 300); len(entries) != 300 || entries[0].Reason[:3] != "300" {
		t.Errorf("%d entries, the last %+v", len(entries), entries[0])
	}
}

// An order's record tells all its steps, each once, however often it is written; a decision is news when it differs.
func TestWhatScaleStoresIsToldOnce(t *testing.T) {
	t.Parallel()
	db, end := book(t, filepath.Join(t.TempDir(), "records.db"))
	defer end()
	s := store.NewMemory()
	put := func(key string, v any) {
		t.Helper()
		value, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), store.Put(key, value)); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(2000, 0).UTC()
	decide := func(code string, want int, second int) {
		put("state/m", map[string]any{"module": "m", "decision": scale.Decision{At: at.Add(time.Duration(second) * time.Second), Want: want, Reason: scale.Reason{Code: code}}})
	}
	order := scale.Order{Key: "m-out-1", Module: "m", Direction: scale.Out, Created: at, State: scale.Planned, Reason: scale.Reason{Code: "overload"}}
	decide("overload", 3, 1)
	put("open/m-out-1", order)
	order.State, order.ID = scale.Underway, "x1"
	put("open/m-out-1", order)
	decide("overload", 3, 31) // the same again
	decide("in_band", 3, 40)
	order.State, order.Ended = scale.Done, at.Add(time.Minute)
	put("past/m-out-1", order)
	want := []string{"decided overload", "ordered overload", "launched overload", "decided in_band", "ended overload"}
	for _, compacted := range []bool{false, false, true} { // the second and third server read it again
		got, err := server.ChronicleScale(t.Context(), s, db, compacted)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range slices.Backward(got) {
			told = append(told, e.Action+" "+e.Reason)
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	}
}

// What was read and then could not be kept is told when it is read again.
func TestADecisionOutlivesAFailureToTellIt(t *testing.T) {
	t.Parallel()
	db, end := book(t, filepath.Join(t.TempDir(), "records.db"))
	defer end()
	s := store.NewMemory()
	value, err := json.Marshal(map[string]any{"module": "m", "decision": scale.Decision{At: time.Unix(2000, 0).UTC(), Want: 3, Reason: scale.Reason{Code: "overload"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Put("state/m", value)); err != nil {
		t.Fatal(err)
	}
	var tried atomic.Int32
	until(t, func(ctx context.Context) error {
		return server.FollowScale(ctx, s, db, func(context.Context, center.Notice) error {
			if tried.Add(1) == 1 {
				return errors.New("the notices are away")
			}
			return nil
		})
	}, func() bool {
		entries, err := db.AuditLog(t.Context(), records.Query{Actor: "scale"})
		if err != nil {
			t.Fatal(err)
		}
		return len(entries) == 1
	})
}

// After a compaction the cursor moves on, though there was nothing to tell: else all is listed again each second.
func TestACompactionIsPassedOnce(t *testing.T) {
	t.Parallel()
	db, end := book(t, filepath.Join(t.TempDir(), "records.db"))
	defer end()
	s := store.NewMemory()
	var last int64
	for range 3 {
		var err error
		if last, err = s.Commit(t.Context(), store.Put("open/r1", []byte("{}"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.AuditOf(t.Context(), "gray", "1", nil); err != nil {
		t.Fatal(err)
	}
	s.Compact(last)
	until(t, func(ctx context.Context) error { return server.ChronicleGray(ctx, s, db) }, func() bool {
		cursor, err := db.Cursor(t.Context(), "gray")
		if err != nil {
			t.Fatal(err)
		}
		return cursor == fmt.Sprint(last)
	})
}

// until has run run until reached says so, for at most a minute.
func until(t *testing.T, run func(context.Context) error, reached func() bool) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	defer func() { end(); <-done }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("not within a minute")
		}
	}
}
