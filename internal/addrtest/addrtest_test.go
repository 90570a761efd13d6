package addrtest_test

import (
	"net"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
)

// An address stays the test's while nobody listens there.
func TestFree(t *testing.T) {
	t.Parallel()
	addr := addrtest.Free(t)
	for range 3 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("somebody listens at %s", addr)
		}
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}
}
