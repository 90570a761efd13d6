package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// RunShared tests the stores that open returns, which several engines share: open is called once per test and returns n stores on the same empty
// tables, and closes them with t.Cleanup. It comes on top of Run.
func RunShared(t *testing.T, open func(t *testing.T, n int) []flow.Shared) {
	for _, one := range []struct {
		name string
		test func(*testing.T, []flow.Shared)
	}{
		{"Membership", membership},
		{"Fencing", fencing},
		{"Owners", ownership},
		{"CutOffTogether", cutOffTogether},
		{"ClaimOnce", claimOnce},
		{"Letters", letters},
		{"Listen", listen},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			one.test(t, open(t, 3))
		})
	}
}

const (
	long  = time.Hour
	short = 30 * time.Millisecond
)

func join(t *testing.T, s flow.Shared, name string, lease time.Duration) int64 {
	t.Helper()
	member, err := s.Join(t.Context(), name, lease)
	if err != nil {
		t.Fatal(err)
	}
	return member
}

func beat(t *testing.T, s flow.Shared, member int64) flow.Beat {
	t.Helper()
	b, err := s.Beat(t.Context(), member)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// removed beats as member until it removes another.
func removed(t *testing.T, s flow.Shared, member int64) []int64 {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		if b := beat(t, s, member); len(b.Removed) > 0 {
			return b.Removed
		}
		select {
		case <-end:
			t.Fatal("a silent member is not removed")
		case <-time.After(short / 10):
		}
	}
}

// owned is a transition that creates an execution of a member's.
func owned(id string, member int64) flow.Transition {
	one := create(id)
	one.Row.Owner = member
	return one
}

func next(one flow.Transition) flow.Transition {
	return follow(one, flow.Running, flow.Wake{Kind: flow.WakeLease})
}

