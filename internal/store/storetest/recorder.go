package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Journal is a store that keeps what was asked of the one behind it, and what that answered. Values written through
// it should be unique.
type Journal struct {
	store.Store
	mu      sync.Mutex
	acked   map[int64][][]store.Op // guarded by mu; by revision: one that changed something, and any that did not
	unknown [][]store.Op           // guarded by mu; commits whose outcome was not told
}

// NewJournal returns a journal of s.
func NewJournal(s store.Store) *Journal {
	return &Journal{Store: s, acked: make(map[int64][][]store.Op)}
}

// Commit implements store.Store.
func (j *Journal) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	revision, err := j.Store.Commit(ctx, ops...)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil:
		j.acked[revision] = append(j.acked[revision], ops)
	case !refused(err):
		j.unknown = append(j.unknown, ops)
	}
	return revision, err
}

// refused reports whether the error says that nothing was changed.
func refused(err error) bool {
	for _, known := range []error{store.ErrConflict, store.ErrFenced, store.ErrInvalid, store.ErrTooLarge, store.ErrNoSpace} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// Acknowledged returns the number of commits that were acknowledged, and of those without an answer.
func (j *Journal) Acknowledged() (acked, unknown int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, commits := range j.acked {
		acked += len(commits)
	}
	return acked, len(j.unknown)
}

// Scribble writes from several goroutines, each commit touching some of a few keys under prefix, and returns when
// each has had its number of commits answered, or ctx has ended. Commits that fail are counted and not repeated.
func (j *Journal) Scribble(ctx context.Context, writers, commits int, prefix string) {
	var working sync.WaitGroup
	for w := range writers {
		random := rand.New(rand.NewPCG(uint64(w), 1))
		working.Go(func() {
			for i := 0; i < commits && ctx.Err() == nil; i++ {
				var ops []store.Op
				for _, k := range random.Perm(6)[:1+random.IntN(4)] {
					key := fmt.Sprintf("%s%d", prefix, k)
					if random.IntN(4) == 0 {
						ops = append(ops, store.Delete(key))
					} else {
						ops = append(ops, put(key, fmt.Sprintf("%d-%d-%d", w, i, k)))
					}
				}
				asking, cancel := context.WithTimeout(ctx, 3*time.Second)
				_, _ = j.Commit(asking, ops...) // the journal notes the outcome
				cancel()
			}
		})
	}
	working.Wait()
}

// Recorder watches a store like a careful client: it lists, watches, resumes after errors from the last revision it
// saw, and starts over when told that commits are gone. Check then holds what it saw to the guarantees.
type Recorder struct {
	store  store.Store
	prefix string
	cancel context.CancelFunc
	done   chan struct{}
	listed chan struct{}

	mu      sync.Mutex
	base    []store.Record // guarded by mu; the listing at which the recording starts
	start   int64          // guarded by mu; its revision
	events  []store.Event  // guarded by mu; since then
	resyncs int            // guarded by mu
	faults  []error        // guarded by mu; violations seen on the way
	moved   chan struct{}  // guarded by mu; closed and replaced at each event and listing
}

// Record starts a recorder, and returns when it has its first listing.
func Record(ctx context.Context, s store.Store, prefix string) *Recorder {
	ctx, cancel := context.WithCancel(ctx)
	r := &Recorder{store: s, prefix: prefix, cancel: cancel, done: make(chan struct{}), listed: make(chan struct{}), moved: make(chan struct{})}
	go r.run(ctx)
	<-r.listed
	return r
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.done)
	listed := sync.OnceFunc(func() { close(r.listed) })
	defer listed()
	for ctx.Err() == nil {
		records, revision, err := r.store.List(ctx, r.prefix)
		if err != nil {
			rest(ctx)
			continue
		}
		r.mu.Lock()
		if revision < r.start || (len(r.events) > 0 && revision < r.events[len(r.events)-1].Revision) {
			r.faults = append(r.faults, fmt.Errorf("a listing at %d is older than what was seen before", revision))
		}
		r.base, r.start, r.events = records, revision, nil
		r.tell()
		r.mu.Unlock()
		listed()
		after := revision
		for ctx.Err() == nil {
			after, err = r.watch(ctx, after)
			if errors.Is(err, store.ErrCompacted) {
				r.mu.Lock()
				r.resyncs++
				r.mu.Unlock()
				break
			}
			rest(ctx)
		}
	}
}

