package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/l5/server/daemon"
)

// l5 measures a pick with its outcome, and how long a changed weight takes to a caller.
func (s *suite) l5(ctx context.Context) (err error) {
	s.Progress("l5: a server and a caller")
	names, err := daemon.New(daemon.Config{Listen: "unix://" + filepath.Join(s.dir, "l5.sock"), Server: server.Config{Store: memstore.New()}})
	if err != nil {
		return err
	}
	stop := background(ctx, names.Run)
	defer func() { err = errors.Join(err, stop()) }()
	target, err := names.Addr(ctx)
	if err != nil {
		return err
	}
	if err := names.Server().Ready(ctx); err != nil {
		return err
	}
	client, err := l5.New(l5.Config{Target: target, Caller: "bench.caller"})
	if err != nil {
		return err
	}
	stopClient := background(ctx, client.Run)
	defer func() { err = errors.Join(err, stopClient()) }()
	for _, n := range []int{10, 100, 1000, 10_000} {
		service := fmt.Sprintf("bench.s%d", n)
		instances := make([]l5.Instance, n)
		for i := range instances {
			instances[i] = l5.Instance{Service: service, Addr: fmt.Sprintf("10.%d.%d.1:80", i/250, i%250), Weight: 50 + i%100, Share: 100}
		}
		if err := names.Server().Register(ctx, instances); err != nil {
			return err
		}
		if err := s.route(ctx, client, service, n); err != nil {
			return err
		}
	}
	if err := s.kinds(ctx, target); err != nil {
		return err
	}
	s.moved()
	if err := s.push(ctx, names.Server(), client); err != nil {
		return err
	}
	return s.fleet(ctx)
}

func (s *suite) route(ctx context.Context, client *l5.Client, service string, n int) error {
	if _, err := client.Route(ctx, service); err != nil {
		return err
	}
	ours, err := s.each(func(int) error {
		route, err := client.Route(ctx, service)
		if err != nil {
			return err
		}
		route.Done(l5.Outcome{Latency: time.Millisecond})
		return nil
	})
	if err != nil {
		return err
	}
	choices := newTwoChoices(n)
	floor, err := s.each(func(int) error {
		choices.Load().route()
		return nil
	})
	s.add(fmt.Sprintf("l5.route.%d", n), ours, "ns", floor, "two weighted draws, in flight, moving average, count")
	return err
}

// kinds measures picks of a kind of their own, each with a caller of its own.
func (s *suite) kinds(ctx context.Context, target string) error {
	guarded := func(c *l5.Config) { c.Guard.Limit.Healthy = time.Second }
	by := func(policy balance.Policy) func(*l5.Config) { return func(c *l5.Config) { c.Policy = policy } }
	for _, kind := range []struct {
		name   string
		n      int
		hashes bool
		config func(*l5.Config)
	}{
		{"l5.guarded", 10, false, guarded},
		{"l5.guarded", 1000, false, guarded},
		{"l5.hash", 1000, true, by(balance.Maglev)},
		{"l5.hash", 10_000, true, by(balance.Maglev)},
		{"l5.ring", 10_000, true, by(balance.RingHash)},
	} {
		config := l5.Config{Target: target, Caller: "bench.caller"}
		kind.config(&config)
		client, err := l5.New(config)
		if err != nil {
			return err
		}
		choices, against := newTwoChoices(kind.n), "two weighted draws, in flight, moving average, count"
		floor := func(int) error { choices.Load().route(); return nil }
		if kind.hashes {
			against = "a hash and a look into a table"
			floor = func(i int) error { choices.Load().pick(mix(i)); return nil }
		}
		stop := background(ctx, client.Run)
		ours, err := s.kind(ctx, client, fmt.Sprintf("bench.s%d", kind.n), kind.hashes)
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		least, err := s.each(floor)
		if err != nil {
			return err
		}
		s.add(fmt.Sprintf("%s.%d", kind.name, kind.n), ours, "ns", least, against)
	}
	return nil
}

// moved measures how many hashes in a hundred go elsewhere when one instance in a hundred leaves.
func (s *suite) moved() {
	const n = 10_000
	all := make([]balance.Candidate, n)
	for i := range all {
		all[i] = balance.Candidate{Weight: 100, Load: new(balance.Load), Key: balance.Hash(fmt.Sprintf("10.%d.%d.1:80", i/250, i%250))}
	}
	left := slices.Clone(all)
	for i := 0; i < n; i += 100 {
		left[i].Weight = 0
	}
	for _, policy := range []balance.Policy{balance.Maglev, balance.RingHash} {
		before, after := balance.NewPicker(policy, all, 0), balance.NewPicker(policy, left, 0)
		const hashes = 500_000
		moved, least := 0, 0
		for i := range hashes {
			was, _ := before.Pick(0, mix(i))
			if is, _ := after.Pick(0, mix(i)); is != was {
				moved++
			}
			if was%100 == 0 {
				least++
			}
		}
		s.add("l5.moved."+policy.String(), 100*float64(moved)/hashes, "%", 100*float64(least)/hashes, "the hashes of those that leave, 1 in 100 of 10,000")
	}
}

