package scale_test

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

	"github.com/zhiyun-ops/zhiyun/scale"
	"github.com/zhiyun-ops/zhiyun/scale/memstore"
	"github.com/zhiyun-ops/zhiyun/scale/scaletest"
)

// quick suits a demo: buckets of a second, devices within seconds.
var quick = scale.Policy{
	ReactWithin: 3 * time.Second, StaleAfter: 5 * time.Second, Target: 0.7, NoForecast: true,
	InAfter: 10 * time.Second, Cooldown: 5 * time.Second, CooldownIn: 5 * time.Second, InStep: 3, Backoff: 10 * time.Second,
}

// bench is one controller in a world of 12 devices of which 3 serve, on virtual time.
type bench struct {
	*scale.Controller
	world *scaletest.World
	store scale.Store
	cfg   scale.Config
	rate  atomic.Int64
	stop  func()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{world: scaletest.NewWorld(), store: memstore.New()}
	b.rate.Store(200)
	b.world.Delay = 8 * time.Second
	for i := range 12 {
		module := ""
		if i < 3 {
			module = "shop.cart"
		}
		b.world.AddDevices(module, scale.Candidate{Name: fmt.Sprintf("d%02d", i), City: "sz", Site: "sz1", Type: "s"})
	}
	b.world.AddModule(scale.Module{Name: "shop.cart", Min: 3, Max: 12, Capacity: map[string]float64{"s": 100}, Policy: quick},
		func(time.Time) float64 { return float64(b.rate.Load()) })
	b.cfg = scale.Config{Store: b.store, Modules: b.world, Metrics: b.world, Devices: b.world, Launcher: b.world, Interval: time.Second}
	b.restart(t)
	return b
}

func (b *bench) restart(t *testing.T) {
	t.Helper()
	if b.stop != nil {
		b.stop()
	}
	c, err := scale.New(b.cfg)
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

func (b *bench) status(t *testing.T) scale.Status {
	t.Helper()
	s, err := b.Status(t.Context(), "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check fails the test on what no controller may ever do.
func (b *bench) check(t *testing.T) {
	t.Helper()
	if c := b.world.Conflicts(); len(c) > 0 {
		t.Errorf("orders that conflict: %v", c)
	}
}

func TestBurstIsAbsorbedAndGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() { b.stop() }()
		wait(30 * time.Second)
		if n := len(b.world.Orders()); n != 0 {
			t.Fatalf("%d orders before the burst", n)
		}
		b.rate.Store(600)
		wait(5 * time.Second)
		orders := b.world.Orders()
		if len(orders) == 0 {
			t.Fatalf("no order within 5 s of the overload; last decision %+v", b.status(t).Decision)
		}
		t.Logf("first order: %d devices, %s", orders[0].Count, orders[0].Reason)
		wait(30 * time.Second)
		if n := b.world.Serving("shop.cart"); n != 9 {
			t.Errorf("%d devices serve the burst, want 9", n)
		}
		b.rate.Store(200)
		wait(60 * time.Second)
		if n := b.world.Serving("shop.cart"); n != 3 {
			t.Errorf("%d devices serve after the burst, want 3; last decision %+v", n, b.status(t).Decision)
		}
		b.check(t)
	})
}

func TestLostDeviceIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() { b.stop() }()
		wait(20 * time.Second)
		b.world.Kill("d01")
		wait(20 * time.Second)
		if n := b.world.Serving("shop.cart"); n != 3 {
			t.Errorf("%d devices serve after one was lost, want 3", n)
		}
		orders := b.world.Orders()
		if len(orders) != 1 || orders[0].Reason.Code != scale.CodeBelowMin {
			t.Errorf("orders are %+v, want one for %s", orders, scale.CodeBelowMin)
		}
	})
}

