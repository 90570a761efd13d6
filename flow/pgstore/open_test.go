package pgstore_test

import (
	"net"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow/pgstore"
)

// A PostgreSQL that goes away while a store is opened, as in a restart, breaks the connection: the error says that it is worth another try.
func TestOpenWhileItRestarts(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			conn.Close()
		}
	}()
	defer func() { listener.Close(); <-done }()
	store, err := pgstore.Open(t.Context(), "postgres://zhiyun@"+listener.Addr().String()+"/flows?sslmode=disable")
	if err == nil {
		store.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "try again when it answers") {
		t.Errorf("open: %v", err)
	}
}
