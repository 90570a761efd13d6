package l5_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// listen serves connections at an address of its own until the returned function is called: accept, then close.
func listen(t testing.TB) (addr string, dials *atomic.Int64, stop func()) {
	t.Helper()
	addr, dials, _, stop = listenUntil(t)
	return addr, dials, stop
}

// listenUntil is listen for one that can hang, too: from then on it takes connections and says nothing.
func listenUntil(t testing.TB) (addr string, dials *atomic.Int64, hang, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addrtest.Host(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	dials = new(atomic.Int64)
	var hangs atomic.Bool
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			if hangs.Load() {
				defer conn.Close() // at the end
				continue
			}
			conn.Write([]byte("ok"))
			conn.Close()
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		serving.Wait()
	})
	t.Cleanup(stop)
	return l.Addr().String(), dials, func() { hangs.Store(true) }, stop
}

// call is one call of service "a": connect, read.
func call(ctx context.Context, c *l5.Client, timeout time.Duration) error {
	r, err := c.Route(ctx, "a")
	if err != nil {
		return err
	}
	begin := time.Now()
	conn, err := net.DialTimeout("tcp", r.Addr(), timeout)
	if err == nil {
		conn.SetDeadline(begin.Add(timeout))
		if _, err = io.ReadFull(conn, make([]byte, 2)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("read: %w", err)
		}
		conn.Close()
	}
	r.Done(l5.Outcome{Err: err, Latency: time.Since(begin)})
	return err
}

