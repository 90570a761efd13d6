package flow

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// alarm is when an execution that is not in memory goes on.
type alarm struct {
	at     time.Time
	id     string
	member int64 // for which it rests: it is nobody's affair here once that is one no more. 0 without a Shared store
	in     int   // its place in the heap
}

// alarms is a heap, the earliest first.
type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].in, a[j].in = i, j
}

func (a *alarms) Push(x any) {
	one := x.(*alarm)
	one.in = len(*a)
	*a = append(*a, one)
}

func (a *alarms) Pop() any {
	last := len(*a) - 1
	one := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	return one
}

// resting are the alarms of executions that wait outside memory: one each, however often it came and left.
type resting struct {
	mu      sync.Mutex // guards what follows
	alarms  alarms
	of      map[string]*alarm // by execution; nil until there is one
	changed chan struct{}     // of capacity 1: the first alarm is another one
}

// set remembers when an execution goes on, in place of what was known of it. One that waits for a person or a signal alone has no time.
func (r *resting) set(at time.Time, id string, member int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.of[id]
	switch {
	case one != nil && one.member > member: // it came late, from a membership of this process that is over
		return
	case at.IsZero():
		r.drop(one)
		return
	case one != nil:
		one.at, one.member = at, member
		heap.Fix(&r.alarms, one.in)
	default:
		if r.of == nil {
			r.of = map[string]*alarm{}
		}
		one = &alarm{at: at, id: id, member: member}
		r.of[id] = one
		heap.Push(&r.alarms, one)
	}
	if r.alarms[0] == one {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
}

// clear forgets the alarm of an execution that is in memory again, or gone.
func (r *resting) clear(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(r.of[id])
}

// drop takes an alarm out; it may be nil. The caller holds the mutex.
func (r *resting) drop(one *alarm) {
	if one != nil {
		heap.Remove(&r.alarms, one.in)
		delete(r.of, one.id)
	}
}

// due takes the alarms whose time has come, and says how long it is to the next.
func (r *resting) due(now time.Time) (rung []alarm, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.alarms) > 0 {
		first := r.alarms[0]
		if next := first.at.Sub(now); next > 0 {
			return rung, next
		}
		r.drop(first)
		rung = append(rung, *first)
	}
	return rung, restAfter
}

// forget drops what rests for a member that is one no more.
func (r *resting) forget(member int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range slices.Clone(r.alarms) {
		if one.member == member {
			r.drop(one)
		}
	}
}
