package server_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// An owner tells where nobody serves: callers are told that such an instance takes no calls, whoever registered it, and
// nobody is told of what is not the owner's, or is on trial.
func TestOutages(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	a, stop := l5test.Agent(t, s.Target(), nil)
	register := func(instances ...l5.Instance) {
		if err := s.Name().Register(within(t), instances); err != nil {
			t.Fatal(err)
		}
	}
	mine := l5.Instance{Service: "a", Addr: "127.0.0.1:1", Share: 100, Owner: "device-1"}
	trial := l5.Instance{Service: "a", Addr: "127.0.0.1:2", Share: 10, Owner: "device-1"}
	other := l5.Instance{Service: "a", Addr: "127.0.0.2:1", Share: 100, Owner: "device-2"}
	register(mine, trial, other)
	down := func() map[string]string {
		out := make(map[string]string)
		for _, i := range s.Name().Instances("a") {
			out[i.Addr] = i.Down
			if takes := i.EffectiveWeight > 0; takes != (i.Down == "") {
				t.Errorf("%s takes calls %v, down %q", i.Addr, takes, i.Down)
			}
		}
		return out
	}
	await := func(what string, want map[string]string) {
		t.Helper()
		l5test.Await(t, what, func() bool { return cmp.Equal(want, down()) })
	}
	ended := func(addrs ...string) (out []agent.Outage) {
		for _, addr := range addrs {
			out = append(out, agent.Outage{Addr: addr, Reason: "exit status 1"})
		}
		return out
	}
	all := ended("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.2:1")
	a.Say(all)
	await("mine alone is down", map[string]string{"127.0.0.1:1": "exit status 1", "127.0.0.1:2": "", "127.0.0.2:1": ""})

	register(mine, l5.Instance{Service: "a", Addr: "127.0.0.1:3", Share: 100, Owner: "device-1"})
	await("what is registered later is as its owner said before",
		map[string]string{"127.0.0.1:1": "exit status 1", "127.0.0.1:2": "", "127.0.0.1:3": "exit status 1", "127.0.0.2:1": ""})
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:2": 100}); err != nil {
		t.Fatal(err)
	}
	a.Say(all) // as it is from time to time
	await("at its full share it is down, too",
		map[string]string{"127.0.0.1:1": "exit status 1", "127.0.0.1:2": "exit status 1", "127.0.0.1:3": "exit status 1", "127.0.0.2:1": ""})

	stop()
	s.Stop()
	s.Start()
	if diff := cmp.Diff("exit status 1", down()["127.0.0.1:1"]); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	a, _ = l5test.Agent(t, s.Target(), nil)
	settling := agent.Outage{Addr: "127.0.0.1:1", Reason: "ended 5 times of late", Settling: true}
	a.Say([]agent.Outage{settling})
	await("one that settles stays out while there are others",
		map[string]string{"127.0.0.1:1": "exit status 1", "127.0.0.1:2": "", "127.0.0.1:3": "", "127.0.0.2:1": ""})
	for _, addr := range []string{"127.0.0.1:2", "127.0.0.1:3", "127.0.0.2:1"} {
		if err := s.Name().Deregister(within(t), "a", addr); err != nil {
			t.Fatal(err)
		}
	}
	a.Say([]agent.Outage{settling})
	await("and is in use when there are none", map[string]string{"127.0.0.1:1": ""})
	a.Say([]agent.Outage{settling})
	a.Say(nil)
	await("all serve", map[string]string{"127.0.0.1:1": ""})
}