func membership(t *testing.T, s []flow.Shared) {
	a, b := join(t, s[0], "a", long), join(t, s[1], "b", long)
	if b <= a {
		t.Fatalf("members %d and %d: numbers must grow", a, b)
	}
	got := beat(t, s[0], a)
	if got.Members != 2 || !got.Lead || got.Orphans || got.Next < long/2 || got.Next > long {
		t.Errorf("the beat of the first: %+v", got)
	}
	if got = beat(t, s[1], b); got.Lead {
		t.Errorf("two lead: %+v", got)
	}
	for range 2 {
		if err := s[0].Leave(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if got = beat(t, s[1], b); got.Members != 1 || !got.Lead || got.Next != 0 {
		t.Errorf("the beat of who is left alone: %+v", got)
	}
	if _, err := s[0].Beat(t.Context(), a); !errors.Is(err, flow.ErrFenced) {
		t.Errorf("the beat of who has left: %v, want ErrFenced", err)
	}
	if c := join(t, s[0], "a", long); c <= b {
		t.Errorf("member %d after %d: a number came again", c, b)
	}
}

// Who is removed writes nothing more: not to what it owned, nor anything new.
func fencing(t *testing.T, s []flow.Shared) {
	a, b := join(t, s[0], "a", short), join(t, s[1], "b", long)
	mine := owned("x", a)
	commit(t, s[0], nil, mine, owned("other", b))
	if got := removed(t, s[1], b); !slices.Equal(got, []int64{a}) {
		t.Fatalf("removed %v, want %d", got, a)
	}
	if !beat(t, s[1], b).Orphans {
		t.Error("nothing to claim after a member was removed")
	}
	late := next(mine)
	late.Notices = []flow.Notice{{ID: "late"}}
	commit(t, s[0], []error{flow.ErrFenced, flow.ErrFenced, flow.ErrFenced, nil}, late, next(late), owned("new", a), create("nobody's"))
	if _, err := s[0].Claim(t.Context(), a, 10); !errors.Is(err, flow.ErrFenced) {
		t.Errorf("a claim of who was removed: %v, want ErrFenced", err)
	}
	if left, err := s[0].Notices(t.Context(), 10); err != nil || len(left) != 0 {
		t.Errorf("notices of a fenced transition: %v, %v", left, err)
	}
	for range 2 {
		rows, err := s[1].Claim(t.Context(), b, 1)
		if err != nil || len(rows) != 1 {
			t.Fatal(rows, err)
		}
	}
	if row := get(t, s[0], "x"); row.Owner != b || row.Seq != mine.Row.Seq {
		t.Errorf("x is %+v, want it unchanged and %d's", row, b)
	}
	again := join(t, s[0], "a", long)
	commit(t, s[0], []error{flow.ErrFenced}, late)
	late.Row.Owner = again
	commit(t, s[0], []error{flow.ErrFenced}, late)
	late.Row.Owner = b
	commit(t, s[1], nil, late)
}

// An open execution moves for its owner alone; one that has ended, for whoever takes it up.
func ownership(t *testing.T, s []flow.Shared) {
	a, b := join(t, s[0], "a", long), join(t, s[1], "b", long)
	one, free := owned("x", a), create("free")
	commit(t, s[0], nil, one, free)
	stolen := next(one)
	stolen.Row.Owner = b
	nobodys := next(one)
	nobodys.Row.Owner = 0
	taken := next(free)
	taken.Row.Owner = b
	commit(t, s[1], []error{flow.ErrFenced, flow.ErrFenced, flow.ErrFenced}, stolen, nobodys, taken)
	commit(t, s[1], nil, next(free)) // by an engine that does not run
	want := next(free).Row
	want.Owner = b
	claimed, err := s[1].Claim(t.Context(), b, 10)
	if diff := cmp.Diff([]flow.Row{want}, claimed); err != nil || diff != "" {
		t.Fatalf("claimed, %v; want what had no owner, as it is from now on: %s", err, diff)
	}
	done := follow(one, flow.Done, flow.Wake{Kind: flow.WakeNone})
	commit(t, s[0], nil, done)
	back := next(done)
	back.Row.State, back.Row.Ended, back.Row.Owner = flow.Compensating, time.Time{}, b
	commit(t, s[1], nil, back)
	if row := get(t, s[0], "x"); row.Owner != b || row.State != flow.Compensating {
		t.Errorf("x is %+v", row)
	}
}

// Members that were all silent, as the store was away, do not remove one another: who comes back first gives the others time.
func cutOffTogether(t *testing.T, s []flow.Shared) {
	const lease = 300 * time.Millisecond
	a, b := join(t, s[0], "a", lease), join(t, s[1], "b", lease)
	<-time.After(lease + 50*time.Millisecond)
	if got := beat(t, s[0], a); len(got.Removed) > 0 {
		t.Errorf("the first to come back removed %v", got.Removed)
	}
	if _, err := s[1].Beat(t.Context(), b); err != nil {
		t.Errorf("the second to come back: %v", err)
	}
}

// Of members that race, one claims each execution.
func claimOnce(t *testing.T, s []flow.Shared) {
	const executions = 60
	gone := join(t, s[0], "gone", long)
	var batch []flow.Transition
	for i := range executions {
		owner := gone
		if i%3 == 0 {
			owner = 0
		}
		batch = append(batch, owned(fmt.Sprintf("x%02d", i), owner))
	}
	commit(t, s[0], nil, batch...)
	members := make([]int64, len(s))
	for i := range s {
		members[i] = join(t, s[i], fmt.Sprint("m", i), long)
	}
	if err := s[0].Leave(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	claims := map[string]int64{}
	var group sync.WaitGroup
	for i := range s {
		group.Go(func() {
			for {
				rows, err := s[i].Claim(t.Context(), members[i], 7)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, row := range rows {
					if other, twice := claims[row.ID]; twice {
						t.Errorf("%s was claimed by %d and %d", row.ID, other, members[i])
					}
					claims[row.ID] = members[i]
				}
				done := len(claims) == executions
				mu.Unlock()
				if done || len(rows) == 0 && !beat(t, s[i], members[i]).Orphans {
					return
				}
			}
		})
	}
	group.Wait()
	if len(claims) != executions {
		t.Errorf("%d of %d executions were claimed", len(claims), executions)
	}
	for id, member := range claims {
		if row := get(t, s[0], id); row.Owner != member {
			t.Errorf("%s was claimed by %d and is %d's", id, member, row.Owner)
		}
	}
}

func letters(t *testing.T, s []flow.Shared) {
	a, b := join(t, s[0], "a", long), join(t, s[1], "b", long)
	one := owned("x", a)
	commit(t, s[0], nil, one)
	if _, err := s[1].Send(t.Context(), "nobody", []byte("{}")); !errors.Is(err, flow.ErrNotFound) {
		t.Errorf("a letter to nobody: %v, want ErrNotFound", err)
	}
	var sent []int64
	for i := range 3 {
		letter, err := s[1].Send(t.Context(), "x", fmt.Appendf(nil, `{"n":%d}`, i))
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, letter)
	}
	want := []flow.Letter{{ID: sent[0], Execution: "x", Body: []byte(`{"n":0}`)}, {ID: sent[1], Execution: "x", Body: []byte(`{"n":1}`)}, {ID: sent[2], Execution: "x", Body: []byte(`{"n":2}`)}}
	if diff := cmp.Diff(want, beat(t, s[0], a).Letters); diff != "" {
		t.Errorf("the owner's letters: %s", diff)
	}
	if got := beat(t, s[1], b).Letters; len(got) > 0 {
		t.Errorf("letters to another's execution: %v", got)
	}
	collect := func(letter int64, withdraw bool, text string, answered bool, fate error) {
		t.Helper()
		gotText, gotAnswered, err := s[1].Collect(t.Context(), letter, withdraw)
		if gotText != text || gotAnswered != answered || !errors.Is(err, fate) {
			t.Errorf("collect %d: %q, %v, %v; want %q, %v, %v", letter, gotText, gotAnswered, err, text, answered, fate)
		}
	}
	collect(sent[0], false, "", false, nil)
	// The transition that a letter causes answers it; one that is refused does not.
	acted := next(one)
	acted.Answers = []flow.Answer{{Letter: sent[0]}}
	refused := next(one)
	refused.Answers = []flow.Answer{{Letter: sent[1], Text: "never"}}
	commit(t, s[0], []error{nil, flow.ErrStale}, acted, refused)
	if err := s[0].Answer(t.Context(), flow.Answer{Letter: sent[0], Text: "again"}); err != nil {
		t.Fatal(err)
	}
	collect(sent[0], false, "", true, nil)
	collect(sent[0], false, "", false, flow.ErrNotFound)
	if err := s[0].Answer(t.Context(), flow.Answer{Letter: sent[1], Text: "no"}); err != nil {
		t.Fatal(err)
	}
	collect(sent[1], true, "no", true, nil)
	collect(sent[2], true, "", false, nil)
	if got := beat(t, s[0], a).Letters; len(got) > 0 {
		t.Errorf("letters that are answered or taken back: %v", got)
	}
	// A letter goes with the execution to its next owner.
	letter, err := s[1].Send(t.Context(), "x", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := s[0].Leave(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := s[1].Claim(t.Context(), b, 10); err != nil {
		t.Fatal(err)
	}
	if got := beat(t, s[1], b).Letters; len(got) != 1 || got[0].ID != letter {
		t.Errorf("the letters of the next owner: %v", got)
	}
}

// Whatever gives another member something to do wakes it.
func listen(t *testing.T, s []flow.Shared) {
	a, b := join(t, s[0], "a", long), join(t, s[1], "b", long)
	commit(t, s[0], nil, owned("x", a))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	woken := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() { // ends with ctx; the test waits for it
		done <- s[1].Listen(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	heard := func() bool {
		select {
		case <-woken:
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	}
	// Until it listens, it is told in vain.
	for end := time.Now().Add(20 * time.Second); ; {
		commit(t, s[0], nil, create(fmt.Sprint("n", time.Now().UnixNano())))
		if heard() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is heard")
		}
	}
	var letter int64
	for name, do := range map[string]func() error{
		"an execution without an owner": func() error { _, err := s[0].Commit(t.Context(), []flow.Transition{create("free")}); return err },
		"a definition": func() error {
			return s[0].PutDefinition(t.Context(), flow.DefinitionRecord{Name: "f", Version: 1, Source: []byte("flow: f"), SavedAt: epoch})
		},
		"a letter": func() (err error) { letter, err = s[0].Send(t.Context(), "x", []byte("{}")); return err },
	} {
		for heard() { // what is still on its way
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-woken:
		case <-time.After(20 * time.Second):
			t.Errorf("%s wakes nobody", name)
		}
	}
	for _, do := range []func() error{
		func() error { return s[2].Answer(t.Context(), flow.Answer{Letter: letter}) },
		func() error { return s[0].Leave(t.Context(), a) },
	} {
		for heard() {
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-woken:
		case <-time.After(20 * time.Second):
			t.Error("an answer or a departure wakes nobody")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("listen until ctx ends: %v", err)
	}
	beat(t, s[1], b)
}