// timedOut says whether a call ended because its time was over.
func timedOut(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// pickShare is the share of calls that a client gives an instance of service "a"; -1 if it does not know it.
func pickShare(c *l5.Client, addr string) float64 {
	for _, i := range c.Explain("a").Instances {
		if i.Addr == addr {
			return i.PickShare
		}
	}
	return -1
}

// caller is what a process of TestFiftyProcesses does: it calls at a pace until its input ends, and tells how many failed. If it is to be warned of an
// instance, it begins when it was.
func caller(t *testing.T, target string) {
	timeout, err := time.ParseDuration(os.Getenv("L5_TEST_TIMEOUT"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l5.New(l5.Config{Target: target, Caller: "test.caller"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	over := make(chan struct{})
	running.Go(func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	})
	first, err := c.Route(within(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	first.Done(l5.Outcome{Err: context.Canceled}) // it was not made; what stays in flight would be a doubt of all instances
	fmt.Println("ready")
	if dead := os.Getenv("L5_TEST_DEAD"); dead != "" {
		for pickShare(c, dead) != 0 { // 50 processes look, so each does it seldom
			select {
			case <-time.After(100 * time.Millisecond):
			case <-over:
				t.Fatal("it was not warned")
			}
		}
		fmt.Println("warned")
	}
	var calls, failures, late atomic.Int64
	ticker := time.NewTicker(40*time.Millisecond + rand.N(20*time.Millisecond))
	defer ticker.Stop()
	var flight sync.WaitGroup
	for going := true; going; {
		select {
		case <-ticker.C:
			flight.Go(func() {
				calls.Add(1)
				switch err := call(ctx, c, timeout); {
				case timedOut(err):
					late.Add(1)
				case err != nil:
					failures.Add(1)
				}
			})
		case <-over:
			going = false
		}
	}
	flight.Wait()
	fmt.Printf("calls=%d failed=%d late=%d\n", calls.Load(), failures.Load(), late.Load())
	cancel()
	running.Wait()
}

// crowd starts n processes that call service "a" of an agent, runs event when all of them route, lets them call for d, and
// returns how many calls were made, failed, and were not answered in time. If dead is an instance, they make no call before they are warned of it.
func crowd(t *testing.T, target string, n int, timeout, d time.Duration, dead string, event func()) (calls, failed, late int) {
	t.Helper()
	type process struct {
		*exec.Cmd
		in  io.WriteCloser
		out *bufio.Scanner
	}
	var all []process
	for range n {
		p := process{Cmd: exec.Command(os.Args[0], "-test.run=^TestFiftyProcesses$")}
		p.Env = append(os.Environ(), "L5_TEST_CALLER="+target, "L5_TEST_TIMEOUT="+timeout.String(), "L5_TEST_DEAD="+dead, "GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=64MiB")
		p.Stderr = os.Stderr
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if p.in, err = p.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		p.out = bufio.NewScanner(out)
		all = append(all, p)
	}
	said := func(word string) {
		for _, p := range all {
			if !p.out.Scan() || p.out.Text() != word {
				t.Fatalf("a process says %q, want that it is %s", p.out.Text(), word)
			}
		}
	}
	said("ready")
	event()
	if dead != "" {
		said("warned")
	}
	<-time.After(d)
	for _, p := range all {
		p.in.Close()
	}
	for _, p := range all {
		for p.out.Scan() {
			fields := strings.Fields(p.out.Text())
			if len(fields) == 3 && strings.HasPrefix(fields[0], "calls=") {
				made, err := strconv.Atoi(strings.TrimPrefix(fields[0], "calls="))
				lost, err2 := strconv.Atoi(strings.TrimPrefix(fields[1], "failed="))
				waited, err3 := strconv.Atoi(strings.TrimPrefix(fields[2], "late="))
				if err := errors.Join(err, err2, err3); err != nil {
					t.Fatal(err)
				}
				calls, failed, late = calls+made, failed+lost, late+waited
			}
		}
		if err := p.Wait(); err != nil {
			t.Errorf("a process: %v", err)
		}
	}
	return calls, failed, late
}

// 50 processes of one device lose few calls to an instance that dies, in all: its agent tells them, and who was told loses none. How many are lost until then is in
// the log: it depends on what else the machine does.
func TestFiftyProcesses(t *testing.T) {
	if target := os.Getenv("L5_TEST_CALLER"); target != "" {
		caller(t, target)
		return
	}
	if testing.Short() {
		t.Skip("it starts 50 processes")
	}
	s := l5test.NewServer(t, nil)
	var all []l5.Instance
	var die []func()
	for range 10 {
		addr, _, stop := listen(t)
		die = append(die, stop)
		all = append(all, l5.Instance{Service: "a", Addr: addr, Share: 100})
	}
	if err := s.Name().Register(within(t), all); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	finder, dead := l5test.Client(t, a.Target(), nil), all[0].Addr
	calls, failed, late := crowd(t, a.Target(), 50, time.Minute, time.Second, dead, func() {
		die[0]()
		l5test.Await(t, "one finds out", func() bool {
			_ = call(within(t), finder, time.Minute) // it may be the one that finds out
			return pickShare(finder, dead) == 0
		})
	})
	if calls == 0 || failed > 0 {
		t.Errorf("%d of %d calls of processes that were warned failed, %d were late", failed, calls, late)
	}
	calls, failed, late = crowd(t, a.Target(), 50, 10*time.Second, 3*time.Second, "", die[1])
	t.Logf("50 processes, an instance of 10 refuses: %d of %d calls failed, %d were late", failed, calls, late)

	// The agent's TCP probe finds nothing wrong with one that hangs. It does so when its callers have called for a while: they know by
	// then how long calls take.
	hung, _, hang, _ := listenUntil(t)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: hung, Share: 100}}); err != nil {
		t.Fatal(err)
	}
	calls, failed, late = crowd(t, a.Target(), 50, 250*time.Millisecond, 5*time.Second, "", func() {
		<-time.After(3 * time.Second)
		hang()
	})
	t.Logf("50 processes, an instance of 10 hangs, time-out 250 ms: %d of %d calls were late, %d failed", late, calls, failed)
}

// An error that no message can carry as it stands is no reason to lose the stream.
func TestDoubtInAnyWords(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	finder, warned := l5test.Client(t, a.Target(), nil), l5test.Client(t, a.Target(), nil)
	route(t, warned, "a")
	r, err := finder.Route(within(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	r.Done(l5.Outcome{Err: fmt.Errorf("%s\xff: %w", strings.Repeat("é", 1000), syscall.ECONNREFUSED)})
	l5test.Await(t, "the other one is warned", func() bool {
		for _, i := range warned.Explain("a").Instances {
			if i.Addr == r.Addr() && i.Weight == 0 {
				return strings.Contains(i.Reason, "the device's agent")
			}
		}
		return false
	})
}

// Who never called an instance is warned of it; when the agent that warned is gone, each process finds out by itself that the
// instance is back.
func TestAdviceOutlivesItsAgent(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	dead := addrtest.Free(t)
	all := []l5.Instance{{Service: "a", Addr: dead, Share: 100}}
	for range 3 {
		addr, _, _ := listen(t)
		all = append(all, l5.Instance{Service: "a", Addr: addr, Share: 100})
	}
	if err := s.Name().Register(within(t), all); err != nil {
		t.Fatal(err)
	}
	a, stop := l5test.Agent(t, s.Target(), nil)
	edit := func(c *l5.Config) { c.Balance.EjectFor = 20 * time.Millisecond }
	finder, warned := l5test.Client(t, a.Target(), edit), l5test.Client(t, a.Target(), edit)
	route(t, warned, "a")
	share := func(c *l5.Client) float64 { return pickShare(c, dead) }
	failures := 0
	for range 200 {
		if call(within(t), finder, time.Minute) != nil {
			failures++
		}
	}
	if failures == 0 || failures > 2 {
		t.Errorf("%d calls found out, want 1 or 2", failures)
	}
	l5test.Await(t, "the other one is warned", func() bool { return share(warned) == 0 })
	for range 200 {
		if err := call(within(t), warned, time.Minute); err != nil {
			t.Fatalf("a call after the warning: %v", err)
		}
	}
	view, _, err := a.Lookup(within(t), "test.caller", "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range view.Members {
		if (m.Addr == dead) != (m.Weight == 0) {
			t.Errorf("doors see %s with weight %v: %s", m.Addr, m.Weight, m.Reason)
		}
	}
	stop()
	l, err := net.Listen("tcp", dead)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("ok"))
			conn.Close()
		}
	}()
	l5test.Await(t, "the warned one tries it again", func() bool {
		if err := call(within(t), warned, time.Minute); err != nil {
			t.Errorf("a call was spent on finding out: %v", err)
		}
		return share(warned) > 0.1
	})
	l.Close()
	<-serving
}
