package l5_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// The whole loop: a program registers, another one routes through the agent, reports, and drains.
func TestLoop(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	a, _ := l5test.Agent(t, s.Target(), nil)
	callee := l5test.Client(t, a.Target(), func(c *l5.Config) { c.Caller = "shop.cart" })
	caller := l5test.Client(t, a.Target(), func(c *l5.Config) { c.Caller = "shop.web" })
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer web.Close()
	addr := strings.TrimPrefix(web.URL, "http://")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	registration, err := callee.Register(ctx, "shop.cart", addr, l5.WithSettle(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	route, err := caller.Route(ctx, "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	if route.Addr() != addr || route.Instance().Device != "device-1" || route.Instance().Owner != "device-1" {
		t.Errorf("route to %+v, want %s on device-1", route.Instance(), addr)
	}
	route.Done(l5.Outcome{Latency: time.Millisecond})

	client := &http.Client{Transport: l5http.NewTransport(caller)}
	for _, path := range []string{"/", "/fail"} {
		response, err := client.Get("http://shop.cart" + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	l5test.Await(t, "3 calls reported, 1 failed", func() bool {
		sum := s.Sink.Sum("shop.cart", addr)
		return sum.Requests == 3 && sum.Failures == 1
	})

	if err := s.Name().SetShare(ctx, "shop.cart", map[string]int{addr: 0}); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "no route at share 0", func() bool {
		route, err := caller.Route(ctx, "shop.cart")
		route.Done(l5.Outcome{})
		return errors.Is(err, l5.ErrNoInstance)
	})
	if err := registration.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.Name().Instances("shop.cart"); len(got) != 0 {
		t.Errorf("after Drain there are %v", got)
	}
}
