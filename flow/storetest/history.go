package storetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// A long history reads the same in parts, whatever their size and wherever they begin, beside another that grows with it.
func longHistory(t *testing.T, s flow.Store) {
	const records = 900
	x, y := create("x"), create("y")
	commit(t, s, nil, x, y)
	all := []flow.Record{x.Record}
	for i := range records - 1 {
		next := follow(x, flow.Running, flow.Wake{Kind: flow.WakeLease})
		next.Row.Seq += int64(i%7) * int64(i%3) // records of 1 to 13 events
		other := follow(y, flow.Running, flow.Wake{Kind: flow.WakeLease})
		commit(t, s, nil, next, other)
		x, y = next, other
		all = append(all, x.Record)
	}
	for _, limit := range []int{0, 1, 100, 256, 10_000} {
		if limit == 1 && testing.Short() {
			continue
		}
		var got []flow.Record
		for after := int64(0); ; {
			part, err := s.History(t.Context(), "x", after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(part) == 0 {
				break
			}
			if limit > 0 && len(part) > limit || limit > 0 && len(part) < min(limit, len(all)-len(got)) {
				t.Fatalf("after %d limit %d: %d records", after, limit, len(part))
			}
			got = append(got, part...)
			after = x.Row.Seq
			if limit > 0 {
				after = part[len(part)-1].Seq
			}
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Fatalf("limit %d: %s", limit, diff)
		}
	}
	for _, at := range []int{1, 300, records - 1} {
		got, err := s.History(t.Context(), "x", all[at].Seq-1, 5)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all[at:min(at+5, records)], got); diff != "" {
			t.Errorf("from record %d: %s", at, diff)
		}
	}
}
