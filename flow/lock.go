package flow

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Lock is a key that an execution holds, so that two changes never meet on one module or device.
//
// A flow's locks are held from the start of an execution to its end, its undo included; what its sub-flows lock is held in its name, until
// it ends, since it may still take them back. A step's exclusive key is held from the first attempt of a task to its end, and
// stands in the store as "exclusive:KEY": the two kinds do not meet.
type Lock struct {
	Key       string    `json:"key"`
	Execution string    `json:"execution"`
	Since     time.Time `json:"since"`
}

const exclusivePrefix = "exclusive:"

// LockedError is the fate of a transition that would take a lock of another execution. Nothing was changed.
type LockedError struct{ Lock Lock }

func (e *LockedError) Error() string {
	return fmt.Sprintf("%v: execution %s holds %s since %s", ErrLocked, e.Lock.Execution, e.Lock.Key, e.Lock.Since.Format(time.RFC3339))
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// locks says who holds which key, and who waits. It has no clock and no mutex, and does no I/O.
//
//	          all free
//	request ----------------------------> granted ---> release
//	   \                                   ^
//	    `-> waits for one key after another, in their order,
//	        and keeps what it has
//
// Keys are taken in their sorted order, and each is given to who has waited for it longest. A holder that has keys already (an execution
// whose sub-flow asks for more) may wait only for keys that sort after all that it has, and only with one request at a time; any other
// is refused if it cannot be served at once. So whoever waits, waits for a greater key than all that it has: nobody waits in a circle,
// and while holders end nobody waits for ever. What a request that waits has taken is known here alone; stored is what was granted.
type locks struct {
	keys    map[string]*lockedKey
	holders map[string]*lockHolder
	granted []*keyTicket // who waited, and no longer does
	planted string       // a bug that a test plants
}

type lockedKey struct {
	holder string // "" is nobody
	since  time.Time
	line   []*keyTicket
}

// lockHolder is who has or wants keys.
type lockHolder struct {
	keys    []string // sorted
	waiting []*keyTicket
}

// keyTicket is a request for keys.
type keyTicket struct {
	holder string
	keys   []string // sorted, without those that the holder had
	taken  int      // of the keys, the first so many
	lined  bool     // it waits for keys[taken]; else, if at all, for an earlier request of its holder
	gone   bool     // nobody wants it any more, or its holder has to ask again

	owner  *run    // of the gate: an execution that waits for its flow's locks
	ticket *ticket // of the gate: an attempt that waits for an exclusive key
}

func newLocks() *locks {
	return &locks{keys: map[string]*lockedKey{}, holders: map[string]*lockHolder{}}
}

// seize notes what a holder has already.
func (l *locks) seize(name, key string, since time.Time) {
	k := l.key(key)
	if k.holder != "" && k.holder != name {
		l.drop(k.holder, key)
	}
	k.holder, k.since = name, since
	h := l.of(name)
	if at, found := slices.BinarySearch(h.keys, key); !found {
		h.keys = slices.Insert(h.keys, at, key)
	}
}

func (l *locks) key(name string) *lockedKey {
	k := l.keys[name]
	if k == nil {
		k = &lockedKey{}
		l.keys[name] = k
	}
	return k
}

func (l *locks) of(name string) *lockHolder {
	h := l.holders[name]
	if h == nil {
		h = &lockHolder{}
		l.holders[name] = h
	}
	return h
}

// ask takes all keys, or lets the request wait, or refuses it. blocked says who is in the way, nil if nobody is.
func (l *locks) ask(now time.Time, t *keyTicket) (blocked *Lock, refused bool) {
	h := l.of(t.holder)
	if len(h.waiting) > 0 && l.planted != "wait in any order" {
		first := h.waiting[0]
		h.waiting = append(h.waiting, t)
		return &Lock{Key: first.keys[first.taken], Execution: t.holder}, false
	}
	t.keys = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(t.keys))), func(key string) bool {
		_, has := slices.BinarySearch(h.keys, key)
		return has
	})
	if len(t.keys) > 0 && len(h.keys) > 0 && t.keys[0] < h.keys[len(h.keys)-1] && l.planted != "wait in any order" {
		for _, key := range t.keys {
			if blocked := l.blocked(key); blocked != nil {
				return blocked, true
			}
		}
	}
	blocked = l.climb(now, t)
	l.tidy(t.holder)
	return blocked, false
}

