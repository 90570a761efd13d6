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
	p := &pool{cc: cc}
	p.conns.Store(&map[string]*conn{})
	return p
}

// pool holds a connection per instance to pick from. gRPC calls all but Pick one at a time.
type pool struct {
	cc      balancer.ClientConn
	builder *builder
	service string
	count   [connectivity.Shutdown + 1]int   // of conns, by state
	conns   atomic.Pointer[map[string]*conn] // by address; copied on write
}

// conn is the connection to one instance.
//
//	idle --Connect, at once--> connecting --> ready --closed--> idle
//	                               |            ^
//	                               v            |
//	        transient failure, told once, until one of gRPC's further attempts succeeds
type conn struct {
	sub    balancer.SubConn
	out    bool                  // no weight in the last state
	state  atomic.Int32          // a connectivity.State
	failed atomic.Pointer[error] // why the last attempt to connect failed
	told   atomic.Bool           // and that l5 knows
}

// UpdateClientConnState implements balancer.Balancer.
func (p *pool) UpdateClientConnState(s balancer.ClientConnState) error {
	told, ok := s.ResolverState.Attributes.Value(attribute{}).(*known)
	if !ok {
		return balancer.ErrBadResolverState
	}
	if p.builder == nil { // picks read them
		p.builder, p.service = told.builder, told.Service
	}
	old := *p.conns.Load()
	conns := make(map[string]*conn, len(old))
	for _, i := range told.Instances {
		c := old[i.Addr]
		if i.Weight > 0 && (c == nil || c.out && c.is(connectivity.TransientFailure)) {
			c = p.open(i.Addr) // one that is back does not wait until gRPC's own back-off is over, up to two minutes
		}
		if c != nil && i.Base > 0 && (i.Weight > 0 || i.Health != balance.Up) { // one that is ejected is to come back
			c.out = i.Weight == 0
			conns[i.Addr] = c
		}
	}
	p.conns.Store(&conns)
	for addr, c := range old {
		if conns[addr] != c {
			c.sub.Shutdown() // calls in flight go on
		}
	}
	p.publish()
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
	p.count[connectivity.Idle]++
	sub.Connect()
	return c
}

// moved takes a connection's change of state.
func (p *pool) moved(c *conn, s balancer.SubConnState) {
	next := s.ConnectivityState
	switch {
	case next == connectivity.Idle:
		c.sub.Connect()
	case next == connectivity.TransientFailure:
		c.failed.Store(&s.ConnectionError)
		c.told.Store(false)
	}
	if next < connectivity.Ready && c.is(connectivity.TransientFailure) {
		return // calls do not wait for another attempt
	}
	p.count[c.state.Swap(int32(next))]--
	p.count[next]++
	p.publish()
}

// publish has gRPC try again the calls that wait.
func (p *pool) publish() {
	now := connectivity.TransientFailure
	switch {
	case p.count[connectivity.Ready] > 0:
		now = connectivity.Ready
	case p.count[connectivity.Connecting]+p.count[connectivity.Idle] > 0:
		now = connectivity.Connecting
	}
	p.cc.UpdateState(balancer.State{ConnectivityState: now, Picker: p})
}

func (c *conn) is(s connectivity.State) bool { return c.state.Load() == int32(s) }

// ResolverError implements balancer.Balancer; the resolver reports none.
func (p *pool) ResolverError(error) {}

// UpdateSubConnState implements balancer.Balancer; listeners are told instead.
func (p *pool) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle implements balancer.Balancer; no connection stays idle.
func (p *pool) ExitIdle() {}

// Close implements balancer.Balancer; gRPC closes the connections.
func (p *pool) Close() {}
