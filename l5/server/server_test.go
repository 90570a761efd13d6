package server_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func addrs(statuses []server.InstanceStatus) []string {
	var out []string
	for _, s := range statuses {
		out = append(out, s.Addr)
	}
	return out
}

func TestRegisterKeepsShare(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	instance := l5.Instance{Service: "a", Addr: "127.0.0.1:1", Weight: 200}
	register := func() {
		if err := s.Name().Register(within(t), []l5.Instance{instance}); err != nil {
			t.Fatal(err)
		}
	}
	register()
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:1": 50}); err != nil {
		t.Fatal(err)
	}
	register() // a step that is run twice
	s.Stop()
	s.Start() // and a restart
	got := s.Name().Instances("a")
	if len(got) != 1 || got[0].Share != 50 || got[0].EffectiveWeight != 100 {
		t.Errorf("got %+v, want weight 200 at 50 %%", got)
	}
	if err := s.Name().Drain(within(t), "a", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if got := s.Name().Instances("a")[0]; got.EffectiveWeight != 0 || got.State != l5.StateDraining {
		t.Errorf("draining: %+v", got)
	}
	if err := s.Name().Deregister(within(t), "a", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if got := s.Name().Services(); len(got) != 0 {
		t.Errorf("services left: %v", got)
	}
}

func TestFaultsAreNamed(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	err := s.Name().Register(within(t), []l5.Instance{
		{Service: "good", Addr: "127.0.0.1:1"}, {Service: "no spaces", Addr: "127.0.0.1", Weight: -1, Share: 101},
	})
	for _, want := range []string{"no spaces", "host:port", "weight -1", "share 101"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not tell %q: %v", want, err)
		}
	}
	if got := s.Name().Services(); len(got) != 0 {
		t.Errorf("written in spite of faults: %v", got)
	}
	if err := s.Name().SetShare(within(t), "good", map[string]int{"127.0.0.1:9": 10}); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("share of nobody: %v", err)
	}
	if err := s.Name().Drain(within(t), "good", "127.0.0.1:9"); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("drain of nobody: %v", err)
	}
	_, err = server.New(server.Config{ExpiryShare: 2, Grace: -1})
	for _, want := range []string{"Store", "ExpiryShare", "Grace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

func TestFence(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	set := func(share int, fence int64) error {
		return s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:1": share}, server.Fence(fence))
	}
	if err := errors.Join(set(10, 7), set(20, 7), set(30, 9)); err != nil {
		t.Fatal(err)
	}
	if err := set(0, 8); !errors.Is(err, server.ErrFenced) {
		t.Errorf("an earlier leader: %v, want ErrFenced", err)
	}
	if got := s.Name().Instances("a")[0].Share; got != 30 {
		t.Errorf("share %d, want 30", got)
	}
}

// A lost stream makes instances suspect; an agent that comes back within the grace period finds them as they were.
func TestLeaseResumes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var events []server.OwnerEvent
	s := l5test.NewServer(t, func(c *server.Config) {
		c.Grace = time.Minute
		c.OnOwner = func(e server.OwnerEvent) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
	})
	var config agent.Config
	a, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	if err := a.Register(within(t), l5.Instance{Service: "a", Addr: "127.0.0.1:1", Share: 100}); err != nil {
		t.Fatal(err)
	}
	before := s.Name().Instances("a")[0]
	if !before.Live || before.Suspect || before.Owner != "device-1" {
		t.Errorf("registered: %+v", before)
	}
	stop()
	l5test.Await(t, "suspect", func() bool { i := s.Name().Instances("a")[0]; return i.Suspect && !i.Live && i.EffectiveWeight == 100 })
	if got := s.Name().Owners(); len(got) != 0 {
		t.Errorf("owners: %v", got)
	}
	a, _ = l5test.Agent(t, s.Target(), func(c *agent.Config) { *c = config })
	l5test.Await(t, "resumed from the agent's file", func() bool { i := s.Name().Instances("a")[0]; return !i.Suspect && i.Live })
	if err := a.Deregister(within(t), "a", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the owner's comings and goings are told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(events) >= 3
	})
	mu.Lock()
	defer mu.Unlock()
	want := []server.OwnerEvent{{Owner: "device-1", Live: true}, {Owner: "device-1"}, {Owner: "device-1", Live: true}}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("owner events (-want +got):\n%s", diff)
	}
}