// tell wakes who waits for the recorder to know more. The caller holds mu.
func (r *Recorder) tell() {
	close(r.moved)
	r.moved = make(chan struct{})
}

// rest spaces attempts while a store is away.
func rest(ctx context.Context) {
	timer := time.NewTimer(10 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *Recorder) watch(ctx context.Context, after int64) (int64, error) {
	for event, err := range r.store.Watch(ctx, r.prefix, after) {
		if err != nil {
			return after, err
		}
		after = event.Revision
		r.mu.Lock()
		r.events = append(r.events, event)
		r.tell()
		r.mu.Unlock()
	}
	return after, nil
}

// Resyncs returns how often the recorder was told to start over.
func (r *Recorder) Resyncs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resyncs
}

// Check waits until the recorder has seen all that the store holds now, stops it, and reports every violation: a watch
// is ordered, unique and atomic, agrees with what was acknowledged, adds up to the store's content, and can be
// resumed anywhere. I8.
func (r *Recorder) Check(t *testing.T, journal *Journal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	final := r.catchUp(t, ctx)
	r.cancel()
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	faults := slices.Concat(r.faults, validate(r.start, r.events), journal.compare(r.prefix, r.start, r.events))
	if diff := cmp.Diff(final, replay(r.base, r.events), sameBytes); diff != "" {
		faults = append(faults, fmt.Errorf("the listing and the events do not add up to the store (-store +replay):\n%s", diff))
	}
	faults = append(faults, r.resume(ctx)...)
	for i, f := range faults {
		if i == 10 {
			t.Errorf("and %d more", len(faults)-i)
			break
		}
		t.Error(f)
	}
	if len(r.events) == 0 {
		t.Error("the recorder saw no event, so that nothing was checked")
	}
}

// catchUp waits for the last write of the store's content to be recorded, and returns that content.
func (r *Recorder) catchUp(t *testing.T, ctx context.Context) []store.Record {
	t.Helper()
	if _, err := r.store.Commit(ctx, put(r.prefix+"~end", "end")); err != nil {
		t.Fatalf("mark the end of the recording: %v", err)
	}
	records, _ := read(t, ctx, r.store, r.prefix)
	last := int64(0)
	for _, record := range records {
		last = max(last, record.Revision)
	}
	for {
		r.mu.Lock()
		moved := r.moved
		seen := r.start >= last || len(r.events) > 0 && r.events[len(r.events)-1].Revision >= last
		r.mu.Unlock()
		if seen {
			return records
		}
		select {
		case <-moved:
		case <-ctx.Done():
			t.Fatalf("the watcher never saw revision %d", last)
		}
	}
}

// validate checks the events of one watch by themselves.
func validate(start int64, events []store.Event) []error {
	var faults []error
	last := start
	for _, e := range events {
		if e.Revision <= last {
			faults = append(faults, fmt.Errorf("revision %d comes after %d: not in order, or twice", e.Revision, last))
		}
		last = e.Revision
		keys := slices.Clone(e.Deletes)
		for _, p := range e.Puts {
			keys = append(keys, p.Key)
			if p.Revision != e.Revision {
				faults = append(faults, fmt.Errorf("the event at %d has a put of revision %d", e.Revision, p.Revision))
			}
		}
		if len(keys) == 0 {
			faults = append(faults, fmt.Errorf("the event at %d is empty", e.Revision))
		}
		slices.Sort(keys)
		if len(slices.Compact(keys)) != len(e.Puts)+len(e.Deletes) {
			faults = append(faults, fmt.Errorf("the event at %d has a key twice", e.Revision))
		}
		if !slices.IsSortedFunc(e.Puts, func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) }) || !slices.IsSorted(e.Deletes) {
			faults = append(faults, fmt.Errorf("the event at %d is not in key order", e.Revision))
		}
	}
	return faults
}

