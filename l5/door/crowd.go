package door

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Crowd listens for HTTP, and holds no more than so many connections at a time, without letting any of them keep others out:
// when it is full, the connection that has gone longest without a request makes room for the next.
//
//	           a request is let in
//	waiting ------------------------> busy
//	 |   ^                              |
//	 |   +------- its last one ends ----+
//	 |
//	 +-- full, and no other waits longer --> closed
//
// So connections that say nothing, or never finish what they say, live as long as nobody else wants their place. Of an
// address that is not this host's own at most a quarter of the places are held.
type Crowd struct {
	net.Listener
	most int

	mu      sync.Mutex
	size    int                // guarded by mu
	from    map[netip.Addr]int // guarded by mu; connections of other hosts
	waiting *list.List         // guarded by mu; of *guest, who waits longest first
	room    chan struct{}      // guarded by mu; closed and replaced when somebody goes or begins to wait
	closed  bool               // guarded by mu
}

// guest is one connection.
type guest struct {
	net.Conn
	crowd *Crowd
	from  netip.Addr // not valid: this host

	place *list.Element // guarded by the crowd's mu; nil: busy, or gone
	busy  int           // guarded by the crowd's mu; requests under way
	gone  bool          // guarded by the crowd's mu
}

// ListenHTTP listens on a TCP address. Requests must pass through Attend, within what lets them in.
func ListenHTTP(addr string, most int) (*Crowd, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Crowd{Listener: listener, most: most, from: make(map[netip.Addr]int), waiting: list.New(), room: make(chan struct{})}, nil
}

// Accept implements net.Listener.
func (c *Crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &guest{Conn: conn, crowd: c}
		if to, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && !to.Addr().IsLoopback() {
			g.from = to.Addr()
		}
		switch err := c.admit(g); {
		case err == nil:
			return g, nil
		case errors.Is(err, net.ErrClosed):
			conn.Close()
			return nil, err
		}
		conn.Close() // its host has its share
	}
}

var errShare = errors.New("l5/door: the host has its share of connections")

// admit finds a place for g: somebody else's, if need be. While all are busy it waits.
func (c *Crowd) admit(g *guest) error {
	for {
		c.mu.Lock()
		switch {
		case c.closed:
			c.mu.Unlock()
			return net.ErrClosed
		case g.from.IsValid() && c.from[g.from] >= max(c.most/4, 1):
			c.mu.Unlock()
			return errShare
		case c.size < c.most:
			c.size++
			if g.from.IsValid() {
				c.from[g.from]++
			}
			g.place = c.waiting.PushBack(g)
			c.mu.Unlock()
			return nil
		}
		oldest, room := c.waiting.Front(), c.room
		if oldest == nil {
			c.mu.Unlock()
			<-room
			continue
		}
		out := oldest.Value.(*guest)
		out.leave() // before a request of it gets its place
		c.mu.Unlock()
		out.Conn.Close()
	}
}

// change wakes those who wait for a place. Callers hold mu.
func (c *Crowd) change() {
	close(c.room)
	c.room = make(chan struct{})
}

// Close implements net.Listener.
func (c *Crowd) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.change()
	}
	c.mu.Unlock()
	if err := c.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.leave()
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

// leave gives g's place away. Callers hold the crowd's mu.
func (g *guest) leave() {
	if g.gone {
		return
	}
	c := g.crowd
	g.gone = true
	c.size--
	if c.from[g.from]--; c.from[g.from] <= 0 {
		delete(c.from, g.from)
	}
	g.rest(false)
	c.change()
}

// rest takes g from those who wait, or puts it behind them. Callers hold the crowd's mu.
func (g *guest) rest(wait bool) {
	if g.place != nil {
		g.crowd.waiting.Remove(g.place)
		g.place = nil
	}
	if wait && !g.gone {
		g.place = g.crowd.waiting.PushBack(g)
		g.crowd.change()
	}
}

// Attend keeps a connection of a Crowd in its place for as long as one of its requests is under way. Those who are not let
// in do not come so far: it stands behind the guard.
func Attend(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer attend(r.Context())()
		next.ServeHTTP(w, r)
	})
}

func attend(ctx context.Context) (end func()) {
	g, ok := transport.Conn(ctx).(*guest)
	if !ok {
		return func() {}
	}
	c := g.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	g.busy++
	g.rest(false)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if g.busy--; g.busy == 0 {
			g.rest(true)
		}
	}
}
