package server_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/clocktest"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// stalling is a store whose watch stops now and then, and whose answers do.
type stalling struct {
	*store.Memory
	stall atomic.Int64 // for how long
}

func (s *stalling) wait() {
	if d := s.stall.Swap(0); d > 0 {
		<-time.After(time.Duration(d))
	}
}

func (s *stalling) Watch(ctx context.Context, prefix string, after int64) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		for event, err := range s.Memory.Watch(ctx, prefix, after) {
			s.wait()
			if !yield(event, err) {
				return
			}
		}
	}
}

func (s *stalling) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	revision, err := s.Memory.Commit(ctx, ops...)
	if rand.IntN(10) == 0 {
		s.wait() // the answer is late
	}
	return revision, err
}

// visibleWithin is how long an acknowledged write may take to a caller's Route: through a restart of the server and a
// reconnect after the longest wait.
const visibleWithin = 30 * time.Second

// What was acknowledged, Route returns, in bounded time, and never goes back to what was before: while the store
// stalls and compacts, the server's clock steps by hours, connections break, and the server is killed and started again, and no
// step makes a lease expire. ZHIYUN_WRITES is how many; a million meet some 8,000 faults, 200 of them kills, and take seven minutes
// of two processors.
func TestAcknowledgedIsVisible(t *testing.T) {
	t.Parallel()
	writes, err := strconv.Atoi(os.Getenv("ZHIYUN_WRITES"))
	if err != nil {
		writes = 2000
	}
	writers := min(32+writes/10_000, 128)
	var records *stalling
	var clock clocktest.Clock
	s := l5test.NewServer(t, func(c *server.Config) {
		records = &stalling{Memory: c.Store.(*store.Memory)}
		c.Store = records
		server.SetClock(c, clock.Now)
	})
	client := l5test.Client(t, s.Target(), func(c *l5.Config) { c.TickEvery = 0 }) // nobody calls: the usual pace will do
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	var done, late atomic.Int64
	for i := range writers {
		w := &writer{t: t, client: client, wire: wire(t, s.Target()), service: fmt.Sprintf("s%d", i), late: &late}
		group.Go(func() {
			for range writes / writers {
				if !w.step(ctx) {
					return
				}
				done.Add(1)
			}
		})
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	// Faults come by what was done, not by the clock: on a busy machine nothing would live long enough to be seen.
	perFault := max(25, writes/8000)
	faults := 0
	for ticker := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-ended:
			ticker.Stop()
			t.Logf("%d writes acknowledged and then visible, 0 lost, through %d faults; %d took more than a second", done.Load(), faults, late.Load())
			if done.Load() < int64(writes/writers*writers) {
				t.Errorf("%d of %d writes", done.Load(), writes)
			}
			return
		case <-ticker.C:
		}
		if done.Load() < int64((faults+1)*perFault) {
			continue
		}
		switch faults++; faults % 40 {
		case 10, 20, 30:
			records.stall.Store(int64(20 * time.Millisecond))
		case 5:
			clock.Step(time.Duration(1+rand.IntN(72)) * time.Hour)
		case 13, 32:
			clock.Step(-time.Duration(1+rand.IntN(72)) * time.Hour)
		case 22:
			clock.Step(time.Duration(1+rand.IntN(144)) * time.Hour)
		case 15:
			records.Compact(1 << 60)
		case 25:
			s.Cut()
		case 35:
			s.Kill()
			s.Start()
		}
	}
}

// writer changes one service, which nobody else does.
type writer struct {
	t       *testing.T
	client  *l5.Client
	wire    l5pbconnect.NameServiceClient
	service string
	n       int
	addr    string // what Route is to return; empty: nothing
	drained string // what is still registered, and takes no calls
	late    *atomic.Int64
}

// step makes one change, waits until it is acknowledged and then until it is visible.
func (w *writer) step(ctx context.Context) bool {
	request := &l5pb.RenewRequest{Owner: "writer-" + w.service, TtlMs: 3_600_000}
	before := w.addr
	switch key := []*l5pb.Key{{Service: w.service, Addr: w.addr}}; {
	case w.addr == "":
		w.n++
		w.addr = fmt.Sprintf("127.0.0.1:%d", 1+w.n%60_000)
		request.Put = []*l5pb.Instance{{Service: w.service, Addr: w.addr}}
		if w.drained != "" { // what was drained goes, or each write would leave one more to be looked after
			request.Remove = []*l5pb.Key{{Service: w.service, Addr: w.drained}}
			w.drained = ""
		}
	case rand.IntN(3) == 0: // the next in its stead
		w.n++
		w.addr = fmt.Sprintf("127.0.0.1:%d", 1+w.n%60_000)
		request.Put, request.Remove = []*l5pb.Instance{{Service: w.service, Addr: w.addr}}, key
	case rand.IntN(2) == 0:
		w.drained, w.addr, request.Drain = w.addr, "", key
	default:
		w.addr, request.Remove = "", key
	}
	for try := 0; ; try++ { // what was not acknowledged is asked for again
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		response, err := w.wire.Renew(bounded, connect.NewRequest(request))
		cancel()
		if err == nil && response.Msg.GetFault() == "" {
			break
		}
		if ctx.Err() != nil || try > 1000 {
			w.t.Errorf("not acknowledged: %v", err)
			return false
		}
		<-time.After(10 * time.Millisecond)
	}
	return w.seen(ctx, before)
}

// seen waits until Route returns what was acknowledged. It looks whenever the client has something new, so that nothing which
// Route would have returned in between is missed.
func (w *writer) seen(ctx context.Context, before string) bool {
	began := time.Now()
	timer := time.NewTimer(visibleWithin)
	defer timer.Stop()
	for arrived := 0; arrived < 3; {
		_, changed, err := w.client.Follow(ctx, w.service)
		if err != nil {
			w.t.Errorf("follow: %v", err)
			return false
		}
		got := ""
		r, err := w.client.Route(ctx, w.service)
		switch {
		case err == nil:
			got = r.Addr()
			r.Done(l5.Outcome{Err: context.Canceled}) // no call is made
		case !errors.Is(err, l5.ErrNoInstance):
			w.t.Errorf("route: %v", err)
			return false
		}
		switch {
		case got == w.addr:
			arrived++ // and there it stays
			continue
		case arrived > 0:
			w.t.Errorf("%s went back from %q to %q", w.service, w.addr, got)
			return false
		case got != before && got != "":
			w.t.Errorf("%s has %q, neither %q nor %q", w.service, got, before, w.addr)
			return false
		}
		select {
		case <-changed:
		case <-timer.C:
			w.t.Errorf("%s: %q was acknowledged %v ago and is not visible: there is %q", w.service, w.addr, visibleWithin, got)
			return false
		}
	}
	if time.Since(began) > time.Second {
		w.late.Add(1)
	}
	return true
}
