package flow

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sim"
)

// sharedWorld is the database, and the world outside on which tools have their effects.
type sharedWorld struct {
	*sim.World
	p       *program
	planted string
	servers []*sharedServer

	rows     map[string]*Row
	records  map[string][]Record
	disk     map[string]*Execution // the folds of the records
	members  map[int64]*sharedMember
	last     int64
	asked    int
	acked    map[string]bool            // starts that were acknowledged
	effects  map[string]map[string]bool // by execution, step and item: the keys
	applied  map[string]bool            // by key
	takeover int                        // executions claimed from members that were removed
	unread   int                        // of those, how many were left at rest
	slowest  time.Duration              // from the crash of an owner to the claim
	crashed  map[int64]time.Time        // when the members died that were killed
}

type sharedMember struct {
	seen time.Time
}

func (w *sharedWorld) over(m *sharedMember) bool { return w.Now().Sub(m.seen) > sharedHeartbeat*5/2 }

// commit is Store.Commit for one transition; again as in pgstore.
func (w *sharedWorld) commit(t *Transition, again bool) error {
	id := t.Row.ID
	row := w.rows[id]
	fate := func() error {
		switch {
		case w.members[t.Row.Owner] == nil && w.planted != "no fence":
			return ErrFenced
		case t.Prev == 0 && row != nil:
			return ErrExists
		case t.Prev == 0:
			return nil
		case row.Owner != t.Row.Owner && w.planted != "no fence":
			return ErrFenced
		case row.Seq != t.Prev:
			return ErrStale
		}
		return nil
	}()
	if fate != nil {
		there := w.planted != "forgets what it asked" && slices.ContainsFunc(w.records[id], func(r Record) bool {
			return r.Seq == t.Record.Seq && r.At.Equal(t.Record.At) && string(r.Body) == string(t.Record.Body)
		})
		if again && there {
			return nil
		}
		// Nobody but its owner moves an execution: a member's transition can be late, but not stale. The first try may come behind the
		// second, when nobody waits for it any more.
		if row != nil && !there && row.Owner == t.Row.Owner && w.members[t.Row.Owner] != nil && errors.Is(fate, ErrStale) {
			w.Fail(fmt.Errorf("%s: its owner %d is at event %d, stored are %d", id, t.Row.Owner, t.Prev, row.Seq))
		}
		return fate
	}
	events, err := DecodeEvents(id, t.Record)
	if err != nil {
		w.Fail(err)
		return err
	}
	x := w.disk[id]
	if x == nil {
		x = newExecution(&w.p.Definition, id)
		w.disk[id] = x
	}
	for i := range events {
		e := &events[i]
		if e.Kind == EventAttemptDone {
			if task := x.task(x.stepIndex(e.Step), e.Item); task == nil || task.State == TaskDone || task.Attempt != e.Attempt {
				w.Fail(fmt.Errorf("%s: step %s item %d has a second result", id, e.Step, e.Item))
			}
		}
		x.apply(e)
		w.Trace("%s of %d: %s", id, t.Row.Owner, e)
	}
	next := t.Row
	w.rows[id], w.records[id] = &next, append(w.records[id], t.Record)
	if found := x.violations(next); len(found) > 0 {
		w.Fail(fmt.Errorf("%s: %v", id, found))
	}
	return nil
}

func (w *sharedWorld) join() int64 {
	w.last++
	number := w.last
	if w.planted == "numbers come again" {
		for number = 1; w.members[number] != nil; number++ {
		}
	}
	w.members[number] = &sharedMember{w.Now()}
	return number
}

func (w *sharedWorld) beat(number int64) (b Beat, err error) {
	me := w.members[number]
	if me == nil {
		return b, ErrFenced
	}
	fresh := !w.over(me)
	me.seen = w.Now()
	for _, other := range slices.Sorted(maps.Keys(w.members)) {
		m := w.members[other]
		if other != number && fresh && w.over(m) {
			delete(w.members, other)
			b.Removed = append(b.Removed, other)
			continue
		}
		if left := sharedHeartbeat*5/2 - w.Now().Sub(m.seen); other != number && (b.Next == 0 || left < b.Next) {
			b.Next = max(left, time.Microsecond)
		}
	}
	b.Members, b.Lead = len(w.members), slices.Min(slices.Collect(maps.Keys(w.members))) == number
	b.Orphans = len(w.free(number)) > 0
	return b, nil
}

func (w *sharedWorld) free(number int64) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(w.rows)) {
		row := w.rows[id]
		if !row.State.Ended() && (w.members[row.Owner] == nil || w.planted == "claims without a condition" && row.Owner != number && w.Rand().IntN(50) == 0) {
			out = append(out, id)
		}
	}
	return out
}

func (w *sharedWorld) claim(number int64, unsure bool) ([]Row, error) {
	if w.members[number] == nil {
		return nil, ErrFenced
	}
	free := w.free(number)
	free = free[:min(2, len(free))]
	for _, id := range free {
		if at, killed := w.crashed[w.rows[id].Owner]; killed {
			w.slowest = max(w.slowest, w.Now().Sub(at))
		}
		w.takeover++
		w.Trace("%s: claimed by %d from %d", id, number, w.rows[id].Owner)
		w.rows[id].Owner = number
	}
	var claimed []Row
	for _, id := range slices.Sorted(maps.Keys(w.rows)) {
		if row := w.rows[id]; slices.Contains(free, id) || unsure && !row.State.Ended() && row.Owner == number {
			claimed = append(claimed, *row)
		}
	}
	return claimed, nil
}
