package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Compactable is a store with the way to make it forget.
type Compactable struct {
	store.Store
	Compact func(ctx context.Context, revision int64) error
}

// RunCompaction checks what watchers are told when commits are gone. Open returns an empty store.
func RunCompaction(t *testing.T, open func(t *testing.T) Compactable) {
	t.Helper()
	t.Run("CompactedPastAWatcher", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s := open(t)
		first := commit(t, ctx, s, put("a", "1"))
		commit(t, ctx, s, put("b", "2"))
		third := commit(t, ctx, s, put("a", "3"))
		fourth := commit(t, ctx, s, put("b", "4"))
		if err := s.Compact(ctx, third); err != nil {
			t.Fatal(err)
		}
		for event, err := range s.Watch(ctx, "", first) {
			if !errors.Is(err, store.ErrCompacted) {
				t.Errorf("a watch after %d, compacted to %d, yields %+v, %v; want ErrCompacted", first, third, event, err)
			}
			break
		}
		for event, err := range s.Watch(ctx, "", third) {
			if err != nil || event.Revision != fourth {
				t.Errorf("a watch after the compacted revision %d yields %+v, %v; want the commit at %d", third, event, err, fourth)
			}
			break
		}
		if records, revision := read(t, ctx, s, ""); len(records) != 2 || revision < fourth {
			t.Errorf("after compaction: %v at %d", records, revision)
		}
	})
	t.Run("CompactedUnderWatchers", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s := open(t)
		journal := NewJournal(s)
		recorder := Record(ctx, s, "w/")
		var compacting sync.WaitGroup
		scribbled := make(chan struct{})
		compacting.Go(func() {
			for !closed(scribbled) {
				_, revision := read(t, ctx, s, "w/")
				_ = s.Compact(ctx, revision) // compacting twice to one revision is refused by some
				rest(ctx)
			}
		})
		journal.Scribble(ctx, 3, 40, "w/")
		close(scribbled)
		compacting.Wait()
		commit(t, ctx, journal, put("w/last", "last"))
		recorder.checkLoosely(t, journal)
	})
}

// checkLoosely is Check for a recorder whose past may be compacted: it does not resume.
func (r *Recorder) checkLoosely(t *testing.T, journal *Journal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.catchUp(t, ctx)
	r.cancel()
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range append(validate(r.start, r.events), journal.compare(r.prefix, r.start, r.events)...) {
		t.Error(err)
	}
}

// Electable is a store with an elector over the same backend. Depose takes a leadership away, as an operator or an
// expired lease would.
type Electable struct {
	store.Store
	Elector store.Elector
	Depose  func(ctx context.Context, name string) error
}