// compare holds the events against what was asked: acknowledged commits are there, whole; what is there was asked.
func (j *Journal) compare(prefix string, start int64, events []store.Event) []error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var faults []error
	seen := make(map[int64]store.Event, len(events))
	for _, e := range events {
		seen[e.Revision] = e
	}
	for revision, commits := range j.acked {
		e, ok := seen[revision]
		if revision <= start {
			continue
		}
		for _, ops := range commits {
			if !changes(ops, prefix) {
				continue
			}
			if !ok {
				faults = append(faults, fmt.Errorf("the acknowledged commit %d was never seen", revision))
			} else if !whole(e, ops, prefix) {
				faults = append(faults, fmt.Errorf("the commit %d was seen as %+v, but was %+v", revision, e, ops))
			}
		}
	}
	for _, e := range events {
		if slices.ContainsFunc(j.acked[e.Revision], func(ops []store.Op) bool { return whole(e, ops, prefix) }) || len(e.Puts) == 1 && strings.HasSuffix(e.Puts[0].Key, "~end") {
			continue
		}
		if !slices.ContainsFunc(j.unknown, func(ops []store.Op) bool { return whole(e, ops, prefix) }) {
			faults = append(faults, fmt.Errorf("the event %+v is no commit that was asked for, or not the whole of one", e))
		}
	}
	return faults
}

// changes reports whether the ops surely change something under prefix: deletes may find nothing.
func changes(ops []store.Op, prefix string) bool {
	return slices.ContainsFunc(ops, func(op store.Op) bool { return op.Kind == store.KindPut && strings.HasPrefix(op.Key, prefix) })
}

// whole reports whether e is what ops do: all of its puts, and no delete that was not asked for.
func whole(e store.Event, ops []store.Op, prefix string) bool {
	puts := make(map[string]string)
	for _, op := range ops {
		if op.Kind == store.KindPut && strings.HasPrefix(op.Key, prefix) {
			puts[op.Key] = string(op.Value)
		}
	}
	for _, p := range e.Puts {
		if value, ok := puts[p.Key]; !ok || value != string(p.Value) {
			return false
		}
	}
	for _, key := range e.Deletes {
		if !slices.ContainsFunc(ops, func(op store.Op) bool { return op.Kind == store.KindDelete && op.Key == key }) {
			return false
		}
	}
	return len(puts) == len(e.Puts)
}

// replay applies events to a listing.
func replay(base []store.Record, events []store.Event) []store.Record {
	now := make(map[string]store.Record)
	for _, r := range base {
		now[r.Key] = r
	}
	for _, e := range events {
		for _, p := range e.Puts {
			now[p.Key] = p
		}
		for _, key := range e.Deletes {
			delete(now, key)
		}
	}
	return slices.SortedFunc(maps.Values(now), func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) })
}

// resume watches again from some of the revisions seen, and expects the same events.
func (r *Recorder) resume(ctx context.Context) []error {
	var faults []error
	step := max(1, len(r.events)/7)
	for i := 0; i < len(r.events); i += step {
		after, want := r.start, r.events[i:]
		if i > 0 {
			after = r.events[i-1].Revision
		}
		var got []store.Event
		for event, err := range r.store.Watch(ctx, r.prefix, after) {
			if err != nil {
				faults = append(faults, fmt.Errorf("resume after %d: %w", after, err))
				break
			}
			if got = append(got, event); len(got) == len(want) {
				break
			}
		}
		if diff := cmp.Diff(want, got, sameBytes); diff != "" {
			faults = append(faults, fmt.Errorf("resumed after %d, the watch tells another story (-first +resumed):\n%s", after, diff))
		}
	}
	return faults
}
