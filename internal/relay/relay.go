// Package relay carries bytes between two connections, and knows when the last moved: what the TCP proxies share.
package relay

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Relay is a client's connection joined to a server's. Its methods are safe for concurrent use.
type Relay struct {
	client, server net.Conn
	last           atomic.Int64 // when bytes last moved, Unix nanoseconds
	asked          atomic.Bool  // they came from the client: it waits for an answer
}

// New joins two connections; Run carries.
func New(client, server net.Conn) *Relay {
	r := &Relay{client: client, server: server}
	r.last.Store(time.Now().UnixNano())
	return r
}

// Run carries bytes both ways until both sides have ended. The end of a stream is passed on, the other way stays open;
// anything else closes both.
func (r *Relay) Run() {
	done := make(chan struct{})
	go func() { // waited for by done
		defer close(done)
		r.carry(r.server, r.client, true)
	}()
	r.carry(r.client, r.server, false)
	<-done
}

// Idle is how long no byte has moved.
func (r *Relay) Idle(now time.Time) time.Duration { return now.Sub(time.Unix(0, r.last.Load())) }

// Quiet tells whether nothing is under way: the server had the last word, some time ago.
func (r *Relay) Quiet(now time.Time, least time.Duration) bool {
	return !r.asked.Load() && r.Idle(now) >= least
}

// Close breaks both connections; Run then ends.
func (r *Relay) Close() {
	r.client.Close()
	r.server.Close()
}

// carry copies from one side to the other until the end of the stream, which it passes on.
func (r *Relay) carry(to, from net.Conn, fromClient bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			r.last.Store(time.Now().UnixNano())
			r.asked.Store(fromClient)
			if _, err := to.Write(buffer[:n]); err != nil {
				r.Close() // the reader is gone: the writer should know
				return
			}
		}
		if err != nil {
			if half, ok := to.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) {
				half.CloseWrite() // fails if the other side is gone already
				return
			}
			r.Close()
			return
		}
	}
}
