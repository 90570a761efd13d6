package gray_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/gray/graytest"
	"github.com/zhiyun-ops/zhiyun/gray/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// bench is one controller with its surroundings, on virtual time.
type bench struct {
	*gray.Controller
	cfg     gray.Config
	store   gray.Store
	lb      *graytest.Balancer
	traffic *graytest.Traffic
	stop    func()
}

// newBench starts a controller over three old members and new ones at share 0. It is called within synctest.
func newBench(t *testing.T, newMembers ...string) *bench {
	t.Helper()
	b := &bench{store: memstore.New(), lb: new(graytest.Balancer)}
	b.traffic = graytest.NewTraffic(b.lb, 100)
	b.lb.Add("shop.cart", 100, "old1", "old2", "old3")
	b.lb.Add("shop.cart", 0, newMembers...)
	b.cfg = gray.Config{Store: b.store, Weights: b.lb, Outcomes: b.traffic, Fence: func() int64 { return 7 }}
	b.restart(t)
	return b
}

// restart ends the controller, if one runs, and starts another over the same store.
func (b *bench) restart(t *testing.T) {
	t.Helper()
	if b.stop != nil {
		b.stop()
	}
	c, err := gray.New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	b.Controller = c
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		b.stop = nil
	}
}

// wait lets virtual time pass and everything settle.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// codes are the reasons of all transitions of a rollout.
func (b *bench) codes(t *testing.T, id string) []string {
	t.Helper()
	events, err := b.Events(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s %d", e.Reason.Code, e.Percent))
	}
	return out
}

func (b *bench) start(t *testing.T, id string, members ...string) gray.Rollout {
	t.Helper()
	r := gray.Rollout{ID: id, Service: "shop.cart", Policy: gray.Deck()}
	for _, m := range members {
		r.New = append(r.New, gray.Member{ID: m, Cores: 8})
	}
	r, err := b.Start(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) state(t *testing.T, id string) gray.Status {
	t.Helper()
	r, err := b.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

// I4: each stage starts after the gate of the last was green at the end of its soak.
func TestHealthyRolloutPassesAllStages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1", "new2")
		defer func() { b.stop() }()
		b.start(t, "r", "new1", "new2")
		wait(5 * time.Second)
		if got := b.lb.Share("shop.cart", "new1"); got != 10 {
			t.Errorf("share in the first stage is %d, want 10", got)
		}
		wait(5 * time.Minute)
		want := []string{"created 0", "started 10", "stage.in_force 10", "stage.green 50", "stage.in_force 50",
			"stage.green 100", "stage.in_force 100", "stage.green 100"}
		if diff := cmp.Diff(want, b.codes(t, "r")); diff != "" {
			t.Errorf("transitions (-want +got):\n%s", diff)
		}
		if s := b.state(t, "r"); s.State != gray.Done || s.Held {
			t.Errorf("status is %+v, want done and the service released", s)
		}
		if got := b.lb.Share("shop.cart", "new2"); got != 100 {
			t.Errorf("final share is %d, want 100", got)
		}
	})
}

// While automation is stopped no rollout starts and no stage ends; what fails is rolled back all the same.
func TestStoppedAutomationGoesNoFurther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1")
		defer func() { b.stop() }()
		var stopped atomic.Bool
		var broken atomic.Bool
		b.cfg.Stopped = func(context.Context, string, string) (string, bool, error) {
			if broken.Load() {
				return "", false, errors.New("the record is away")
			}
			return "incident 42", stopped.Load(), nil
		}
		b.restart(t)
		stopped.Store(true)
		b.start(t, "r", "new1")
		wait(10 * time.Minute)
		if s := b.state(t, "r"); s.State != gray.Queued || s.Verdict.Reason.Code != gray.CodeStopped || s.Verdict.Reason.Text != "incident 42" {
			t.Errorf("stopped before it started: %s, %s", s.State, s.Verdict)
		}
		stopped.Store(false)
		wait(5 * time.Second)
		stopped.Store(true)
		wait(10 * time.Minute)
		if s, share := b.state(t, "r"), b.lb.Share("shop.cart", "new1"); s.State != gray.Running || share != 10 || s.Verdict.Reason.Code != gray.CodeStopped {
			t.Errorf("stopped in the first stage: %s at %d %%, %s", s.State, share, s.Verdict)
		}
		stopped.Store(false)
		broken.Store(true)
		wait(10 * time.Minute)
		if share := b.lb.Share("shop.cart", "new1"); share != 10 {
			t.Errorf("it is not known whether automation is stopped: share %d, want 10", share)
		}
		b.traffic.Fail("new1", 0.5)
		wait(2 * time.Minute)
		if s, share := b.state(t, "r"), b.lb.Share("shop.cart", "new1"); s.State != gray.Aborted || share != 0 {
			t.Errorf("a red gate while stopped: %s at %d %%", s.State, share)
		}
	})
}

func TestBadDevicesAreRolledBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1")
		defer func() { b.stop() }()
		b.traffic.Fail("new1", 0.5)
		b.start(t, "r", "new1")
		wait(2 * time.Minute)
		want := []string{"created 0", "started 10", "stage.in_force 10", "success.low 0", "rolled_back 0"}
		if diff := cmp.Diff(want, b.codes(t, "r")); diff != "" {
			t.Errorf("transitions (-want +got):\n%s", diff)
		}
		if got := b.lb.Share("shop.cart", "new1"); got != 0 {
			t.Errorf("share after the rollback is %d, want 0", got)
		}
	})
}

// I5: the rollback holds on while the load balancer is away, and ends only when the shares read back 0.
func TestRollbackOutlastsTheBalancer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1")
		defer func() { b.stop() }()
		b.start(t, "r", "new1")
		wait(10 * time.Second)
		b.lb.Down(true)
		if _, err := b.Abort(t.Context(), "r", "li", "smoke"); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Minute)
		if s := b.state(t, "r"); s.State != gray.Aborting || s.Verdict.Reason.Code != gray.CodeWeightsError {
			t.Errorf("with the balancer down: %s, %s", s.State, s.Verdict)
		}
		if b.Err() == nil {
			t.Error("Err is nil while weights cannot be set")
		}
		b.lb.Down(false)
		b.lb.Lose(3)
		wait(10 * time.Second)
		if s := b.state(t, "r"); s.State != gray.Aborted {
			t.Errorf("state is %s, want aborted", s.State)
		}
		if got := b.lb.Share("shop.cart", "new1"); got != 0 {
			t.Errorf("share is %d, want 0", got)
		}
	})
}

func TestNoDataHolds(t *testing.T) {
	t.Parallel()
	// Data that are missing make a rollout wait, then pause; they never move it.
	for name, fault := range map[string]struct {
		on, off func(*graytest.Traffic)
		code    string
	}{
		"gap":    {func(f *graytest.Traffic) { f.Gap(true) }, func(f *graytest.Traffic) { f.Gap(false) }, gray.CodeDataGap},
		"error":  {func(f *graytest.Traffic) { f.Down(true) }, func(f *graytest.Traffic) { f.Down(false) }, gray.CodeDataError},
		"silent": {func(f *graytest.Traffic) { f.Silence(true) }, func(f *graytest.Traffic) { f.Silence(false) }, gray.CodeBaselineMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, "new1")
				defer func() { b.stop() }()
				b.cfg.Interval = 20 * time.Second
				b.restart(t)
				fault.on(b.traffic)
				b.start(t, "r", "new1")
				wait(3 * time.Hour)
				if s := b.state(t, "r"); s.State != gray.Running || s.Stage != 0 || s.Verdict.Reason.Code != fault.code {
					t.Errorf("without data: %s stage %d, %s; want running, 0, %s", s.State, s.Stage, s.Verdict, fault.code)
				}
				wait(2 * time.Hour)
				if s := b.state(t, "r"); s.State != gray.Paused || s.Reason.Code != gray.CodeOverdue {
					t.Errorf("after MaxStage: %s, %s; want paused, overdue", s.State, s.Reason)
				}
				fault.off(b.traffic)
				if _, err := b.Resume(t.Context(), "r", "li", "data are back"); err != nil {
					t.Fatal(err)
				}
				wait(15 * time.Minute)
				if s := b.state(t, "r"); s.State != gray.Done {
					t.Errorf("with data: %s, %s; want done", s.State, s.Verdict)
				}
			})
		})
	}
}

func TestRestartInEveryStageGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1")
		defer func() { b.stop() }()
		b.start(t, "r", "new1")
		for range 60 {
			wait(4 * time.Second)
			b.restart(t)
		}
		wait(time.Minute)
		want := []string{"created 0", "started 10", "stage.in_force 10", "stage.green 50", "stage.in_force 50",
			"stage.green 100", "stage.in_force 100", "stage.green 100"}
		if diff := cmp.Diff(want, b.codes(t, "r")); diff != "" {
			t.Errorf("transitions (-want +got):\n%s", diff)
		}
	})
}

func TestRolloutsOfOneServiceQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1", "new2")
		defer func() { b.stop() }()
		b.start(t, "a", "new1")
		wait(time.Second)
		b.start(t, "b", "new2")
		wait(time.Minute)
		if a, s := b.state(t, "a"), b.state(t, "b"); a.State != gray.Running || s.State != gray.Queued {
			t.Errorf("states are %s and %s, want running and queued", a.State, s.State)
		}
		wait(10 * time.Minute)
		if a, s := b.state(t, "a"), b.state(t, "b"); a.State != gray.Done || s.State != gray.Done {
			t.Errorf("states are %s and %s, want both done", a.State, s.State)
		}
	})
}

