package l5_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// instances returns n instances of service that nobody listens at.
func instances(service string, n, share int) []l5.Instance {
	out := make([]l5.Instance, n)
	for i := range out {
		out[i] = l5.Instance{Service: service, Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: share}
	}
	return out
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// route routes once and reports a success.
func route(t *testing.T, c *l5.Client, service string) string {
	t.Helper()
	r, err := c.Route(within(t), service)
	if err != nil {
		t.Fatal(err)
	}
	r.Done(l5.Outcome{Latency: time.Millisecond})
	return r.Addr()
}

func TestRoutesGoOnWithoutServer(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	direct := l5test.Client(t, s.Target(), nil)
	a, _ := l5test.Agent(t, s.Target(), nil)
	local := l5test.Client(t, a.Target(), nil)
	route(t, direct, "a")
	route(t, local, "a")
	s.Kill()
	for range 100 {
		route(t, direct, "a")
		route(t, local, "a")
	}
	late := l5test.Client(t, a.Target(), nil) // a new process of the same caller
	route(t, late, "a")
	s.Start()
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:9", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*l5.Client{direct, local, late} {
		l5test.Await(t, "the new server's push arrives", func() bool { return len(c.Explain("a").Instances) == 4 })
	}
	// The first two calls may count twice: a crash can come between the sink's word and the acknowledgement.
	l5test.Await(t, "what was counted meanwhile is reported", func() bool { return s.Sink.Sum("a", "").Requests >= 203 })
	if got := s.Sink.Sum("a", "").Requests; got > 205 {
		t.Errorf("%d calls were reported, 203 were made", got)
	}
}

func TestAgentStartsWithoutServer(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	var config agent.Config
	_, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	c := l5test.Client(t, "unix://"+config.Socket, nil)
	route(t, c, "a")
	stop()
	s.Stop()
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { *c = config })
	fresh := l5test.Client(t, a.Target(), nil)
	begin := time.Now()
	route(t, fresh, "a")
	t.Logf("first route of a new process, server dead, agent restarted: %v", time.Since(begin))

	// A caller of whom the agent knows no grant waits: it is not let through because nobody can be asked.
	other := l5test.Client(t, a.Target(), func(c *l5.Config) { c.Caller = "stranger" })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := other.Route(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stranger's route: %v, want a wait until the deadline", err)
	}
	s.Start()
	route(t, other, "a")
}

func TestDeadInstanceCostsTwoCalls(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	dead := addrtest.Free(t)
	all := []l5.Instance{{Service: "a", Addr: dead, Share: 100}}
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		all = append(all, l5.Instance{Service: "a", Addr: l.Addr().String(), Share: 100})
	}
	if err := s.Name().Register(within(t), all); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Balance.EjectFor = 20 * time.Millisecond })
	ctx := within(t)
	call := func() error {
		r, err := c.Route(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		conn, err := net.Dial("tcp", r.Addr())
		if err == nil {
			conn.Close()
		}
		r.Done(l5.Outcome{Err: err, Latency: time.Since(begin)})
		return err
	}
	failures := 0
	for range 500 {
		if call() != nil {
			failures++
		}
	}
	if failures > 2 {
		t.Errorf("a dead instance cost %d calls, want at most 2", failures)
	}
	// It comes back: a probe finds it, a trial confirms it.
	l, err := net.Listen("tcp", dead)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	back := 0
	l5test.Await(t, "the instance is back", func() bool {
		if call() != nil {
			failures++
		}
		for _, i := range c.Explain("a").Instances {
			if i.Addr == dead && i.PickShare > 0.2 {
				back++
			}
		}
		return back > 0
	})
	if failures > 2 {
		t.Errorf("user calls were spent on probes: %d failures", failures)
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	grants := &switchable{changed: make(chan struct{})}
	s := l5test.NewServer(t, func(c *server.Config) { c.Grants = grants })
	if err := s.Name().Register(within(t), instances("a", 1, 100)); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	for _, target := range []string{s.Target(), a.Target()} {
		grants.set("")
		c := l5test.Client(t, target, nil)
		_, err := c.Route(within(t), "a")
		var why *l5.RouteError
		if !errors.Is(err, l5.ErrDenied) || !errors.As(err, &why) || !strings.Contains(why.Reason, "test.caller") {
			t.Fatalf("without a grant: %v", err)
		}
		grants.set("test.caller")
		l5test.Await(t, "a grant opens the way", func() bool {
			r, err := c.Route(within(t), "a")
			r.Done(l5.Outcome{})
			return err == nil
		})
		grants.set("")
		l5test.Await(t, "a revocation closes it", func() bool {
			r, err := c.Route(within(t), "a")
			r.Done(l5.Outcome{})
			return errors.Is(err, l5.ErrDenied)
		})
	}
}

// switchable grants everything to one caller.
type switchable struct {
	mu      sync.Mutex
	caller  string        // guarded by mu
	changed chan struct{} // guarded by mu
}

func (g *switchable) set(caller string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.caller = caller
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *switchable) MayCall(caller, _ string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return caller == g.caller
}

func (g *switchable) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func TestOverload(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 1, 100)); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.MaxInFlight = 2 })
	first, err := c.Route(within(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Route(within(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Route(within(t), "a"); !errors.Is(err, l5.ErrOverloaded) {
		t.Errorf("a third call in flight: %v", err)
	}
	second.Done(l5.Outcome{Latency: time.Millisecond})
	for range 20 { // rejections by the callee never eject
		r, err := c.Route(within(t), "a")
		if err != nil {
			t.Fatal(err)
		}
		r.Done(l5.Outcome{Err: fmt.Errorf("busy: %w", l5.ErrOverloaded)})
	}
	first.Done(l5.Outcome{Latency: time.Millisecond})
	l5test.Await(t, "rejections are reported as such", func() bool {
		sum := s.Sink.Sum("a", "")
		return sum.Requests == 22 && sum.Rejected == 20 && sum.Failures == 0
	})
	if e := c.Explain("a"); e.Panic != "" || e.Instances[0].Weight != 100 {
		t.Errorf("rejections changed health: %+v", e)
	}
}

// Shares are kept to: an instance at 10 % gets a tenth of what a full one gets.
func TestShareOfTraffic(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 4, 100)); err != nil {
		t.Fatal(err)
	}
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:4": 10, "127.0.0.1:3": 0}); err != nil {
		t.Fatal(err)
	}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.TickEvery = time.Hour }) // a busy machine stalls calls, and that is no matter of shares
	ctx := within(t)
	for _, depth := range []int{0, 1, 4, 16, 64} { // calls in flight beside
		picks := make(map[string]int)
		var open []l5.Route
		const n = 21000
		for range n {
			r, err := c.Route(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			picks[r.Addr()]++
			open = append(open, r)
			if len(open) > depth {
				open[0].Done(l5.Outcome{Latency: time.Millisecond})
				open = open[1:]
			}
		}
		for _, r := range open {
			r.Done(l5.Outcome{Latency: time.Millisecond})
		}
		t.Logf("with %d in flight: %v", depth, picks)
		if got := picks["127.0.0.1:4"]; got < n/21*6/10 || got > n/21*3/2 {
			t.Errorf("with %d in flight, the instance at 10 %% got %d of %d calls, want about %d", depth, got, n, n/21)
		}
		if picks["127.0.0.1:3"] != 0 {
			t.Errorf("the instance at 0 %% got %d calls", picks["127.0.0.1:3"])
		}
	}
}

