package main

import (
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

func TestExplainAtAnAgent(t *testing.T) {
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: "127.0.0.1:80", Share: 50}}); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	client := l5test.Client(t, a.Target(), nil)
	route, err := client.Route(t.Context(), "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	route.Done(l5.Outcome{Latency: time.Millisecond})
	out, err := run(t, "l5", "explain", "shop.cart", "--agent", a.Target())
	for _, want := range []string{"weight 100 x share 50 %", "caller: test.caller", "name: gray", "successes: 1", "policy: adaptive", "pick_share: 1"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("lacks %q: %v\n%s", want, err, out)
		}
	}
	if out, err := run(t, "l5", "explain", "shop.crat", "--agent", a.Target()); err == nil || !strings.Contains(err.Error(), "knows no instance of shop.crat") || !strings.Contains(out, "instances: []") {
		t.Errorf("a service that nobody calls: %v\n%s", err, out)
	}
	if _, err := run(t, "l5", "explain", "shop.cart", "--agent", "unix:///nowhere.sock"); err == nil {
		t.Error("nobody there, and no error")
	}
}
