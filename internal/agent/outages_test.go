package agent_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/agent"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door/dns"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// TestMain is also the program that a device keeps: it listens where it is told to, unless a file says to end.
func TestMain(m *testing.M) {
	addr := os.Getenv("ZHIYUN_TEST_LISTEN")
	if addr == "" {
		os.Exit(m.Run())
	}
	if _, err := os.Stat(os.Getenv("ZHIYUN_TEST_BROKEN")); err == nil {
		os.Exit(3)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		conn.Close()
	}
}

// resolver asks a DNS door over an agent of its own, as a program without l5 does.
func resolver(t *testing.T, s *l5test.Server) func() []string {
	t.Helper()
	names, _ := l5test.Agent(t, s.Target(), nil)
	door, err := dns.New(dns.Config{Names: names, Caller: "shop.web", Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- door.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	addr, err := door.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr.String())
	}}
	return func() []string {
		hosts, err := client.LookupHost(t.Context(), "shop.cart.l5.")
		if err != nil {
			return []string{err.Error()}
		}
		slices.Sort(hosts)
		return hosts
	}
}

// A process that is killed is out of the DNS answers at once, and back when the supervisor has started it again; one that
// cannot run stays out until it can; one that is stopped stays out; what was told is told to a server that was away.
func TestDeadProcessIsNotHandedOut(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	root, at := short(t), addrtest.Free(t)
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	config := agent.Config{Device: "d1", Addr: host, Root: root, Server: s.Target()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, config) }()
	processes, err := device.Dial(config.DeviceSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := processes.Stop(context.Background(), "cart", 0); err != nil {
			t.Error(err)
		}
		processes.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	l5test.Await(t, "the agent serves", func() bool { _, err := processes.List(t.Context()); return err == nil })
	broken := filepath.Join(root, "broken")
	spec := supervise.Spec{Name: "cart", Command: []string{os.Args[0]}, Dir: "/", Module: "shop.cart", Env: []string{
		"ZHIYUN_TEST_LISTEN=" + at, "ZHIYUN_TEST_BROKEN=" + broken, device.ListenVar + "=" + port,
	}}
	if err := processes.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := s.Name().Register(t.Context(), []l5.Instance{
		{Service: "shop.cart", Addr: at, Share: 100, Device: "d1", Owner: "d1", Module: "shop.cart"},
		{Service: "shop.cart", Addr: "127.0.0.2:80", Share: 100},
	}); err != nil {
		t.Fatal(err)
	}
	lookup := resolver(t, s)
	both, other := []string{"127.0.0.2", host}, []string{"127.0.0.2"}
	await := func(what string, want []string) {
		t.Helper()
		l5test.Await(t, what, func() bool { return slices.Equal(want, lookup()) })
	}
	kill := func() {
		t.Helper()
		list, err := processes.List(t.Context())
		if err != nil || len(list) != 1 || list[0].PID == 0 {
			t.Fatalf("processes: %+v, %v", list, err)
		}
		if err := syscall.Kill(list[0].PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	listens := func() bool {
		conn, err := net.Dial("tcp", at)
		return err == nil && conn.Close() == nil
	}
	l5test.Await(t, "the process listens", listens)
	await("both serve", both)

	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kill()
	killed := time.Now()
	await("the dead one is not handed out", other)
	t.Logf("not handed out %v after the kill", time.Since(killed))
	for _, i := range s.Name().Instances("shop.cart") {
		if i.Addr == at && !strings.Contains(i.Down, "exit status 3") && !strings.Contains(i.Down, "killed") {
			t.Errorf("the reason is %q", i.Down)
		}
	}
	s.Stop()
	s.Start()
	await("nor after a restart of the server", other)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	mended := time.Now()
	await("it serves again", both)
	t.Logf("handed out again %v after it could run", time.Since(mended))

	if err := processes.Stop(t.Context(), "cart", 0); err != nil {
		t.Fatal(err)
	}
	await("one that was stopped is not handed out", other)
	if err := processes.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	await("it was asked for: it serves at once", both)
}

// Whatever a process does, callers are told of few changes; and one that keeps running is told to serve.
func TestCrashLoopsFlapNoOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var v agent.Vigil
		now := time.Unix(0, 0)
		serves, changes := false, []time.Time{}
		starts := 0
		look := func(s agent.Sight) {
			v.Step(now, s)
			if v.Serves() != serves {
				serves = v.Serves()
				changes = append(changes, now)
			}
			if v.Serves() && !s.Running {
				t.Fatalf("it serves without a process")
			}
		}
		lives := rapid.SliceOfN(rapid.IntRange(0, 90_000), 1, 60).Draw(t, "lives")
		if same := rapid.Bool().Draw(t, "the same each time"); same {
			for i := range lives {
				lives[i] = lives[0]
			}
		}
		for _, life := range lives {
			starts++
			for at := 0; at < life; at += 500 {
				look(agent.Sight{Running: true, Starts: starts, Answers: at > 0})
				now = now.Add(500 * time.Millisecond)
			}
			look(agent.Sight{Starts: starts, Exit: "exit status 1"})
			now = now.Add(time.Duration(rapid.IntRange(50, 10_000).Draw(t, "pause")) * time.Millisecond)
		}
		// Five deaths may be told before the wait is longest; then two changes in the time that the wait takes at least.
		for i := range changes {
			if end := i + 13; end < len(changes) && changes[end].Sub(changes[i]) < 30*time.Second {
				t.Fatalf("13 changes within %v", changes[end].Sub(changes[i]))
			}
		}
		starts++
		for range 200 {
			look(agent.Sight{Running: true, Starts: starts, Answers: true})
			now = now.Add(500 * time.Millisecond)
		}
		if !serves {
			t.Fatal("it runs for 100 s and does not serve")
		}
	})
}

