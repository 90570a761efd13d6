package vip

import (
	"errors"
	"net"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/relay"
)

// accept takes the connections of a virtual address until it is closed.
func (p *Proxy) accept(f *front) {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			p.log.Warn("cannot accept a connection", "vip", f.vip, "error", err)
			select { // out of file descriptors, most likely: some are given back soon
			case <-time.After(10 * time.Millisecond):
				continue
			case <-p.ended:
				return
			}
		}
		p.work.Go(func() { p.serve(f, client) })
	}
}

// serve connects a client to a real server and carries bytes until both are done.
func (p *Proxy) serve(f *front, client net.Conn) {
	defer client.Close()
	server, conn := p.connect(f)
	if conn == nil {
		return
	}
	defer conn.Close()
	c := &pipe{Relay: relay.New(client, conn), server: server}
	p.mu.Lock()
	if p.over {
		f.pool.closed(server)
		p.mu.Unlock()
		return
	}
	f.pipes[c] = struct{}{}
	p.mu.Unlock()
	p.connections.Inc()

	c.Run()

	p.connections.Dec()
	p.mu.Lock()
	delete(f.pipes, c)
	f.pool.closed(server)
	p.mu.Unlock()
}

// connect tries one server after the other.
func (p *Proxy) connect(f *front) (*member, net.Conn) {
	var tried []*member
	for {
		p.mu.Lock()
		server := f.pool.pick(time.Now(), tried)
		if server != nil && !p.over {
			f.pool.opening(server)
		}
		over := p.over
		p.mu.Unlock()
		if server == nil || over {
			return nil, nil
		}
		conn, err := net.DialTimeout("tcp", server.addr, p.config.DialTimeout)
		if err == nil {
			p.mu.Lock()
			f.pool.opened(server)
			p.mu.Unlock()
			return server, conn
		}
		p.refusals.Inc()
		tried = append(tried, server)
		p.mu.Lock()
		f.pool.closed(server)
		f.pool.refused(time.Now(), server)
		p.mu.Unlock()
		p.log.Warn("real server refused a connection", "vip", f.vip, "server", server.addr, "error", err)
	}
}

// pipe is one connection through the proxy.
type pipe struct {
	*relay.Relay
	server *member
}