// I7: no load known, or none fresh, and nothing happens in either direction.
func TestMissingLoadHolds(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*bench){
		"lost buckets": func(b *bench) { b.world.Gaps(func(time.Time) bool { return true }) },
		"error":        func(b *bench) { b.world.Down("metrics", true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				defer func() { b.stop() }()
				b.rate.Store(600)
				wait(60 * time.Second)
				serving, orders := b.world.Serving("shop.cart"), len(b.world.Orders())
				fault(b)
				b.rate.Store(0)
				wait(10 * time.Minute)
				if n := b.world.Serving("shop.cart"); n != serving || len(b.world.Orders()) != orders {
					t.Errorf("without load known: %d devices and %d orders, had %d and %d", n, len(b.world.Orders()), serving, orders)
				}
			})
		})
	}
}

func TestOrdersAreLaunchedOnceOverRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() { b.stop() }()
		b.rate.Store(600)
		lost := 0
		b.world.OnLaunch(func(scale.Order) error {
			if lost++; lost < 4 {
				return errors.New("the answer is lost")
			}
			return nil
		})
		for range 40 {
			wait(time.Second)
			b.restart(t)
		}
		if n := b.world.Serving("shop.cart"); n != 9 {
			t.Errorf("%d devices serve, want 9", n)
		}
		b.check(t)
	})
}

func TestFailedOrdersBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() { b.stop() }()
		b.world.OnLaunch(func(scale.Order) error { return fmt.Errorf("%w: no such flow", scale.ErrRejected) })
		b.rate.Store(600)
		wait(5 * time.Minute)
		s := b.status(t)
		if s.Fails < 3 || s.Fails > 6 || s.Decision.Reason.Code != scale.CodeBackoff {
			t.Errorf("after 5 min: %d failures, %s; want a few, and backoff", s.Fails, s.Decision.Reason)
		}
		b.world.OnLaunch(nil)
		wait(10 * time.Minute)
		if n := b.world.Serving("shop.cart"); n != 9 {
			t.Errorf("%d devices serve, want 9", n)
		}
	})
}

func TestByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() { b.stop() }()
		wait(2 * time.Second)
		if err := b.Pause(t.Context(), "shop.cart", "li", "tests"); err != nil {
			t.Fatal(err)
		}
		plan, err := b.Out(t.Context(), "shop.cart", 2, "li", true)
		if err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Second)
		if diff := cmp.Diff([]string{"d03", "d04"}, plan.Order.Names()); diff != "" || len(b.world.Orders()) != 0 {
			t.Errorf("dry run: %d orders, devices (-want +got):\n%s", len(b.world.Orders()), diff)
		}
		if _, err = b.Out(t.Context(), "shop.cart", 2, "li", false); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Second)
		if n := b.world.Serving("shop.cart"); n != 5 {
			t.Errorf("%d devices serve, want 5", n)
		}
		if _, err = b.In(t.Context(), "shop.cart", 3, "li", false); !errors.Is(err, scale.ErrRefused) {
			t.Errorf("In below Min: %v, want ErrRefused", err)
		}
		if _, err = b.Out(t.Context(), "shop.cart", 8, "li", false); !errors.Is(err, scale.ErrRefused) {
			t.Errorf("Out over Max: %v, want ErrRefused", err)
		}
		if _, err = b.In(t.Context(), "shop.cart", 2, "li", false); err != nil {
			t.Fatal(err)
		}
		wait(20 * time.Second)
		if n := b.world.Serving("shop.cart"); n != 3 {
			t.Errorf("%d devices serve, want 3", n)
		}
		s := b.status(t)
		if !s.Paused || s.Decision.Reason.Code != scale.CodePaused {
			t.Errorf("status is %+v, want paused", s)
		}
		b.check(t)
	})
}

func TestFaultsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := scale.New(scale.Config{Interval: -1})
	if !errors.Is(err, scale.ErrConfig) {
		t.Fatalf("New: %v, want ErrConfig", err)
	}
	for _, field := range []string{"Store", "Modules", "Metrics", "Devices", "Launcher", "Interval"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("New's error does not name %s: %v", field, err)
		}
	}
}
