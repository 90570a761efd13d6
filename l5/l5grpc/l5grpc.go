// Package l5grpc lets gRPC clients call services by their id.
//
//	conn, err := grpc.NewClient("l5:///shop.cart", l5grpc.With(client), credentials)
//
// Each call goes to the instance that client routes it to, and how it went is told back. Connections are held to the
// instances that client picks from, and to no others: for services of thousands of instances, have the client pick from a
// subset. A connection that the server closed for its age is opened again at once, not when the next call needs it. A
// call is never sent to an instance whose connection is not ready while another is: an attempt to connect that fails is
// told as one failure, whatever number of calls was drawn to it.
//
// The codes Unavailable, DeadlineExceeded, Internal, Unknown and DataLoss are failures, ResourceExhausted is a rejection
// for overload, Canceled says nothing, and all others are answers: successes. The latency of a call is the time to its
// end; for long streams give grpc.WithStreamInterceptor(l5grpc.Streams), and it is that to the first message.
//
// The other side is Limit, an interceptor that bounds what a server works on at a time.
package l5grpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// Option changes what With does.
type Option func(*builder)

// WithMethods sets the methodConfig of gRPC's service config, a JSON array: timeouts and retries by method. A default
// service config of the connection has no effect. Default: none.
func WithMethods(config string) Option { return func(b *builder) { b.methods = config } }

// WithJudge sets how the error of a call that is over is judged: nil for a success, an error that matches
// l5.ErrOverloaded for a rejection, context.Canceled for nothing, any other for a failure. Default: Judge.
func WithJudge(judge func(error) error) Option { return func(b *builder) { b.judge = judge } }

// With makes targets of the form l5:///SERVICE go through client, which must run. One With serves any number of
// connections.
func With(client *l5.Client, options ...Option) grpc.DialOption {
	b := &builder{client: client, methods: "[]", judge: Judge}
	for _, option := range options {
		option(b)
	}
	return grpc.WithResolvers(b)
}

// Judge is the default judge; see the package's comment.
func Judge(err error) error {
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return late(err)
	case codes.Unavailable, codes.Internal, codes.Unknown, codes.DataLoss:
		return err
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %w", l5.ErrOverloaded, err)
	case codes.Canceled:
		return context.Canceled
	}
	return nil
}

// refusal gives an error of routing its code. Without an instance, calls that wait for ready go on waiting.
func refusal(err error) error {
	switch {
	case errors.Is(err, l5.ErrDenied):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, l5.ErrOverloaded):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return err
}

// builder makes resolvers: each follows a service for one connection.
type builder struct {
	client  *l5.Client
	methods string
	judge   func(error) error
}

// Scheme implements resolver.Builder.
func (b *builder) Scheme() string { return "l5" }

// Build implements resolver.Builder.
func (b *builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	service := target.Endpoint()
	if err := l5.CheckService(service); err != nil {
		return nil, fmt.Errorf("target %q: want l5:///SERVICE: %w", target.URL.String(), err)
	}
	config := cc.ParseServiceConfig(fmt.Sprintf(`{"loadBalancingConfig":[{%q:{}}],"methodConfig":%s}`, policy, b.methods))
	if config.Err != nil {
		return nil, fmt.Errorf("l5grpc: WithMethods: %w", config.Err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &follower{stop: stop, ended: make(chan struct{})}
	go r.run(ctx, b, service, cc, resolver.State{ServiceConfig: config}) // Close waits for it
	return r, nil
}

// follower is the resolver of one connection.
type follower struct {
	stop  context.CancelFunc
	ended chan struct{}
}

type attribute struct{}

// known is what the follower tells the balancer.
type known struct {
	l5.Explanation
	*builder
}

// run hands each state of the service to the connection.
func (r *follower) run(ctx context.Context, b *builder, service string, cc resolver.ClientConn, state resolver.State) {
	defer close(r.ended)
	for {
		explanation, changed, err := b.client.Follow(ctx, service)
		if err != nil {
			return // ctx has ended
		}
		state.Attributes = state.Attributes.WithValue(attribute{}, &known{explanation, b})
		_ = cc.UpdateState(state) // its error asks for another resolution; states are pushed
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// ResolveNow implements resolver.Resolver; states are pushed.
func (r *follower) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (r *follower) Close() {
	r.stop()
	<-r.ended
}