func (s *suite) kind(ctx context.Context, client *l5.Client, service string, hashes bool) (float64, error) {
	if _, err := client.Route(ctx, service); err != nil {
		return 0, err
	}
	return s.each(func(i int) error {
		var (
			route l5.Route
			err   error
		)
		if hashes {
			route, err = client.RouteFor(ctx, service, l5.Request{Hash: mix(i)})
		} else {
			route, err = client.Route(ctx, service)
		}
		if err != nil {
			return err
		}
		route.Done(l5.Outcome{Latency: time.Millisecond})
		return nil
	})
}

// mix is a hash of a number (splitmix64's last steps).
func mix(i int) uint64 {
	h := uint64(i) * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// pick counts a call of the instance that a hash falls on.
func (t *twoChoices) pick(hash uint64) {
	c := t.instances[uint32(uint64(uint32(hash))*uint64(len(t.instances))>>32)]
	c.inflight.Add(1)
	c.inflight.Add(-1)
	c.ok.Add(1)
}

// twoChoices is the least that a pick by weight and load does: an immutable list behind an atomic pointer.
type twoChoices struct {
	instances   []*choice
	keep, alias []uint32
}

type choice struct {
	inflight, latency, ok atomic.Int64
	_                     [40]byte // a cache line of its own
}

func newTwoChoices(n int) *atomic.Pointer[twoChoices] {
	t := &twoChoices{}
	for range n {
		t.instances = append(t.instances, new(choice))
		t.keep = append(t.keep, rand.Uint32())
		t.alias = append(t.alias, rand.Uint32N(uint32(n)))
	}
	var p atomic.Pointer[twoChoices]
	p.Store(t)
	return &p
}

func (t *twoChoices) draw() *choice {
	r := rand.Uint64()
	i := uint32(uint64(uint32(r)) * uint64(len(t.instances)) >> 32)
	if uint32(r>>32) > t.keep[i] {
		i = t.alias[i]
	}
	return t.instances[i]
}

func (t *twoChoices) route() {
	a, b := t.draw(), t.draw()
	if b.inflight.Load()*b.latency.Load() < a.inflight.Load()*a.latency.Load() {
		a = b
	}
	a.inflight.Add(1)
	a.inflight.Add(-1)
	a.ok.Add(1)
	l := a.latency.Load()
	a.latency.Store(l - l>>4 + 1000>>4)
}

// push measures the time from a changed share, as it is asked for, until the caller picks by it.
func (s *suite) push(ctx context.Context, names *server.Server, client *l5.Client) error {
	s.Progress("l5: pushing weights")
	const service, addr = "bench.s10", "10.0.0.1:80"
	share := func() int {
		for _, i := range client.Explain(service).Instances {
			if i.Addr == addr {
				return i.Share
			}
		}
		return -1
	}
	value := 0
	ours, err := s.each(func(int) error {
		value = value%90 + 1
		if err := names.SetShare(ctx, service, map[string]int{addr: value}); err != nil {
			return err
		}
		for share() != value {
			if err := ctx.Err(); err != nil {
				return err
			}
			time.Sleep(10 * time.Microsecond) // leaves the processor to those that carry the change
		}
		return nil
	})
	if err != nil {
		return err
	}
	floor, err := s.echo()
	s.add("l5.push", ours/1e3, "us", floor/1e3, "a message and its answer on a unix socket")
	return err
}

// echo is one message and its answer on a unix socket, in nanoseconds.
func (s *suite) echo() (float64, error) {
	listener, err := net.Listen("unix", filepath.Join(s.dir, "echo.sock"))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		return 0, err
	}
	peer, err := listener.Accept()
	if err != nil {
		return 0, errors.Join(err, conn.Close())
	}
	answering := make(chan struct{})
	go func() { // ends when the connection is closed
		defer close(answering)
		buffer := make([]byte, 64)
		for {
			n, err := peer.Read(buffer)
			if err != nil {
				return
			}
			if _, err := peer.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	defer func() { conn.Close(); <-answering; peer.Close() }()
	buffer := make([]byte, 64)
	return s.each(func(int) error {
		if _, err := conn.Write(buffer); err != nil {
			return err
		}
		_, err := conn.Read(buffer)
		return err
	})
}
