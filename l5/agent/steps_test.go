package agent_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/internal/clocktest"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// A step of the device's clock ends nothing of what its programs have, and keeps nothing of those that are gone: a program that
// is there keeps its instance and its routes; one that ends leaves neither.
func TestStepsOfTheClock(t *testing.T) {
	t.Parallel()
	var clock clocktest.Clock
	s := l5test.NewServer(t, func(c *server.Config) { c.Grace = 100 * time.Millisecond })
	device, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) {
		c.LocalGrace, c.Linger = 200*time.Millisecond, 200*time.Millisecond
		agent.SetClock(c, clock.Now)
	})
	register := func(client *l5.Client, service, addr string) {
		t.Helper()
		if _, err := client.Register(within(t), service, addr); err != nil {
			t.Fatal(err)
		}
	}
	routes := func(client *l5.Client, service, addr string) {
		t.Helper()
		r, err := client.Route(within(t), service)
		if err != nil || r.Addr() != addr {
			t.Fatalf("%s is routed to %q, %v", service, r.Addr(), err)
		}
		r.Done(l5.Outcome{Latency: time.Millisecond})
	}
	stays := l5test.Client(t, device.Target(), nil)
	register(stays, "a", "127.0.0.1:1")
	routes(stays, "a", "127.0.0.1:1")
	for i, step := range []time.Duration{72 * time.Hour, -144 * time.Hour, 73 * time.Hour} {
		other, addr := fmt.Sprint("b", i), fmt.Sprintf("127.0.0.1:%d", 2+i)
		leaves, err := l5.New(l5.Config{Target: device.Target(), Caller: "test.caller"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- leaves.Run(ctx) }()
		register(leaves, other, addr)
		routes(leaves, other, addr)
		leave()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		clock.Step(step)
		l5test.Await(t, "what the program had registered is gone", func() bool { return len(s.Name().Instances(other)) == 0 })
		l5test.Await(t, "what it called is let go of", func() bool { return !slices.Contains(device.Services(), other) })
		if left := s.Name().Instances("a"); len(left) != 1 || left[0].Suspect || !left[0].Live {
			t.Errorf("after a step by %v there is left of a: %+v", step, left)
		}
		if known := device.Services(); !slices.Contains(known, "a") {
			t.Errorf("after a step by %v the agent knows of %v", step, known)
		}
		routes(stays, "a", "127.0.0.1:1")
	}
}
