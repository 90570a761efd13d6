package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// faulty is a store that can be cut off from one server, or be slow for it.
type faulty struct {
	*store.Memory
	cut  atomic.Bool
	slow atomic.Int64 // how long a List takes
}

func (f *faulty) err(ctx context.Context) error {
	if f.cut.Load() {
		<-ctx.Done() // as a partition: no answer
		return ctx.Err()
	}
	return nil
}

func (f *faulty) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	select {
	case <-time.After(time.Duration(f.slow.Load())):
	case <-ctx.Done():
	}
	if err := f.err(ctx); err != nil {
		return nil, 0, err
	}
	return f.Memory.List(ctx, prefix)
}

func (f *faulty) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if err := f.err(ctx); err != nil {
		return 0, err
	}
	return f.Memory.Commit(ctx, ops...)
}

// several starts servers over one store, each with its own way to it.
func several(t *testing.T, n int, grace time.Duration) ([]*l5test.Server, []*faulty) {
	t.Helper()
	shared := store.NewMemory()
	servers, ways := make([]*l5test.Server, n), make([]*faulty, n)
	for i := range servers {
		ways[i] = &faulty{Memory: shared}
		servers[i] = l5test.NewServer(t, func(c *server.Config) { c.Store, c.Grace = ways[i], grace })
	}
	return servers, ways
}

func targets(servers []*l5test.Server) string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Target())
	}
	return strings.Join(all, ",")
}

// An owner whose stream is on another server is not lost, and what one server is told all serve.
func TestSeveralServersServeOneRegistry(t *testing.T) {
	t.Parallel()
	servers, _ := several(t, 3, time.Second)
	for i, s := range servers {
		a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { c.Device = fmt.Sprintf("device-%d", i) })
		if err := a.Register(within(t), l5.Instance{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: 100}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range servers {
		l5test.Await(t, "everybody is live everywhere", func() bool { return len(s.Name().Owners()) == 3 && len(s.Name().Instances("a")) == 3 })
	}
	timeout := time.After(2 * time.Second) // twice the grace
	for waiting := true; waiting; {
		select {
		case <-timeout:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		}
		for _, s := range servers {
			if n := len(s.Name().Instances("a")); n != 3 {
				t.Fatalf("%d instances are left", n)
			}
		}
	}
	for _, s := range servers { // on a busy machine one may have been taken for dead for a moment, which costs nobody anything
		l5test.Await(t, "nobody is taken for lost", func() bool {
			for _, i := range s.Name().Instances("a") {
				if !i.Live || i.Suspect {
					return false
				}
			}
			return true
		})
	}
}

// Any server may die: its agents go to another, and nothing of theirs expires.
func TestAgentsMoveWhenTheirServerDies(t *testing.T) {
	t.Parallel()
	servers, _ := several(t, 3, 5*time.Second)
	const agents = 12
	for i := range agents {
		a, _ := l5test.Agent(t, targets(servers), func(c *agent.Config) { c.Device = fmt.Sprintf("device-%02d", i) })
		if err := a.Register(within(t), l5.Instance{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: 100}); err != nil {
			t.Fatal(err)
		}
	}
	client := l5test.Client(t, targets(servers), nil)
	if _, err := client.Route(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	for dead := range 2 {
		servers[dead].Kill()
		last := servers[2].Name()
		l5test.Await(t, "all are with those that are left", func() bool { return len(last.Owners()) == agents })
		if n := len(last.Instances("a")); n != agents {
			t.Fatalf("%d of %d instances are left", n, agents)
		}
		if err := last.SetShare(within(t), "a", map[string]int{"127.0.0.1:1": 10 + dead}); err != nil {
			t.Fatal(err)
		}
		l5test.Await(t, "the client sees what was changed on another server", func() bool {
			for _, i := range client.Explain("a").Instances {
				if i.Addr == "127.0.0.1:1" && i.Share == 10+dead {
					return true
				}
			}
			return false
		})
	}
}

// A server that is cut off from the store sends its agents away before the others take them for lost.
func TestCutOffServerSendsItsAgentsAway(t *testing.T) {
	t.Parallel()
	servers, ways := several(t, 2, 4*time.Second)
	a, _ := l5test.Agent(t, servers[0].Target()+","+servers[1].Target(), nil)
	if err := a.Register(within(t), l5.Instance{Service: "a", Addr: "127.0.0.1:1", Share: 100}); err != nil {
		t.Fatal(err)
	}
	if err := servers[0].Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:2", Share: 100}}); err != nil { // so that it is not the last
		t.Fatal(err)
	}
	holder, other := 0, 1
	l5test.Await(t, "the agent is known", func() bool { return len(servers[1].Name().Owners()) == 1 })
	if len(servers[1].Name().Streams()) > 0 {
		holder, other = 1, 0
	}
	ways[holder].cut.Store(true)
	l5test.Await(t, "the agent moved", func() bool { return len(servers[other].Name().Streams()) == 1 })
	ways[holder].cut.Store(false)
	if got := servers[other].Name().Instances("a"); len(got) != 2 {
		t.Errorf("%d instances are left", len(got))
	}
}

// A new server reads the registry for longer than the grace period (nacos#7697: 16 s of snapshot against 15 s of
// heartbeat took everybody for dead): nobody dies of it, whichever server decides.
func TestSlowSnapshotKillsNobody_Nacos7697(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Second
	shared := store.NewMemory()
	first := l5test.NewServer(t, func(c *server.Config) { c.Store, c.Grace = shared, grace })
	const agents = 8
	for i := range agents {
		a, _ := l5test.Agent(t, first.Target(), func(c *agent.Config) { c.Device = fmt.Sprintf("device-%d", i) })
		if err := a.Register(within(t), l5.Instance{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: 100}); err != nil {
			t.Fatal(err)
		}
	}
	way := &faulty{Memory: shared}
	way.slow.Store(int64(3 * grace / 2))
	second, err := server.New(server.Config{Store: way, Grace: grace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := second.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	if err := second.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the new server knows who is live", func() bool { return len(second.Owners()) == agents })
	for name, s := range map[string]*server.Server{"first": first.Name(), "second": second} {
		if got := s.Instances("a"); len(got) != agents {
			t.Errorf("the %s server serves %d of %d instances", name, len(got), agents)
		}
	}
}