// climb takes keys from where the request stands, until one is another's: then it stands in its line.
func (l *locks) climb(now time.Time, t *keyTicket) *Lock {
	h := l.of(t.holder)
	for ; t.taken < len(t.keys); t.taken++ {
		key := t.keys[t.taken]
		if blocked := l.blocked(key); blocked != nil {
			k := l.key(key)
			k.line = append(k.line, t)
			h.waiting = append(h.waiting, t)
			t.lined = true
			return blocked
		}
		l.seize(t.holder, key, now)
	}
	return nil
}

// blocked returns what keeps a key from the next who asks.
func (l *locks) blocked(key string) *Lock {
	k := l.keys[key]
	switch {
	case k == nil:
		return nil
	case k.holder != "" && l.planted != "ignore holders":
		return &Lock{Key: key, Execution: k.holder, Since: k.since}
	case len(k.line) > 0:
		return &Lock{Key: key, Execution: k.line[0].holder}
	}
	return nil
}

// release frees some keys of a holder.
func (l *locks) release(now time.Time, name string, keys ...string) {
	for _, key := range keys {
		if k := l.keys[key]; k != nil && k.holder == name {
			l.drop(name, key)
			l.serve(now, key)
		}
	}
}

// releaseAll frees all keys of a holder, and returns them.
func (l *locks) releaseAll(now time.Time, name string) []string {
	h := l.holders[name]
	if h == nil {
		return nil
	}
	keys := slices.Clone(h.keys)
	l.release(now, name, keys...)
	return keys
}

// drop takes a key from its holder.
func (l *locks) drop(name, key string) {
	l.keys[key].holder = ""
	h := l.holders[name]
	if at, found := slices.BinarySearch(h.keys, key); found {
		h.keys = slices.Delete(h.keys, at, at+1)
	}
	l.tidy(name)
}

func (l *locks) tidy(name string) {
	if h := l.holders[name]; h != nil && len(h.keys)+len(h.waiting) == 0 {
		delete(l.holders, name)
	}
}

// serve gives a key that is free to who has waited for it longest.
func (l *locks) serve(now time.Time, key string) {
	k := l.keys[key]
	if k == nil || k.holder != "" {
		return
	}
	if len(k.line) == 0 {
		delete(l.keys, key)
		return
	}
	t := k.line[0]
	k.line = k.line[1:]
	l.leave(t)
	l.seize(t.holder, key, now)
	t.taken++
	if l.climb(now, t) == nil {
		l.granted = append(l.granted, t)
		l.next(t.holder)
	}
}

// leave has a request wait no longer.
func (l *locks) leave(t *keyTicket) {
	h := l.of(t.holder)
	h.waiting = slices.DeleteFunc(h.waiting, func(other *keyTicket) bool { return other == t })
	t.lined = false
}

// next has the other requests of a holder asked again, now that the one before has ended: what they may do depends on what it holds now.
func (l *locks) next(name string) {
	h := l.of(name)
	for _, t := range h.waiting {
		if t.lined {
			return
		}
	}
	for _, t := range h.waiting {
		t.gone = true
		l.granted = append(l.granted, t)
	}
	h.waiting = nil
}

// withdraw ends a request that waits, and gives up what it has taken so far.
func (l *locks) withdraw(now time.Time, t *keyTicket) {
	if t.gone || !t.lined && t.taken == len(t.keys) {
		return
	}
	t.gone = true
	if t.lined {
		k := l.keys[t.keys[t.taken]]
		k.line = slices.DeleteFunc(k.line, func(other *keyTicket) bool { return other == t })
	}
	l.leave(t)
	l.release(now, t.holder, t.keys[:t.taken]...)
	l.next(t.holder)
	l.tidy(t.holder)
}

// said is what a request that waits is told.
func (l *Lock) said() string {
	id, step, _ := strings.Cut(l.Execution, "/")
	who := "execution " + id
	if step != "" {
		who += " (" + step + ")"
	}
	key := strings.TrimPrefix(l.Key, exclusivePrefix)
	if l.Since.IsZero() {
		return fmt.Sprintf("waits for lock %s behind %s", key, who)
	}
	return fmt.Sprintf("waits for lock %s: %s holds it since %s", key, who, l.Since.UTC().Format(time.RFC3339))
}
