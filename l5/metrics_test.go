package l5_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// What the metrics say is what happened, also after the instance is gone.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 2, 100)); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Metrics = registry })
	for i := range 10 {
		r, err := c.Route(within(t), "a")
		if err != nil {
			t.Fatal(err)
		}
		r.Done(l5.Outcome{Latency: time.Millisecond, Err: []error{nil, errors.New("no"), l5.ErrOverloaded}[min(i, 2)%3]})
	}
	held, err := c.Route(within(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Done(l5.Outcome{})
	if err := s.Name().Deregister(within(t), "a", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:2": 0}); err != nil {
		t.Fatal(err)
	}
	await(t, "nobody left", func() bool {
		r, err := c.Route(within(t), "a")
		r.Done(l5.Outcome{Err: context.Canceled})
		return errors.Is(err, l5.ErrNoInstance)
	})
	names := []string{"calls_total", "calls_in_flight", "instances", "panicking"}
	for i := range names {
		names[i] = "zhiyun_l5_client_" + names[i]
	}
	err = testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP zhiyun_l5_client_calls_in_flight Calls that were routed and are not over.
# TYPE zhiyun_l5_client_calls_in_flight gauge
zhiyun_l5_client_calls_in_flight{service="a"} 1
# HELP zhiyun_l5_client_calls_total Calls that are over, by outcome: success, failure, or rejected by the callee.
# TYPE zhiyun_l5_client_calls_total counter
zhiyun_l5_client_calls_total{outcome="failure",service="a"} 1
zhiyun_l5_client_calls_total{outcome="rejected",service="a"} 8
zhiyun_l5_client_calls_total{outcome="success",service="a"} 1
# HELP zhiyun_l5_client_instances Instances by health in the eyes of this process; none are those that take no calls by weight.
# TYPE zhiyun_l5_client_instances gauge
zhiyun_l5_client_instances{health="ejected",service="a"} 0
zhiyun_l5_client_instances{health="none",service="a"} 1
zhiyun_l5_client_instances{health="probing",service="a"} 0
zhiyun_l5_client_instances{health="trial",service="a"} 0
zhiyun_l5_client_instances{health="up",service="a"} 0
# HELP zhiyun_l5_client_panicking 1 while instances that are down are in use.
# TYPE zhiyun_l5_client_panicking gauge
zhiyun_l5_client_panicking{service="a"} 0
`), names...)
	if err != nil {
		t.Error(err)
	}
}

// observer counts what it is told.
type observer struct{ done, refused, moved atomic.Int64 }

func (o *observer) Done(r l5.Route, _ l5.Outcome) {
	if r.Addr() != "" {
		o.done.Add(1)
	}
}

func (o *observer) Refused(service, reason string, err error) {
	if service == "a" && reason == "no_instance" && errors.Is(err, l5.ErrNoInstance) {
		o.refused.Add(1)
	}
}

func (o *observer) Moved(e l5.Event) {
	if !e.At.IsZero() {
		o.moved.Add(1)
	}
}

// One line is logged per change of state and none per call, and an observer is told all of it.
func TestObserverAndLog(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	o, lines := &observer{}, &counter{Handler: slog.DiscardHandler}
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Observer, c.Failures, c.Logger = o, 2, slog.New(lines) })
	if _, err := c.Route(within(t), "a"); !errors.Is(err, l5.ErrNoInstance) {
		t.Fatal(err)
	}
	if err := s.Name().Register(within(t), instances("a", 4, 100)); err != nil {
		t.Fatal(err)
	}
	await(t, "instances", func() bool { return len(c.Explain("a").Instances) == 4 })
	await(t, "an ejection", func() bool {
		r, err := c.Route(within(t), "a")
		if err != nil {
			t.Fatal(err)
		}
		r.Done(l5.Outcome{Err: map[bool]error{true: errors.New("no")}[r.Addr() == "127.0.0.1:1"]})
		return o.moved.Load() > 0
	})
	before := lines.n.Load()
	for range 1000 {
		route(t, c, "a")
	}
	if o.refused.Load() != 1 || o.moved.Load() == 0 || o.done.Load() < 1000 {
		t.Errorf("told of %d calls, %d refusals, %d changes", o.done.Load(), o.refused.Load(), o.moved.Load())
	}
	if got := lines.n.Load() - before; got > 20 {
		t.Errorf("%d lines were logged during 1,000 calls", got)
	}
}

// counter counts lines.
type counter struct {
	slog.Handler
	n atomic.Int64
}

func (c *counter) Enabled(context.Context, slog.Level) bool  { return true }
func (c *counter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
func (c *counter) WithAttrs([]slog.Attr) slog.Handler        { return c }
func (c *counter) WithGroup(string) slog.Handler             { return c }
