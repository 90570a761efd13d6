package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/storetest"
)

// Outside of a rehearsal it is the store that it is in front of.
func TestRehearsableIsAStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return store.Rehearsable(store.NewMemory(), "part") })
}

func TestRehearsalChecksNotesAndWritesNothing(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	at, err := memory.Commit(t.Context(), store.Put("a", []byte("1")), store.Put("ab", []byte("2")))
	if err != nil {
		t.Fatal(err)
	}
	s := store.Rehearsable(memory, "part")
	for _, test := range []struct {
		name string
		ops  []store.Op
		want []string // "key before after"
		err  error
	}{
		{"writes", []store.Op{store.Put("a", []byte("9")).At(at), store.Put("new", []byte("3")).IfAbsent()}, []string{"part/a 1 9", "part/new - 3"}, store.ErrRehearsed},
		{"removes", []store.Op{store.Delete("a"), store.Delete("gone"), store.Check("ab", at)}, []string{"part/a 1 -"}, store.ErrRehearsed},
		{"a condition that does not hold", []store.Op{store.Put("a", []byte("9")).At(at + 1)}, nil, store.ErrConflict},
		{"a commit that is wrong in itself", []store.Op{store.Put("", nil)}, nil, store.ErrInvalid},
	} {
		ctx, rehearsal := store.Rehearse(t.Context())
		if _, err := s.Commit(ctx, test.ops...); !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", test.name, err, test.err)
		}
		var got []string
		for _, c := range rehearsal.Changes() {
			text := func(b []byte) string {
				if b == nil {
					return "-"
				}
				return string(b)
			}
			got = append(got, fmt.Sprintf("%s %s %s", c.Key, text(c.Before), text(c.After)))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	records, revision, err := memory.List(t.Context(), "")
	if err != nil || len(records) != 2 || revision != at {
		t.Errorf("the store has %d records at %d, %v; want 2 at %d", len(records), revision, err, at)
	}
	if store.RehearsalOf(context.Background()) != nil {
		t.Error("a plain context is a rehearsal")
	}
	rehearsing, rehearsal := store.Rehearse(t.Context())
	if _, err := s.Commit(store.Actual(rehearsing), store.Put("barrier", nil)); err != nil || len(rehearsal.Changes()) != 0 {
		t.Errorf("an actual commit within a rehearsal: %v, noted %v", err, rehearsal.Changes())
	}
}
