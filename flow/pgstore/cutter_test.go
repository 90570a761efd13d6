package pgstore_test

import (
	"bytes"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// cutter stands between a store and the database, and breaks the connection that commits: after the database has answered, or before it was asked.
type cutter struct {
	dsn   string
	armed atomic.Int32 // 1: cut the answer, 2: cut the question
	fired atomic.Bool
}

func newCutter(t *testing.T, dsn string) *cutter {
	t.Helper()
	target, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, socket := &cutter{}, filepath.Join(target.Query().Get("host"), ".s.PGSQL.5432")
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				conn.Close()
				continue
			}
			group.Go(func() { c.carry(conn, server) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		group.Wait()
	})
	target.Host = listener.Addr().String()
	target.RawQuery = "sslmode=disable"
	c.dsn = target.String()
	return c
}

func (c *cutter) next(stored bool) {
	if stored {
		c.armed.Store(1)
	} else {
		c.armed.Store(2)
	}
}

func (c *cutter) done() bool { return c.fired.Load() }

// carry copies both ways until one side ends, or the cut.
func (c *cutter) carry(client, server net.Conn) {
	var answer atomic.Bool // the next answer is lost
	var group sync.WaitGroup
	end := func() { client.Close(); server.Close() }
	group.Go(func() {
		defer end()
		buffer := make([]byte, 1<<20)
		for {
			n, err := client.Read(buffer)
			if err != nil {
				return
			}
			if bytes.Contains(buffer[:n], []byte("execution.started")) { // the body of a record: a commit
				switch {
				case c.armed.CompareAndSwap(2, 0):
					c.fired.Store(true)
					return
				case c.armed.CompareAndSwap(1, 0):
					answer.Store(true)
				}
			}
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	group.Go(func() {
		defer end()
		buffer := make([]byte, 1<<20)
		for {
			n, err := server.Read(buffer)
			if err != nil && n == 0 {
				return
			}
			if answer.Load() {
				c.fired.Store(true)
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	group.Wait()
}
