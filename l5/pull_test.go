package l5_test

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// swallower passes bytes between its socket and a target until swallow: from then on the connections that are open stay open
// and carry nothing, as behind a firewall that has forgotten them. New ones pass.
type swallower struct {
	net.Listener
	era     atomic.Int64
	running sync.WaitGroup
}

func swallow(t *testing.T, dir, target string) *swallower {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "proxy.sock"))
	if err != nil {
		t.Fatal(err)
	}
	p := &swallower{Listener: l}
	var mu sync.Mutex
	var open []net.Conn
	p.running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", strings.TrimPrefix(target, "unix://"))
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			era := p.era.Load()
			pass := func(to, from net.Conn) {
				buffer := make([]byte, 32<<10)
				for {
					n, err := from.Read(buffer)
					if err != nil {
						if p.era.Load() == era {
							to.Close()
						}
						return
					}
					if p.era.Load() == era {
						to.Write(buffer[:n])
					}
				}
			}
			p.running.Go(func() { pass(in, out) })
			p.running.Go(func() { pass(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		p.running.Wait()
	})
	return p
}

// When push is cut without a word, the state is right again soon: the subscriber hears that it hears nothing.
func TestPullHeals(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 2, 100)); err != nil {
		t.Fatal(err)
	}
	p := swallow(t, s.Dir(), s.Target())
	a, _ := l5test.Agent(t, "unix://"+p.Addr().String(), nil)
	local := l5test.Client(t, a.Target(), nil)
	direct := l5test.Client(t, "unix://"+p.Addr().String(), nil)
	route(t, local, "a")
	route(t, direct, "a")
	p.era.Add(1)
	begin := time.Now()
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:9", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*l5.Client{"through the agent": local, "direct": direct} {
		l5test.Await(t, "the change is seen "+name, func() bool { return len(c.Explain("a").Instances) == 3 })
		t.Logf("push cut, change seen %s after %v", name, time.Since(begin))
	}
}

// A peer that says it sent more than came is left, and what was lost is made up for.
func TestLostMessageIsNoticed(t *testing.T) {
	t.Parallel()
	var streams atomic.Int64
	c := l5test.Client(t, serve(t, &liar{say: func(stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
		progress := func(n uint64) error {
			return stream.Send(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Progress{Progress: &l5pb.Progress{Messages: n}}})
		}
		if streams.Add(1) == 1 {
			// The second snapshot is lost on the way.
			return errors.Join(stream.Send(snapshotOf("e", 1, "127.0.0.1:1")), progress(1), progress(3), wait(stream))
		}
		return errors.Join(stream.Send(snapshotOf("e", 2, "127.0.0.1:2")), progress(1), wait(stream))
	}}), nil)
	route(t, c, "a")
	l5test.Await(t, "the lost state is made up for", func() bool { return route(t, c, "a") == "127.0.0.1:2" })
}

func wait(stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
	for {
		if _, err := stream.Receive(); err != nil {
			return err
		}
	}
}