// A server that restarts gives everyone the grace period to come back; who does not expires, within the bounds.
func TestExpiryIsBounded(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) { c.Grace = 100 * time.Millisecond })
	var all []l5.Instance
	for i := range 10 {
		all = append(all, l5.Instance{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", i+1), Share: 100, Owner: fmt.Sprintf("lost-%d", i)})
	}
	all = append(all, l5.Instance{Service: "lone", Addr: "127.0.0.1:1", Share: 100, Owner: "lost-0"})
	all = append(all, l5.Instance{Service: "unowned", Addr: "127.0.0.1:1", Share: 100})
	if err := s.Name().Register(within(t), all); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "three of ten expire, the rest is held", func() bool {
		left := s.Name().Instances("a")
		held := 0
		for _, i := range left {
			if strings.Contains(i.Reason, "held") {
				held++
			}
		}
		return len(left) == 7 && held == 7
	})
	for _, service := range []string{"lone", "unowned"} {
		if got := s.Name().Instances(service); len(got) != 1 {
			t.Errorf("%s: the last one, or one without a lease, expired", service)
		}
	}
	// Removals that somebody asks for are never held back.
	for _, i := range s.Name().Instances("a") {
		if err := s.Name().Deregister(within(t), "a", i.Addr); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Name().Instances("a"); len(got) != 0 {
		t.Errorf("left after deregistration: %v", addrs(got))
	}
}

func wire(t testing.TB, target string) l5pbconnect.NameServiceClient {
	t.Helper()
	client, base, err := transport.Dial(transport.DialConfig{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return l5pbconnect.NewNameServiceClient(client, base)
}

func TestReportsCountOnce(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	c := wire(t, s.Target())
	report := func(seq uint64, requests int64) (bool, error) {
		r, err := c.Report(within(t), connect.NewRequest(&l5pb.ReportRequest{Reporter: "r", Seq: seq, Outcomes: []*l5pb.Outcome{
			{Caller: "c", Service: "a", Addr: "x:1", Requests: requests, Failures: 1, Histogram: []int64{requests - 1}},
			{Caller: "c", Service: "a", Addr: "x:1", Requests: -5},
			{Caller: "c", Service: "a", Addr: "x:1", Requests: 1, Failures: 2},
		}}))
		if err != nil {
			return false, err
		}
		return r.Msg.GetDuplicate(), nil
	}
	for i, want := range []bool{false, true, true} {
		if got, err := report(1, 10); err != nil || got != want {
			t.Errorf("send %d: duplicate %v, %v", i, got, err)
		}
	}
	s.Sink.Fail(errors.New("disk full"))
	if _, err := report(2, 100); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("a sink that fails: %v", err)
	}
	s.Sink.Fail(nil)
	if dup, err := report(2, 100); err != nil || dup {
		t.Errorf("the resend: duplicate %v, %v", dup, err)
	}
	if sum := s.Sink.Sum("a", "x:1"); sum.Requests != 110 || sum.Failures != 2 {
		t.Errorf("counted %+v, want 110 calls, 2 failed", sum)
	}
}

// A report may say anything: it ends no server, and the next is counted.
func TestReportsOfAbsurdCounts(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt64
	s := l5test.NewServer(t, nil)
	c := wire(t, s.Target())
	for seq, outcomes := range [][]*l5pb.Outcome{
		{{Service: "a", Addr: "x:1", Requests: most}, {Service: "a", Addr: "x:1", Requests: most}},
		{{Service: "a", Addr: "x:1", Requests: most, Failures: most}, {Service: "a", Addr: "x:2", Requests: most, Failures: most}},
		{{Service: "a", Addr: "x:3", Requests: 7}},
	} {
		if _, err := c.Report(within(t), connect.NewRequest(&l5pb.ReportRequest{Reporter: "r", Seq: uint64(seq) + 1, Outcomes: outcomes})); err != nil {
			t.Fatal(err)
		}
	}
	if sum := s.Sink.Sum("a", "x:3"); sum.Requests != 7 {
		t.Errorf("counted %+v, want 7 calls", sum)
	}
}

// watch subscribes and hands on what arrives.
func watch(t testing.TB, c l5pbconnect.NameServiceClient, revision int64, epoch string) func() *l5pb.WatchResponse {
	t.Helper()
	stream := c.Watch(within(t))
	err := stream.Send(&l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{Service: "a", Caller: "c", Revision: revision, Epoch: epoch}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.CloseRequest(); stream.CloseResponse() })
	return func() *l5pb.WatchResponse {
		t.Helper()
		response, err := stream.Receive()
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		return response
	}
}

// A subscriber gets the state once, then deltas; one that comes back gets the deltas it missed.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	set := func(port, share int) {
		if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: fmt.Sprintf("127.0.0.1:%d", port)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Name().SetShare(within(t), "a", map[string]int{fmt.Sprintf("127.0.0.1:%d", port): share}); err != nil {
			t.Fatal(err)
		}
	}
	set(1, 10)
	c := wire(t, s.Target())
	next := watch(t, c, 0, "")
	if verdict := next().GetVerdict(); !verdict.GetAllowed() {
		t.Fatalf("first comes %v, want the verdict", verdict)
	}
	snapshot := next().GetSnapshot()
	if len(snapshot.GetInstances()) != 1 || snapshot.GetInstances()[0].GetShare() != 10 || snapshot.GetEpoch() == "" {
		t.Fatalf("then %v, want the state", snapshot)
	}
	set(2, 20)
	revision := snapshot.GetRevision()
	for range 2 {
		delta := next().GetDelta()
		if delta.GetPrevious() != revision || delta.GetRevision() <= revision || len(delta.GetPut()) != 1 {
			t.Fatalf("then %v, want a delta from %d", delta, revision)
		}
		revision = delta.GetRevision()
	}
	// I8: resumed, each revision once, in order.
	next = watch(t, c, snapshot.GetRevision(), snapshot.GetEpoch())
	next()
	var got []int64
	for range 2 {
		got = append(got, next().GetDelta().GetRevision())
	}
	if !slices.IsSorted(got) || got[1] != revision {
		t.Errorf("resumed with %v, want up to %d", got, revision)
	}
	// Another epoch is another history.
	next = watch(t, c, snapshot.GetRevision(), "other")
	next()
	if got := next().GetSnapshot(); len(got.GetInstances()) != 2 {
		t.Errorf("after another epoch came %v, want the state", got)
	}
}

