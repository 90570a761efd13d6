package flow

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An execution that rests has one alarm, which is its last, and none once it is in memory again.
func TestOneAlarmForEachThatRests(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(1, 2))
	r := resting{changed: make(chan struct{}, 1)}
	want := map[string]time.Time{}
	for range 10_000 {
		id := fmt.Sprint(random.IntN(50))
		switch random.IntN(5) {
		case 0:
			r.clear(id)
			delete(want, id)
		case 1:
			r.set(time.Time{}, id, 1) // it waits for a person
			delete(want, id)
		default:
			at := start.Add(time.Duration(random.IntN(1_000_000)) * time.Microsecond)
			r.set(at, id, 1)
			want[id] = at
		}
		if len(r.alarms) != len(want) || len(r.of) != len(want) {
			t.Fatalf("%d alarms, %d by execution; want %d", len(r.alarms), len(r.of), len(want))
		}
	}
	for id := range want {
		if len(id) == 1 { // those are another member's, which is one no more
			r.set(want[id], id, 2)
			delete(want, id)
		}
	}
	r.forget(2)
	for now := start; len(want) > 0; now = now.Add(10 * time.Millisecond) {
		rung, next := r.due(now)
		for id, at := range want {
			if due := !at.After(now); due != slices.ContainsFunc(rung, func(a alarm) bool { return a.id == id }) {
				t.Errorf("at %s, alarm %s of %s is due: %t", now, id, at, !due)
			} else if due {
				delete(want, id)
			} else if at.Sub(now) < next {
				t.Errorf("at %s, the next alarm is in %s, and %s rings at %s", now, next, id, at)
			}
		}
	}
	if len(r.alarms)+len(r.of) > 0 {
		t.Errorf("%d alarms are left, %d by execution", len(r.alarms), len(r.of))
	}
}

// What an engine was about to remember as a member that is one no more does not stand in for what it knows as the next.
func TestAlarmsOfAnEarlierMember(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := resting{changed: make(chan struct{}, 1)}
	r.set(start, "x", 1)
	r.set(start, "y", 1)
	r.forget(1)
	r.set(start.Add(time.Second), "x", 3)
	r.set(start, "x", 1)
	r.set(time.Time{}, "x", 1)
	if rung, _ := r.due(start.Add(time.Minute)); len(rung) != 1 || rung[0].id != "x" || rung[0].member != 3 || !rung[0].at.Equal(start.Add(time.Second)) {
		t.Errorf("what rings is %+v, want x of member 3, a second after the start", rung)
	}
}

func TestCompiledVersionsAreBounded(t *testing.T) {
	t.Parallel()
	e := &Engine{versions: map[versionKey]*program{}}
	for i := range 10 * maxVersions {
		key := versionKey{"f", i}
		e.keep(&program{Definition: Definition{Name: key.name, Version: key.version}})
		if e.versions[key] == nil || len(e.versions) > maxVersions {
			t.Fatalf("after %d versions %d are kept; the last one: %t", i+1, len(e.versions), e.versions[key] != nil)
		}
	}
}

// An execution that waits again and again keeps the timers that have not fired, and no others.
func TestTimersThatHaveFiredAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &run{busy: true} // what timers bring stays in its inbox
		for range 100 {
			r.perform(&action{kind: actTimer, at: now().Add(30 * time.Second)}, false)
			r.perform(&action{kind: actTimer, at: now().Add(59*time.Minute + 30*time.Second)}, false)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.timers) != 59 || len(r.inbox) != 141 {
			t.Errorf("%d timers are kept and %d have fired; want 59 and 141", len(r.timers), len(r.inbox))
		}
		for timer := range r.timers {
			timer.Stop()
		}
	})
}
