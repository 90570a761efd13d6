package vip

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
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
	c := &pipe{client: client, conn: conn, server: server}
	c.last.Store(time.Now().UnixNano())
	p.mu.Lock()
	if p.over {
		f.pool.closed(server)
		p.mu.Unlock()
		return
	}
	f.pipes[c] = struct{}{}
	p.mu.Unlock()
	p.connections.Inc()

	done := make(chan struct{})
	go func() { // waited for by done
		defer close(done)
		c.carry(conn, client, true)
	}()
	c.carry(client, conn, false)
	<-done

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
	client, conn net.Conn
	server       *member
	last         atomic.Int64 // when bytes last moved, Unix nanoseconds
	asked        atomic.Bool  // they came from the client: it waits for an answer
}

// quiet tells whether nothing is under way: the server had the last word, some time ago.
func (c *pipe) quiet(now time.Time, least time.Duration) bool {
	return !c.asked.Load() && now.Sub(time.Unix(0, c.last.Load())) >= least
}

func (c *pipe) close() {
	c.client.Close()
	c.conn.Close()
}

// carry copies from one side to the other until the end of the stream, which it passes on.
func (c *pipe) carry(to, from net.Conn, fromClient bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			c.last.Store(time.Now().UnixNano())
			c.asked.Store(fromClient)
			if _, err := to.Write(buffer[:n]); err != nil {
				c.close() // the reader is gone: the writer should know
				return
			}
		}
		if err != nil {
			if tcp, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				tcp.CloseWrite() // fails if the other side is gone already
				return
			}
			c.close()
			return
		}
	}
}