func TestConfigNamesAllFaults(t *testing.T) {
	t.Parallel()
	_, err := l5.New(l5.Config{Failures: -1, ReportEvery: -time.Second})
	for _, want := range []string{"Target", "Caller", "Failures", "ReportEvery"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

func TestRouteWithoutRun(t *testing.T) {
	t.Parallel()
	c, err := l5.New(l5.Config{Target: "unix:///nowhere/l5.sock", Caller: "x"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Route(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Run is not running") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Route(ctx, "a b"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a bad service id: %v", err)
	}
	var zero l5.Route
	zero.Done(l5.Outcome{})
}

// liar is a name service that says what it likes.
type liar struct {
	l5pbconnect.UnimplementedNameServiceHandler
	say func(stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error
}

func (l *liar) Watch(_ context.Context, stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
	if _, err := stream.Receive(); err != nil {
		return nil
	}
	return l.say(stream)
}

// serve serves a handler on a unix socket until the test ends.
func serve(t *testing.T, service l5pbconnect.NameServiceHandler) (target string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "l5")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(l5pbconnect.NewNameServiceHandler(service))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- transport.NewServer(mux).Serve(ctx, listener, 10*time.Millisecond) }()
	t.Cleanup(func() { cancel(); <-ended })
	return "unix://" + listener.Addr().String()
}

func snapshotOf(epoch string, revision int64, addrs ...string) *l5pb.WatchResponse {
	s := &l5pb.Snapshot{Service: "a", Epoch: epoch, Revision: revision}
	for _, addr := range addrs {
		s.Instances = append(s.Instances, &l5pb.Instance{Addr: addr})
	}
	return &l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: s}}
}

// Whatever a server says, slowly, wrongly or by fits and starts, a client that knew an instance goes on calling it.
func TestBadServersTakeNobodyDown(t *testing.T) {
	t.Parallel()
	good := snapshotOf("e", 100, "127.0.0.1:1")
	tests := map[string]func(send func(*l5pb.WatchResponse) error) error{
		"flapping": func(send func(*l5pb.WatchResponse) error) error {
			return errors.Join(send(good), errors.New("fell over"))
		},
		"lost its records": func(send func(*l5pb.WatchResponse) error) error {
			return errors.Join(send(good), send(snapshotOf("other", 1)))
		},
		"late": func(send func(*l5pb.WatchResponse) error) error {
			return errors.Join(send(good), send(snapshotOf("e", 50)))
		},
		"rubbish": func(send func(*l5pb.WatchResponse) error) error {
			bad := snapshotOf("e", 101, "127.0.0.1:1", "127.0.0.1:1", "", "no port", "h:99999", "a b:1")
			bad.GetSnapshot().Instances[4].Weight = 1 << 31
			return errors.Join(send(good), send(&l5pb.WatchResponse{}), send(bad),
				send(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Delta{Delta: &l5pb.Delta{Service: "a", Epoch: "e", Previous: 7, Revision: 200, Remove: []string{"127.0.0.1:1"}}}}),
				send(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Verdict{Verdict: &l5pb.Verdict{Service: "a", Caller: "somebody else"}}}),
				send(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Delta{Delta: &l5pb.Delta{Service: "never asked for", Put: []*l5pb.Instance{{Addr: "h:1"}}}}}))
		},
	}
	for name, say := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streams := make(chan struct{}, 1000)
			c := l5test.Client(t, serve(t, &liar{say: func(stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
				streams <- struct{}{}
				return say(stream.Send)
			}}), nil)
			for range 3 { // said again on each new stream
				if got := route(t, c, "a"); got != "127.0.0.1:1" {
					t.Fatalf("route to %q", got)
				}
				<-streams
			}
			for range 100 {
				if got := route(t, c, "a"); got != "127.0.0.1:1" {
					t.Fatalf("route to %q", got)
				}
			}
		})
	}
}
