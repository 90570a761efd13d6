package gray_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// killer ends a controller at its nth write to the outside, before or after it took effect.
type killer struct {
	gray.Store
	gray.Weights
	at    int  // which write; 0: none
	after bool // the write takes effect, but the controller never learns so
	calls int
	kill  func()
}

// write counts one, and kills if it is the one.
func (k *killer) write(do func() error) error {
	k.calls++
	if k.calls != k.at {
		return do()
	}
	if k.after {
		if err := do(); err != nil {
			return err
		}
	}
	k.kill()
	return context.Canceled
}

func (k *killer) Commit(ctx context.Context, ops ...gray.Op) (revision int64, err error) {
	return revision, k.write(func() error { revision, err = k.Store.Commit(ctx, ops...); return err })
}

func (k *killer) SetShares(ctx context.Context, service string, shares map[string]int, fence int64) error {
	return k.write(func() error { return k.Weights.SetShares(ctx, service, shares, fence) })
}

// Whatever write a controller dies at, its replacement brings the rollout to the same end over the same
// transitions. I9
func TestKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]float64{"healthy": 0, "bad": 0.5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []string
			writes := 1
			for at := 0; at <= writes; at++ {
				for _, after := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						got, calls := liveAndDie(t, fail, at, after)
						if at == 0 {
							want, writes = got, calls
							return
						}
						if diff := cmp.Diff(want, got); diff != "" {
							t.Errorf("killed at write %d (after it: %v): transitions (-want +got):\n%s", at, after, diff)
						}
					})
				}
			}
			t.Logf("killed at each of %d writes", writes)
		})
	}
}

func liveAndDie(t *testing.T, fail float64, at int, after bool) (transitions []string, writes int) {
	b := newBench(t, "new1")
	b.stop()
	k := &killer{Store: b.store, Weights: b.lb, at: at, after: after}
	first := b.cfg
	first.Store, first.Weights = k, k
	c, err := gray.New(first)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	k.kill = cancel
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	b.traffic.Fail("new1", fail)
	b.Controller, err = gray.New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.start(t, "r", "new1")
	wait(4 * time.Minute)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if at > 0 {
		b.restart(t)
		wait(4 * time.Minute)
		b.stop()
	}
	s := b.state(t, "r")
	return append(b.codes(t, "r"), fmt.Sprintf("%s, share %d", s.State, b.lb.Share("shop.cart", "new1"))), k.calls
}
