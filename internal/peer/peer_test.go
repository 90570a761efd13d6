package peer_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/peer"
)

func TestTheKernelNamesThePeer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	who, err := peer.Of(server)
	if err != nil || int(who.UID) != os.Getuid() || who.PID != os.Getpid() {
		t.Errorf("the peer is %+v, %v; want user %d, process %d", who, err, os.Getuid(), os.Getpid())
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := peer.Of(a); !errors.Is(err, peer.ErrNotUnix) {
		t.Errorf("a pipe has the peer %v", err)
	}
}
