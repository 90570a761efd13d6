// Package otel tells OpenTelemetry what happens to the calls of an l5 client. It is a module of its own, so that the
// client needs no OpenTelemetry.
//
//	observer, err := otel.New(otel.Config{Meter: meterProvider, Tracer: tracerProvider})
//	client, err := l5.New(l5.Config{..., Observer: observer})
//
//	err = observer.Call(ctx, client, "shop.cart", l5.Request{}, func(ctx context.Context, route l5.Route) error {
//		return call(ctx, route.Addr()) // in a span of its own, whose attributes say where it went
//	})
//
// The client's own statistics need none of it; see l5.Config.Metrics.
package otel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/zhiyun-ops/zhiyun/l5"
)

const scope = "github.com/zhiyun-ops/zhiyun/l5/contrib/otel"

// Config of an Observer. A zero field means its documented default.
type Config struct {
	// Meter takes l5.client.call.duration (histogram in seconds, by service and outcome), l5.client.refused (calls without a
	// route, by service and reason) and l5.client.health.changes (by service and new state). Default: nobody.
	Meter metric.MeterProvider
	// Tracer takes the spans of Call. Default: nobody.
	Tracer trace.TracerProvider
}

// Observer implements l5.Observer.
type Observer struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	refused  metric.Int64Counter
	moved    metric.Int64Counter
}

var _ l5.Observer = (*Observer)(nil)

// New returns an observer. It reports all faults at once.
func New(config Config) (*Observer, error) {
	if config.Meter == nil {
		config.Meter = metricnoop.NewMeterProvider()
	}
	if config.Tracer == nil {
		config.Tracer = tracenoop.NewTracerProvider()
	}
	meter := config.Meter.Meter(scope)
	duration, err1 := meter.Float64Histogram("l5.client.call.duration", metric.WithUnit("s"),
		metric.WithDescription("How long calls took, as their callers measured it."),
		metric.WithExplicitBucketBoundaries(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8))
	refused, err2 := meter.Int64Counter("l5.client.refused", metric.WithUnit("{call}"), metric.WithDescription("Calls that got no route."))
	moved, err3 := meter.Int64Counter("l5.client.health.changes", metric.WithUnit("{change}"), metric.WithDescription("Changes of an instance's health."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("l5/contrib/otel: make instruments: %w", err)
	}
	return &Observer{tracer: config.Tracer.Tracer(scope), duration: duration, refused: refused, moved: moved}, nil
}

// Done implements l5.Observer.
func (o *Observer) Done(route l5.Route, outcome l5.Outcome) {
	ctx := context.Background()
	if !o.duration.Enabled(ctx) {
		return
	}
	o.duration.Record(ctx, outcome.Latency.Seconds(), metric.WithAttributes(
		attribute.String("l5.service", route.Instance().Service), attribute.String("l5.outcome", outcomeOf(outcome.Err))))
}

// Refused implements l5.Observer.
func (o *Observer) Refused(service, reason string, _ error) {
	o.refused.Add(context.Background(), 1, metric.WithAttributes(attribute.String("l5.service", service), attribute.String("l5.reason", reason)))
}

// Moved implements l5.Observer.
func (o *Observer) Moved(event l5.Event) {
	o.moved.Add(context.Background(), 1, metric.WithAttributes(attribute.String("l5.service", event.Service), attribute.String("l5.health", event.To.String())))
}

// outcomeOf names how a call went, as l5 counts it.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "success"
	case errors.Is(err, l5.ErrOverloaded):
		return "rejected"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return "failure"
}

// Call routes one call, runs f in a client span that says where the call goes, and tells l5 how it went. It returns f's
// error, or why there is no route.
func (o *Observer) Call(ctx context.Context, client *l5.Client, service string, request l5.Request, f func(context.Context, l5.Route) error) error {
	ctx, span := o.tracer.Start(ctx, "l5 "+service, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("l5.service", service)))
	defer span.End()
	route, err := client.RouteFor(ctx, service, request)
	if err != nil {
		span.SetStatus(codes.Error, "no route")
		span.RecordError(err)
		return err
	}
	if span.IsRecording() {
		span.SetAttributes(where(route)...)
	}
	begin, over := time.Now(), false
	defer func() {
		if !over { // f panicked: the call is over all the same
			route.Done(l5.Outcome{Err: errPanic, Latency: time.Since(begin)})
		}
	}()
	err = f(ctx, route)
	over = true
	route.Done(l5.Outcome{Err: err, Latency: time.Since(begin)})
	span.SetAttributes(attribute.String("l5.outcome", outcomeOf(err)))
	if err != nil {
		span.SetStatus(codes.Error, outcomeOf(err))
		span.RecordError(err)
	}
	return err
}

var errPanic = errors.New("l5/contrib/otel: the call panicked")

// where says where a call goes, in the words of OpenTelemetry's conventions where there are any.
func where(route l5.Route) []attribute.KeyValue {
	instance := route.Instance()
	out := []attribute.KeyValue{
		attribute.String("l5.device", instance.Device), attribute.String("l5.site", instance.Site), attribute.Bool("l5.panic", route.Panic()),
	}
	host, port, err := net.SplitHostPort(route.Addr())
	if err != nil {
		return out
	}
	out = append(out, attribute.String("server.address", host))
	if n, err := strconv.Atoi(port); err == nil {
		out = append(out, attribute.Int("server.port", n))
	}
	return out
}
