package door

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// CheckListen reports what is wrong with an address to listen on. Unless anyone may connect it must be of loopback.
func CheckListen(addr string, anyone bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w; give host:port or [host]:port", addr, err)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "localhost":
		return nil
	case anyone && (host == "" || err == nil):
		return nil
	case err != nil:
		return fmt.Errorf("address %q: %w; give an IP address and a port", addr, err)
	case !ip.IsLoopback():
		return fmt.Errorf("address %q is not of loopback: the door tells whoever reaches it where services are; set Anyone if that is meant", addr)
	}
	return nil
}

// Listen listens on a TCP address and accepts no more than most connections at a time: others wait in the kernel's queue.
func Listen(addr string, most int) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return Limit(listener, most), nil
}

// Limit makes listener accept no more than most connections at a time.
func Limit(listener net.Listener, most int) net.Listener {
	return &limited{Listener: listener, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

type counted struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