func TestAbortFromEveryState(t *testing.T) {
	t.Parallel()
	for name, reach := range map[string]func(*testing.T, *bench){
		"queued": func(t *testing.T, b *bench) {
			b.lb.Add("shop.cart", 0, "other")
			b.start(t, "first", "other")
			wait(time.Second)
			b.start(t, "r", "new1")
			wait(time.Second)
		},
		"running": func(t *testing.T, b *bench) { b.start(t, "r", "new1"); wait(90 * time.Second) },
		"paused": func(t *testing.T, b *bench) {
			b.start(t, "r", "new1")
			wait(5 * time.Second)
			if _, err := b.Pause(t.Context(), "r", "li", ""); err != nil {
				t.Fatal(err)
			}
		},
		"done": func(t *testing.T, b *bench) { b.start(t, "r", "new1"); wait(10 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, "new1")
				defer func() { b.stop() }()
				reach(t, b)
				if s := b.state(t, "r"); string(s.State) != name {
					t.Fatalf("state is %s, want %s", s.State, name)
				}
				if _, err := b.Abort(t.Context(), "r", "li", "enough"); err != nil { // I5
					t.Fatal(err)
				}
				wait(5 * time.Second)
				if s := b.state(t, "r"); s.State != gray.Aborted || b.lb.Share("shop.cart", "new1") != 0 {
					t.Errorf("state is %s with share %d, want aborted with 0", s.State, b.lb.Share("shop.cart", "new1"))
				}
			})
		})
	}
}

func TestLostMemberIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1", "new2")
		defer func() { b.stop() }()
		b.start(t, "r", "new1", "new2")
		wait(10 * time.Second)
		b.lb.Remove("shop.cart", "new2")
		wait(10 * time.Minute)
		s := b.state(t, "r")
		if s.State != gray.Done || !cmp.Equal(s.Lost, []string{"new2"}) {
			t.Errorf("state is %s with lost %v, want done with new2 lost", s.State, s.Lost)
		}
	})
}

func TestStartIsIdempotentByID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "new1")
		defer func() { b.stop() }()
		first := b.start(t, "r", "new1")
		wait(10 * time.Second)
		again := b.start(t, "r", "new1")
		if !first.Status.Created.Equal(again.Status.Created) {
			t.Errorf("a second Start made another rollout")
		}
		_, err := b.Start(t.Context(), gray.Rollout{ID: "r", Service: "other", New: []gray.Member{{ID: "x"}}})
		if !errors.Is(err, gray.ErrExists) {
			t.Errorf("Start of another rollout with the same ID: %v, want ErrExists", err)
		}
		if _, err := b.Get(t.Context(), "none"); !errors.Is(err, gray.ErrNotFound) {
			t.Errorf("Get of none: %v, want ErrNotFound", err)
		}
	})
}

func TestFaultsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := gray.New(gray.Config{Interval: -1})
	if !errors.Is(err, gray.ErrConfig) {
		t.Fatalf("New: %v, want ErrConfig", err)
	}
	for _, field := range []string{"Store", "Weights", "Outcomes", "Interval"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("New's error does not name %s: %v", field, err)
		}
	}
	c, err := gray.New(gray.Config{Store: memstore.New(), Weights: new(graytest.Balancer), Outcomes: graytest.NewTraffic(nil, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Start(t.Context(), gray.Rollout{New: []gray.Member{{ID: "a"}, {ID: "a"}}, Policy: gray.Policy{Stages: []int{50, 10}}})
	if !errors.Is(err, gray.ErrInvalid) {
		t.Fatalf("Start: %v, want ErrInvalid", err)
	}
	for _, field := range []string{"Service", `"a" stands twice`, "Stages[1]", "Stages ends at 10"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("Start's error does not name %s: %v", field, err)
		}
	}
}

// A leader that lost the election stops, and its successor goes on with a higher fencing number.
func TestLostLeadershipEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		elector := store.NewMemoryElector(memory)
		lb := new(graytest.Balancer)
		lb.Add("shop.cart", 100, "old1")
		lb.Add("shop.cart", 0, "new1")
		lead := func(id string) (*gray.Controller, chan error, *store.Term) {
			term, err := elector.Campaign(t.Context(), "gray", id)
			if err != nil {
				t.Fatal(err)
			}
			c, err := gray.New(gray.Config{Store: store.Fenced(memory, term), Weights: lb, Outcomes: graytest.NewTraffic(lb, 100), Fence: term.Fence})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			return c, ended, term
		}
		first, firstEnded, firstTerm := lead("one")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { firstEnded <- first.Run(ctx) }()
		if _, err := first.Start(ctx, gray.Rollout{ID: "r", Service: "shop.cart", New: []gray.Member{{ID: "new1"}}, Policy: gray.Deck()}); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Second)
		elector.Depose("gray")
		second, secondEnded, term := lead("two")
		go func() { secondEnded <- second.Run(ctx) }()
		wait(10 * time.Minute)
		if err := <-firstEnded; !errors.Is(err, gray.ErrFenced) {
			t.Errorf("Run of the first ended with %v, want ErrFenced", err)
		}
		r, err := second.Get(ctx, "r")
		if err != nil || r.Status.State != gray.Done {
			t.Errorf("under the second leader: %s, %v; want done", r.Status.State, err)
		}
		if err := lb.SetShares(ctx, "shop.cart", map[string]int{"new1": 1}, term.Fence()-1); err == nil {
			t.Error("the balancer takes orders of the first leader")
		}
		cancel()
		if err := <-secondEnded; err != nil {
			t.Errorf("Run of the second: %v", err)
		}
		for _, term := range []*store.Term{firstTerm, term} {
			if err := term.Resign(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
