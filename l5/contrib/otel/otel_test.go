package otel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/contrib/otel"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// world is a client of one instance, observed.
func world(t *testing.T) (*l5.Client, *otel.Observer, *metric.ManualReader, *tracetest.InMemoryExporter) {
	t.Helper()
	reader, spans := metric.NewManualReader(), tracetest.NewInMemoryExporter()
	observer, err := otel.New(otel.Config{
		Meter: metric.NewMeterProvider(metric.WithReader(reader)), Tracer: trace.NewTracerProvider(trace.WithSyncer(spans)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := l5test.NewServer(t, nil)
	instance := l5.Instance{Service: "shop.cart", Addr: "127.0.0.1:8080", Device: "web-17", Site: "sz-1", Share: 100}
	if err := s.Name().Register(t.Context(), []l5.Instance{instance}); err != nil {
		t.Fatal(err)
	}
	return l5test.Client(t, s.Target(), func(c *l5.Config) { c.Observer = observer }), observer, reader, spans
}

// counts returns how many points of each instrument there are, by its attributes.
func counts(t *testing.T, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]int64)
	encoder := attribute.DefaultEncoder()
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					out[m.Name+" "+p.Attributes.Encoded(encoder)] = int64(p.Count)
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					out[m.Name+" "+p.Attributes.Encoded(encoder)] = p.Value
				}
			}
		}
	}
	return out
}

func TestCallsAreSpansAndMeasured(t *testing.T) {
	t.Parallel()
	client, observer, reader, spans := world(t)
	broken := errors.New("broken")
	for _, want := range []error{nil, broken, l5.ErrOverloaded} {
		err := observer.Call(t.Context(), client, "shop.cart", l5.Request{}, func(ctx context.Context, route l5.Route) error {
			if route.Addr() != "127.0.0.1:8080" {
				t.Errorf("routed to %q", route.Addr())
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := observer.Call(short, client, "shop.absent", l5.Request{}, func(context.Context, l5.Route) error { panic("not routed") })
	if !errors.Is(err, l5.ErrNoInstance) {
		t.Errorf("got %v", err)
	}
	for name, want := range map[string]int64{
		"l5.client.call.duration l5.outcome=success,l5.service=shop.cart":  1,
		"l5.client.call.duration l5.outcome=failure,l5.service=shop.cart":  1,
		"l5.client.call.duration l5.outcome=rejected,l5.service=shop.cart": 1,
		"l5.client.refused l5.reason=no_instance,l5.service=shop.absent":   1,
	} {
		if got := counts(t, reader); got[name] != want {
			t.Errorf("%s is %d, want %d; there are %v", name, got[name], want, got)
		}
	}
	ended := spans.GetSpans()
	if len(ended) != 4 {
		t.Fatalf("%d spans, want 4", len(ended))
	}
	first := fmt.Sprint(ended[0].Name, ended[0].Attributes)
	for _, want := range []attribute.KeyValue{attribute.String("server.address", "127.0.0.1"), attribute.Int("server.port", 8080), attribute.String("l5.device", "web-17"), attribute.String("l5.outcome", "success")} {
		if !slices.Contains(ended[0].Attributes, want) {
			t.Errorf("the span lacks %v: %s", want, first)
		}
	}
}

// A call that panics is over: it does not stay in flight.
func TestPanicEndsTheCall(t *testing.T) {
	t.Parallel()
	client, observer, _, _ := world(t)
	func() {
		defer func() { recover() }()
		observer.Call(t.Context(), client, "shop.cart", l5.Request{}, func(context.Context, l5.Route) error { panic("bug") })
	}()
	if got := client.Explain("shop.cart").Instances[0]; got.InFlight != 0 || got.Failures != 1 {
		t.Errorf("%d calls in flight, %d failures", got.InFlight, got.Failures)
	}
}

// Without providers nothing is measured and everything works.
func TestDefaults(t *testing.T) {
	t.Parallel()
	observer, err := otel.New(otel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	observer.Done(l5.Route{}, l5.Outcome{})
	observer.Refused("a", "denied", nil)
	observer.Moved(l5.Event{})
}
