// Package viptest is the suite that every vip.VIP has to pass.
package viptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/internal/vip"
)

// Server is a real server that greets each connection with its address and then echoes lines.
type Server struct{ listener net.Listener }

// NewServer starts one on loopback, and stops it with the test.
func NewServer(t testing.TB) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{listener}
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer conn.Close()
				fmt.Fprintln(conn, s.Addr())
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintln(conn, lines.Text())
				}
			}()
		}
	}()
	t.Cleanup(s.Stop)
	return s
}

// Addr is where it listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Stop has it refuse connections; those that are open go on.
func (s *Server) Stop() { s.listener.Close() }

// Client is a connection through a virtual address.
type Client struct {
	net.Conn
	lines  *bufio.Scanner
	Server string // who greeted
}

// Connect opens a connection and reads the greeting.
func Connect(addr string) (*Client, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: conn, lines: bufio.NewScanner(conn)}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if !c.lines.Scan() {
		return nil, errors.Join(fmt.Errorf("no greeting: %w", errors.Join(c.lines.Err())), conn.Close())
	}
	c.Server = c.lines.Text()
	return c, nil
}

// Echo sends a line and reads it back.
func (c *Client) Echo(line string) error {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	if !c.lines.Scan() || c.lines.Text() != line {
		return fmt.Errorf("echo of %q: %q, %w", line, c.lines.Text(), errors.Join(c.lines.Err()))
	}
	return nil
}

// Run holds v to its promises, at a virtual address that has no real servers yet.
func Run(t *testing.T, v vip.VIP, addr string) {
	t.Run("weights", func(t *testing.T) { weights(t, v, addr) })
	t.Run("drain", func(t *testing.T) { drain(t, v, addr) })
	t.Run("refusing", func(t *testing.T) { refusing(t, v, addr) })
	t.Run("invalid", func(t *testing.T) { invalid(t, v, addr) })
}

func add(t *testing.T, v vip.VIP, addr string, s *Server, weight int) {
	t.Helper()
	if err := v.Add(t.Context(), addr, s.Addr(), weight); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, v vip.VIP, addr string, servers ...*Server) {
	t.Helper()
	for _, s := range servers {
		for range 2 { // the second changes nothing
			if err := v.Remove(t.Context(), addr, s.Addr()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := list(t, v, addr); len(left) > 0 {
		t.Fatalf("left: %+v", left)
	}
}

func list(t *testing.T, v vip.VIP, addr string) []vip.Server {
	t.Helper()
	servers, err := v.Servers(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	for i := range servers {
		servers[i].Total = 0
	}
	return servers
}

func find(t *testing.T, v vip.VIP, addr string, s *Server) vip.Server {
	t.Helper()
	servers := list(t, v, addr)
	i := slices.IndexFunc(servers, func(x vip.Server) bool { return x.Addr == s.Addr() })
	if i < 0 {
		return vip.Server{}
	}
	return servers[i]
}

func spread(t *testing.T, addr string, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		c, err := Connect(addr)
		if err != nil {
			t.Fatal(err)
		}
		counts[c.Server]++
		c.Close()
	}
	return counts
}

func weights(t *testing.T, v vip.VIP, addr string) {
	a, b := NewServer(t), NewServer(t)
	add(t, v, addr, a, 10)
	add(t, v, addr, b, 10)
	add(t, v, addr, b, 30)
	add(t, v, addr, b, 30)
	want := []vip.Server{{Addr: a.Addr(), Weight: 10, State: vip.Up}, {Addr: b.Addr(), Weight: 30, State: vip.Up}}
	slices.SortFunc(want, func(x, y vip.Server) int { return map[bool]int{true: -1, false: 1}[x.Addr < y.Addr] })
	if diff := cmp.Diff(want, list(t, v, addr)); diff != "" {
		t.Error(diff)
	}
	if counts := spread(t, addr, 40); counts[a.Addr()] < 8 || counts[a.Addr()] > 12 || counts[a.Addr()]+counts[b.Addr()] != 40 {
		t.Error(counts)
	}
	eventually(t, "no connection is counted", func() bool {
		return find(t, v, addr, a).Connections == 0 && find(t, v, addr, b).Connections == 0
	})
	remove(t, v, addr, a, b)
}

func drain(t *testing.T, v vip.VIP, addr string) {
	a := NewServer(t)
	add(t, v, addr, a, 10)
	held, err := Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	b := NewServer(t)
	add(t, v, addr, b, 10)
	removed := make(chan error, 1)
	go func() { removed <- v.Remove(t.Context(), addr, a.Addr()) }()
	eventually(t, "it drains", func() bool { return find(t, v, addr, a).State == vip.Draining })
	if counts := spread(t, addr, 10); counts[b.Addr()] != 10 {
		t.Error("new connections while it drains:", counts)
	}
	if err := held.Echo("still here"); err != nil {
		t.Error(err)
	}
	// Somebody who gives up waiting does not stop the draining.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Remove(gone, addr, a.Addr()); !errors.Is(err, context.Canceled) {
		t.Error("remove with a dead context:", err)
	}
	held.Close()
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if s := find(t, v, addr, a); s.Addr != "" {
		t.Errorf("still there: %+v", s)
	}
	remove(t, v, addr, b)
}

func refusing(t *testing.T, v vip.VIP, addr string) {
	a, b := NewServer(t), NewServer(t)
	a.Stop()
	add(t, v, addr, a, 10)
	add(t, v, addr, b, 10)
	if counts := spread(t, addr, 20); counts[b.Addr()] != 20 {
		t.Error(counts)
	}
	remove(t, v, addr, a, b)
}

func invalid(t *testing.T, v vip.VIP, addr string) {
	for _, call := range []struct {
		server string
		weight int
	}{{"nowhere", 1}, {"127.0.0.1:0", 1}, {"127.0.0.1:http", 1}, {":80", 1}, {"127.0.0.1:80", 0}, {"127.0.0.1:80", 257}} {
		if err := v.Add(t.Context(), addr, call.server, call.weight); !errors.Is(err, vip.ErrInvalid) {
			t.Errorf("add %v: %v", call, err)
		}
	}
	if servers, err := v.Servers(t.Context(), "127.0.0.1:1"); err != nil || len(servers) != 0 {
		t.Error("an unknown virtual address:", servers, err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("never happened:", what)
		}
	}
}
