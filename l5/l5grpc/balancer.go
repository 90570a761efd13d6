package l5grpc

import (
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

const policy = "zhiyun_l5"

func init() { balancer.Register(policyBuilder{}) } // gRPC knows policies by name alone

type policyBuilder struct{}

// Name implements balancer.Builder.
func (policyBuilder) Name() string { return policy }

// Build implements balancer.Builder.
func (policyBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &pool{cc: cc}
}

// pool holds a connection per instance to pick from. gRPC calls its methods one at a time.
type pool struct {
	cc     balancer.ClientConn
	conns  map[string]*conn                    // by address; copied on write, for pickers hold it
	states balancer.ConnectivityStateEvaluator // of conns
	known  *known
}

// conn is the connection to one instance.
//
//	connecting --> ready --closed, or an attempt in vain--> connecting
//	    |            ^
//	    v            |
//	transient failure, until one of gRPC's further attempts succeeds
type conn struct {
	sub    balancer.SubConn
	state  atomic.Int32            // a connectivity.State
	failed atomic.Pointer[failure] // the last attempt to connect that did
}

// failure is told to l5 once.
type failure struct {
	error
	told atomic.Bool
}

func (c *conn) is(s connectivity.State) bool { return c.state.Load() == int32(s) }

// UpdateClientConnState implements balancer.Balancer.
func (p *pool) UpdateClientConnState(s balancer.ClientConnState) error {
	told, ok := s.ResolverState.Attributes.Value(attribute{}).(*known)
	if !ok {
		return balancer.ErrBadResolverState
	}
	old := p.conns
	p.known, p.conns = told, make(map[string]*conn, len(old))
	for _, i := range told.Instances {
		c := old[i.Addr]
		// One that a probe reached does not wait until gRPC's own back-off is over, up to two minutes.
		if back := i.Health == balance.Trial; i.Weight > 0 && (c == nil || back && c.is(connectivity.TransientFailure)) {
			c = p.open(i.Addr)
		}
		if c != nil && i.Base > 0 && (i.Weight > 0 || i.Health != balance.Up) { // one that is ejected is to come back
			p.conns[i.Addr] = c
		}
	}
	p.publish()
	for addr, c := range old {
		if p.conns[addr] != c {
			c.sub.Shutdown() // calls in flight go on
		}
	}
	return nil
}

func (p *pool) open(addr string) *conn {
	c := &conn{}
	//lint:ignore SA1019 gRPC announces a change of it, and has nothing else for a balancer of its own
	sub, err := p.cc.NewSubConn([]resolver.Address{{Addr: addr}}, balancer.NewSubConnOptions{
		StateListener: func(s balancer.SubConnState) { p.moved(c, s) },
	})
	if err != nil {
		return nil // the connection is closing
	}
	c.sub = sub
	c.state.Store(int32(connectivity.Connecting))
	p.states.RecordTransition(connectivity.Shutdown, connectivity.Connecting)
	sub.Connect()
	return c
}

// moved takes a connection's change of state.
func (p *pool) moved(c *conn, s balancer.SubConnState) {
	next := s.ConnectivityState
	switch next {
	case connectivity.Idle:
		c.sub.Connect() // at once: no call waits for it then
		next = connectivity.Connecting
	case connectivity.TransientFailure:
		c.failed.Store(&failure{error: s.ConnectionError})
	}
	if next == connectivity.Connecting && c.is(connectivity.TransientFailure) {
		return // calls do not wait for another attempt
	}
	p.states.RecordTransition(connectivity.State(c.state.Swap(int32(next))), next)
	p.publish()
}

// publish has gRPC try again the calls that wait: with a picker for connections and state as they are now.
func (p *pool) publish() {
	state := p.states.CurrentState()
	p.cc.UpdateState(balancer.State{ConnectivityState: state, Picker: &picker{p.known, p.conns, state}})
}

// ResolverError implements balancer.Balancer; the resolver reports none.
func (p *pool) ResolverError(error) {}

// UpdateSubConnState implements balancer.Balancer; listeners are told instead.
func (p *pool) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle implements balancer.Balancer; no connection stays idle.
func (p *pool) ExitIdle() {}

// Close implements balancer.Balancer; gRPC closes the connections.
func (p *pool) Close() {}