// The story of one crash loop, as its callers hear it.
func TestVigil(t *testing.T) {
	t.Parallel()
	var v agent.Vigil
	now := time.Unix(0, 0)
	for i, step := range []struct {
		after time.Duration
		sight agent.Sight
		want  string
	}{
		{0, agent.Sight{Running: true}, "opening: its process runs and does not listen"},
		{time.Second, agent.Sight{Running: true, Answers: true}, "serving"},
		{time.Second, agent.Sight{Exit: "signal: killed"}, "fallen: its process has ended: signal: killed"},
		{time.Second, agent.Sight{Running: true, Starts: 1}, "opening: its process has ended: signal: killed"},
		{time.Second, agent.Sight{Running: true, Starts: 1, Answers: true}, "serving"}, // the first time at once
		{time.Second, agent.Sight{Running: true, Starts: 2, Exit: "exit status 1"}, "opening: its process has ended: exit status 1"},
		{0, agent.Sight{Running: true, Starts: 2, Answers: true}, "settling: its process has ended 2 times of late; waited with for 1s"},
		{999 * time.Millisecond, agent.Sight{Running: true, Starts: 2, Answers: true}, "settling: its process has ended 2 times of late; waited with for 1s"},
		{time.Millisecond, agent.Sight{Running: true, Starts: 2, Answers: true}, "serving"},
		{59 * time.Second, agent.Sight{Exit: "exit status 1", Starts: 2}, "fallen: its process has ended: exit status 1"},
		{0, agent.Sight{Running: true, Starts: 3, Answers: true}, "settling: its process has ended 3 times of late; waited with for 2s"},
		{2 * time.Second, agent.Sight{Running: true, Starts: 3}, "serving"},
		{time.Minute, agent.Sight{Exit: "exit status 1", Starts: 3}, "fallen: its process has ended: exit status 1"}, // forgotten
		{0, agent.Sight{Running: true, Starts: 4, Answers: true}, "serving"},
	} {
		now = now.Add(step.after)
		v.Step(now, step.sight)
		if got := v.String(); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
}
