// Package l5net dials services by their id, for clients that take a dial function: databases, caches, anything on TCP.
//
//	dialer := l5net.NewDialer(client)
//	conn, err := dialer.DialContext(ctx, "tcp", "shop.db")
//
//	pool := redis.NewClient(&redis.Options{Addr: "shop.cache:0", Dialer: dialer.DialContext})
//
// A port after the id is ignored, for libraries that insist on one: instances have their own. One that cannot be reached
// is told as a failure, and the next is tried.
//
// A connection counts as a call in flight from the dial until Close. Its outcome is a failure if reading or writing
// failed otherwise than by the other side's end of stream, by the caller's own deadline or by its Close; else a success, whose
// latency is the time it took to connect. Protocols that know more about each request should use l5.Client.Route.
package l5net

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// Option changes a Dialer.
type Option func(*Dialer)

// WithDialer sets what connects, for its timeouts and keep-alive. Default: a net.Dialer with a timeout of 2 s.
func WithDialer(base *net.Dialer) Option { return func(d *Dialer) { d.base = base } }

// WithTries sets how many instances one dial may try, at least 1. Default: 3.
func WithTries(n int) Option { return func(d *Dialer) { d.tries = max(1, n) } }

// Dialer connects to services. It is safe for concurrent use.
type Dialer struct {
	client *l5.Client
	base   *net.Dialer
	tries  int
}

// NewDialer returns a dialer that routes by client, which must run.
func NewDialer(client *l5.Client, options ...Option) *Dialer {
	d := &Dialer{client: client, base: &net.Dialer{Timeout: 2 * time.Second}, tries: 3}
	for _, option := range options {
		option(d)
	}
	return d
}

// DialContext connects to an instance of a service; address is its id, with or without a port. Network is tcp, or tcp4
// or tcp6 for instances of that family alone. Errors of routing match l5's sentinels.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, fmt.Errorf("l5net: dial %s: %w; want tcp, tcp4 or tcp6", address, net.UnknownNetworkError(network))
	}
	service, _, _ := strings.Cut(address, ":")
	var failed error
	for range d.tries {
		route, err := d.client.Route(ctx, service)
		if err != nil {
			return nil, errors.Join(err, failed)
		}
		if !fits(network, route.Addr()) {
			route.Done(l5.Outcome{Err: context.Canceled})
			failed = fmt.Errorf("l5net: dial %s: %s is of another family than %s", service, route.Addr(), network)
			continue
		}
		begin := time.Now()
		raw, err := d.base.DialContext(ctx, network, route.Addr())
		outcome := l5.Outcome{Err: err, Latency: time.Since(begin)}
		if tcp, ok := raw.(*net.TCPConn); ok {
			return &conn{TCPConn: tcp, route: route, outcome: outcome}, nil
		}
		if context.Cause(ctx) != nil && errors.Is(ctx.Err(), context.Canceled) {
			outcome.Err = context.Canceled // the dial's own error says less
		}
		route.Done(outcome)
		if failed = fmt.Errorf("l5net: dial %s: %w", service, err); ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

func fits(network, addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	return err != nil || network == "tcp" || at.Addr().Unmap().Is4() == (network == "tcp4")
}

// conn tells the outcome when it is closed.
type conn struct {
	*net.TCPConn
	route l5.Route

	mu      sync.Mutex
	outcome l5.Outcome // guarded by mu
	closed  bool       // guarded by mu
}

// note keeps the first error that is the instance's.
func (c *conn) note(err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outcome.Err == nil {
		c.outcome.Err = err
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if err != nil {
		c.note(err)
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	if err != nil {
		c.note(err)
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	first, outcome := !c.closed, c.outcome
	c.closed = true
	c.mu.Unlock()
	if first {
		c.route.Done(outcome)
	}
	return c.TCPConn.Close()
}
