package tools_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// A drain ends when the longest call has, however long no other call ends meanwhile.
func TestDrainWaitsForCallsInFlight(t *testing.T) {
	t.Parallel()
	const addr = "127.0.1.9:7000"
	w := world(t)
	controltest.Must(w.Centers.Permissions.Request(t.Context(), "shop.web", "shop.cart", "by-hand/alice", "alice", ""))(t)
	controltest.Must(w.Centers.Permissions.Approve(t.Context(), "shop.web", "shop.cart", "alice", ""))(t)
	client := controltest.Must(l5.New(l5.Config{Target: w.Target, Caller: "shop.web", ReportEvery: 20 * time.Millisecond}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	call := func() l5.Route {
		t.Helper()
		route, err := client.Route(t.Context(), "shop.cart")
		if err != nil {
			t.Fatal(err)
		}
		return route
	}
	call().Done(l5.Outcome{})
	long := call()

	began := time.Now()
	var over atomic.Bool
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for w.Names.Leaving("shop.cart", addr, began).Busy.Sub(began) < 2*time.Second { // twice as long as it is to be quiet
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
		over.Store(true)
		long.Done(l5.Outcome{})
	}()
	ok(t, w, "l5.drain", "e1/1", `{"services":`+cartService+`,"devices":[`+old+`],"quiet":"1s"}`)
	if !over.Load() {
		t.Error("it was drained while a call was in flight")
	}
	cancel()
	<-watched
}
