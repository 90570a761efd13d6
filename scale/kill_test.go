package scale_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
)

// killer ends a controller at its nth write to the outside, before or after it took effect.
type killer struct {
	scale.Store
	scale.Launcher
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

func (k *killer) Commit(ctx context.Context, ops ...scale.Op) (revision int64, err error) {
	return revision, k.write(func() error { revision, err = k.Store.Commit(ctx, ops...); return err })
}

func (k *killer) Launch(ctx context.Context, o scale.Order) (id string, err error) {
	return id, k.write(func() error { id, err = k.Launcher.Launch(ctx, o); return err })
}

// Whatever write a controller dies at, its replacement absorbs the burst and gives the devices back, and no device
// is ordered twice. I9
func TestKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	writes := 1
	for at := 0; at <= writes; at++ {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				if calls := liveAndDie(t, at, after); at == 0 {
					writes = calls
				}
			})
		}
	}
	t.Logf("killed at each of %d writes", writes)
}

func liveAndDie(t *testing.T, at int, after bool) (writes int) {
	b := newBench(t)
	b.stop()
	k := &killer{Store: b.store, Launcher: b.world, at: at, after: after}
	first := b.cfg
	first.Store, first.Launcher = k, k
	ctx, stop := context.WithCancel(t.Context())
	life, kill := context.WithCancel(ctx)
	k.kill = kill
	ended := make(chan error, 1)
	go func() {
		for _, cfg := range []scale.Config{first, b.cfg} {
			c, err := scale.New(cfg)
			if err == nil {
				err = c.Run(life)
			}
			if err != nil || ctx.Err() != nil {
				ended <- err
				return
			}
			life = ctx
		}
	}()
	wait(20 * time.Second)
	b.rate.Store(600)
	wait(40 * time.Second)
	if n := b.world.Serving("shop.cart"); n != 9 {
		t.Errorf("killed at write %d (after it: %v): %d devices serve the burst, want 9", at, after, n)
	}
	b.rate.Store(200)
	wait(90 * time.Second)
	if n := b.world.Serving("shop.cart"); n != 3 {
		t.Errorf("killed at write %d (after it: %v): %d devices serve after the burst, want 3", at, after, n)
	}
	out, in := 0, 0
	for _, o := range b.world.Orders() {
		if o.Direction == scale.Out {
			out += o.Count
		} else {
			in += o.Count
		}
	}
	if out != 6 || in != 6 {
		t.Errorf("killed at write %d (after it: %v): %d devices ordered and %d sent away, want 6 and 6", at, after, out, in)
	}
	b.check(t)
	stop()
	kill()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	return k.calls
}
