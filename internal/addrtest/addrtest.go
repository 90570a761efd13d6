// Package addrtest gives tests addresses of their own. Packages are tested at the same time on one machine: a port of 127.0.0.1 that was free a moment ago,
// or that a test gave up for a while, may be somebody else's by the time that it is wanted.
package addrtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
)

// Host is an address of this machine that no other test has, drawn by chance. All of its ports are the test's, whether or not it listens on them. Where the
// system has no more than one address for itself, it is that.
func Host() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 224+rand.IntN(31), rand.IntN(256), 1+rand.IntN(254))
}

// Free is an address and a port on a Host. Nobody listens there, or will but the test.
func Free(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(Host(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