// RunElector checks an elector, and the fence that its terms put before commits. Open returns an empty store.
func RunElector(t *testing.T, open func(t *testing.T) Electable) {
	t.Helper()
	campaign := func(t *testing.T, ctx context.Context, e Electable, name, id string) *store.Term {
		t.Helper()
		term, err := e.Elector.Campaign(ctx, name, id)
		if err != nil {
			t.Fatalf("campaign of %s for %s: %v", id, name, err)
		}
		return term
	}
	await := func(t *testing.T, ctx context.Context, term *store.Term) {
		t.Helper()
		select {
		case <-term.Done():
		case <-ctx.Done():
			t.Fatalf("the term of %s does not end", term.ID())
		}
	}
	for name, run := range map[string]func(*testing.T, context.Context, Electable){
		"DeposedLeaderIsFenced": func(t *testing.T, ctx context.Context, e Electable) {
			first := campaign(t, ctx, e, "gray", "one")
			other := campaign(t, ctx, e, "scale", "two") // another name, another leader
			view := store.Prefixed(e, "deep/")
			writer := store.Fenced(view, first)
			revision := commit(t, ctx, writer, put("k", "1").IfAbsent())
			if err := e.Depose(ctx, "gray"); err != nil {
				t.Fatal(err)
			}
			if _, err := writer.Commit(ctx, put("k", "2")); !errors.Is(err, store.ErrFenced) {
				t.Errorf("a deposed leader's commit: %v, want ErrFenced", err)
			}
			await(t, ctx, first)
			second := campaign(t, ctx, e, "gray", "two")
			if second.Fence() <= first.Fence() {
				t.Errorf("the fence went from %d to %d, want it to grow", first.Fence(), second.Fence())
			}
			if _, err := writer.Commit(ctx, put("k", "2").At(revision)); !errors.Is(err, store.ErrFenced) {
				t.Errorf("a commit under the old term: %v, want ErrFenced", err)
			}
			commit(t, ctx, store.Fenced(view, second), put("k", "3").At(revision))
			commit(t, ctx, store.Fenced(view, other), put("l", "3"))
			if _, err := store.Fenced(view, second).Commit(ctx, put("k", "4").IfAbsent()); !errors.Is(err, store.ErrConflict) {
				t.Errorf("a conflict under a good term: %v, want ErrConflict", err)
			}
		},
		"ResignLetsTheNextIn": func(t *testing.T, ctx context.Context, e Electable) {
			first := campaign(t, ctx, e, "gray", "one")
			won := make(chan *store.Term, 1)
			go func() {
				term, err := e.Elector.Campaign(ctx, "gray", "two")
				if err != nil {
					t.Error(err)
				}
				won <- term
			}()
			select {
			case <-won:
				t.Error("two lead at a time")
			case <-time.After(50 * time.Millisecond): // nothing to wait for: the second must not win
			}
			if err := first.Resign(ctx); err != nil {
				t.Fatal(err)
			}
			second := <-won
			if err := first.Resign(ctx); err != nil {
				t.Errorf("resign again: %v", err)
			}
			if closed(second.Done()) {
				t.Error("the second resignation of the first ended the term of the second")
			}
			commit(t, ctx, store.Fenced(e, second), put("k", "1"))
		},
		"FormerSelfIsTakenOver": func(t *testing.T, ctx context.Context, e Electable) {
			first := campaign(t, ctx, e, "gray", "one")
			second := campaign(t, ctx, e, "gray", "one")
			await(t, ctx, first)
			if err := first.Resign(ctx); err != nil {
				t.Fatal(err)
			}
			commit(t, ctx, store.Fenced(e, second), put("k", "1"))
			if _, err := store.Fenced(e, first).Commit(ctx, put("k", "2")); !errors.Is(err, store.ErrFenced) {
				t.Errorf("the former self's commit: %v, want ErrFenced", err)
			}
		},
		"CampaignEndsWithItsContext": func(t *testing.T, ctx context.Context, e Electable) {
			campaign(t, ctx, e, "gray", "one")
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			if _, err := e.Elector.Campaign(short, "gray", "two"); err == nil || ctx.Err() != nil {
				t.Errorf("a campaign whose context ended: %v, want an error", err)
			}
			if _, err := e.Elector.Campaign(ctx, "", "two"); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("a campaign for nothing: %v, want ErrInvalid", err)
			}
		},
		// Leaders that come and go count in one record without conditions of their own: the fence alone keeps the
		// count right.
		"FencedCounterLosesNothing": func(t *testing.T, ctx context.Context, e Electable) {
			const candidates, each = 3, 8
			var working sync.WaitGroup
			for i := range candidates {
				working.Go(func() {
					for n := 0; n < each; {
						term, err := e.Elector.Campaign(ctx, "count", fmt.Sprint("c", i))
						if err != nil {
							t.Error(err)
							return
						}
						if increment(ctx, store.Fenced(e, term)) {
							n++
						}
						if n%3 == 0 {
							_ = e.Depose(ctx, "count") // perhaps already another's: whoever it is must notice
						}
						_ = term.Resign(ctx)
					}
				})
			}
			working.Wait()
			records, _ := read(t, ctx, e, "counter")
			if len(records) != 1 || string(records[0].Value) != fmt.Sprint(candidates*each) {
				t.Errorf("counted %v, want %d", records, candidates*each)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			run(t, ctx, open(t))
		})
	}
}

// increment reads the counter and writes one more.
func increment(ctx context.Context, s store.Store) bool {
	records, _, err := s.List(ctx, "counter")
	if err != nil {
		return false
	}
	n := 0
	for _, r := range records {
		n, _ = strconv.Atoi(string(r.Value))
	}
	_, err = s.Commit(ctx, put("counter", strconv.Itoa(n+1)))
	return err == nil
}