func TestExplainOverTheWire(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 0}}); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	for _, target := range []string{s.Target(), a.Target()} {
		r, err := wire(t, target).Explain(within(t), connect.NewRequest(&l5pb.ExplainRequest{Service: "a", Caller: "c"}))
		if err != nil {
			t.Fatal(err)
		}
		if i := r.Msg.GetInstances(); len(i) != 1 || i[0].GetEffectiveWeight() != 0 || !strings.Contains(i[0].GetReason(), "share 0 %") {
			t.Errorf("explained: %v", r.Msg)
		}
	}
}

// A change of one share reaches every subscriber, each once.
func TestManySubscribers(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	c := wire(t, s.Target())
	const n = 200
	next := make([]func() *l5pb.WatchResponse, n)
	for i := range next {
		next[i] = watch(t, c, 0, "")
		next[i]()
		next[i]()
	}
	begin := time.Now()
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:1": 10}); err != nil {
		t.Fatal(err)
	}
	for i := range next {
		if share := next[i]().GetDelta().GetPut()[0].GetShare(); share != 10 {
			t.Fatalf("subscriber %d got share %d", i, share)
		}
	}
	t.Logf("a share at %d subscribers within %v", n, time.Since(begin))
	if got := s.Name().Explain("a").Subscribers; got != n {
		t.Errorf("%d subscribers, want %d", got, n)
	}
}

// Whoever comes back after a restart of the server is sent nothing that it has: the revisions are the store's.
func TestRestartResumesByRevision(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	register := func(addrs ...string) {
		for _, addr := range addrs {
			if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: addr}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	register("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	if err := s.Name().Deregister(within(t), "a", "127.0.0.1:3"); err != nil { // the last change is a removal
		t.Fatal(err)
	}
	next := watch(t, wire(t, s.Target()), 0, "")
	next()
	had := next().GetSnapshot()
	s.Stop()
	s.Start()
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "other", Addr: "127.0.0.1:1"}}); err != nil { // nothing to a
		t.Fatal(err)
	}
	next = watch(t, wire(t, s.Target()), had.GetRevision(), had.GetEpoch())
	if next().GetVerdict() == nil {
		t.Fatal("no verdict first")
	}
	register("127.0.0.1:4")
	if d := next().GetDelta(); d.GetPrevious() != had.GetRevision() || len(d.GetPut()) != 1 {
		t.Errorf("after the restart came %v, want the delta from revision %d", d, had.GetRevision())
	}
	s.Stop()
	s.Start()
	next = watch(t, wire(t, s.Target()), had.GetRevision(), had.GetEpoch())
	next()
	if got := next().GetSnapshot(); len(got.GetInstances()) != 3 {
		t.Errorf("to one that missed a change came %v, want the state", got)
	}
}
