package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Shared is a flow.Shared in memory: several engines in one process share it, as those of several processes share a pgstore. It is for tests, and
// says by its clock when a lease has run out. It is safe for concurrent use.
type Shared struct {
	*Store
	clock func() time.Time

	mu      sync.Mutex // held over each call; guards what follows
	members map[int64]*member
	last    int64
	letters map[int64]*letter
	letter  int64
	ears    map[int]func()
	ear     int
}

type member struct {
	name  string
	lease time.Duration
	seen  time.Time
}

type letter struct {
	flow.Letter
	answer *string
}

var _ flow.Shared = (*Shared)(nil)

// NewShared returns an empty store. clock is what leases are measured by; nil is time.Now.
func NewShared(clock func() time.Time) *Shared {
	if clock == nil {
		clock = time.Now
	}
	return &Shared{
		Store: New().(*Store), clock: clock, members: map[int64]*member{}, letters: map[int64]*letter{}, ears: map[int]func(){},
	}
}

// Commit implements flow.Store.
func (s *Shared) Commit(ctx context.Context, batch []flow.Transition) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fates := make([]error, len(batch))
	stir := false
	for i := range batch {
		t := &batch[i]
		row, err := s.Get(ctx, t.Row.ID)
		there := err == nil
		switch {
		case t.Row.Owner != 0 && s.members[t.Row.Owner] == nil,
			t.Prev != 0 && there && !row.State.Ended() && row.Owner != t.Row.Owner:
			fates[i] = flow.ErrFenced
			continue
		}
		one, err := s.Store.Commit(ctx, batch[i:i+1])
		if err != nil {
			return nil, err
		}
		if fates[i] = one[0]; fates[i] != nil {
			continue
		}
		for _, answer := range t.Answers {
			s.answer(answer)
		}
		stir = stir || len(t.Answers) > 0 || t.Row.Owner == 0
	}
	if stir {
		s.stir()
	}
	return fates, nil
}

// stir wakes those who listen. The caller holds the mutex.
func (s *Shared) stir() {
	for _, n := range slices.Sorted(maps.Keys(s.ears)) {
		s.ears[n]()
	}
}

// Join implements flow.Shared. Nobody is known to be dead.
func (s *Shared) Join(_ context.Context, name string, lease time.Duration) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.members[s.last] = &member{name, lease, s.clock()}
	s.stir()
	return s.last, nil
}

// Beat implements flow.Shared.
func (s *Shared) Beat(_ context.Context, number int64) (flow.Beat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	me := s.members[number]
	if me == nil {
		return flow.Beat{}, flow.ErrFenced
	}
	now := s.clock()
	over := func(m *member) bool { return now.Sub(m.seen) > m.lease }
	var b flow.Beat
	fresh := !over(me)
	me.seen = now
	for _, other := range slices.Sorted(maps.Keys(s.members)) {
		m := s.members[other]
		if other != number && fresh && over(m) {
			delete(s.members, other)
			b.Removed = append(b.Removed, other)
			continue
		}
		if left := m.lease - now.Sub(m.seen); other != number && (b.Next == 0 || left < b.Next) {
			b.Next = max(left, time.Microsecond)
		}
	}
	b.Members, b.Lead = len(s.members), slices.Min(slices.Collect(maps.Keys(s.members))) == number
	b.Orphans = len(s.free()) > 0
	for _, l := range slices.SortedFunc(maps.Values(s.letters), func(a, b *letter) int { return cmp.Compare(a.ID, b.ID) }) {
		if row, err := s.Get(context.Background(), l.Execution); err == nil && l.answer == nil && !row.State.Ended() && row.Owner == number && len(b.Letters) < 100 {
			b.Letters = append(b.Letters, l.Letter)
		}
	}
	return b, nil
}

// free lists what may be claimed, by ID. The caller holds the mutex.
func (s *Shared) free() []string {
	s.Store.mu.Lock()
	defer s.Store.mu.Unlock()
	var out []string
	for id, row := range s.Store.rows {
		if !row.State.Ended() && s.members[row.Owner] == nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Claim implements flow.Shared.
func (s *Shared) Claim(_ context.Context, number int64, limit int) ([]flow.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[number] == nil {
		return nil, flow.ErrFenced
	}
	free := s.free()
	free = free[:min(limit, len(free))]
	s.Store.mu.Lock()
	defer s.Store.mu.Unlock()
	rows := make([]flow.Row, len(free))
	for i, id := range free {
		s.Store.rows[id].Owner = number
		rows[i] = *s.Store.rows[id]
	}
	return rows, nil
}

// Leave implements flow.Shared.
func (s *Shared) Leave(_ context.Context, number int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, number)
	s.stir()
	return nil
}

// Send implements flow.Shared.
func (s *Shared) Send(ctx context.Context, execution string, body []byte) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.Get(ctx, execution); err != nil {
		return 0, err
	}
	s.letter++
	s.letters[s.letter] = &letter{Letter: flow.Letter{ID: s.letter, Execution: execution, Body: slices.Clone(body)}}
	s.stir()
	return s.letter, nil
}

// Answer implements flow.Shared.
func (s *Shared) Answer(_ context.Context, a flow.Answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer(a)
	s.stir()
	return nil
}

func (s *Shared) answer(a flow.Answer) {
	if l := s.letters[a.Letter]; l != nil && l.answer == nil {
		l.answer = &a.Text
	}
}

// Collect implements flow.Shared.
func (s *Shared) Collect(_ context.Context, number int64, withdraw bool) (string, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.letters[number]
	switch {
	case l == nil:
		return "", false, fmt.Errorf("%w: letter %d", flow.ErrNotFound, number)
	case l.answer == nil && !withdraw:
		return "", false, nil
	}
	delete(s.letters, number)
	if l.answer == nil {
		return "", false, nil
	}
	return *l.answer, true, nil
}

// Listen implements flow.Shared.
func (s *Shared) Listen(ctx context.Context, woken func()) error {
	s.mu.Lock()
	s.ear++
	n := s.ear
	s.ears[n] = woken
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ears, n)
	return nil
}

// PutDefinition implements flow.Store.
func (s *Shared) PutDefinition(ctx context.Context, r flow.DefinitionRecord) error {
	if err := s.Store.PutDefinition(ctx, r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stir()
	return nil
}
