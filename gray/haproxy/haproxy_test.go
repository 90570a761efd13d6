package haproxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/gray/haproxy"
)

// start runs a real HAProxy with one backend of three servers, and returns its stats socket.
func start(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("haproxy is not installed; apt-get install haproxy")
		}
		t.Skip("haproxy is not installed; apt-get install haproxy to run this test")
	}
	dir, err := os.MkdirTemp("", "haproxy") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	text := fmt.Sprintf(`global
    stats socket %s mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
backend shop.cart
    server old1 127.0.0.1:1 weight 100
    server old2 127.0.0.1:2 weight 50
    server new1 127.0.0.1:3 weight 100
`, socket)
	file := filepath.Join(dir, "cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "-db", "-f", file)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() { command.Process.Kill(); <-ended })
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("haproxy ended: %v\n%s", err, out.String())
		case <-time.After(10 * time.Millisecond): // between two looks at a process that has no other sign
		}
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
	}
	t.Fatalf("haproxy did not open its socket")
	return ""
}

func TestSharesInARealHAProxy(t *testing.T) {
	t.Parallel()
	w, err := haproxy.New(haproxy.Config{Socket: start(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetShares(t.Context(), "shop.cart", map[string]int{"new1": 0, "old2": 50, "gone": 10}, 5); err != nil {
		t.Fatal(err)
	}
	got, err := w.Shares(t.Context(), "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"old1": 100, "old2": 50, "new1": 0}, got); diff != "" {
		t.Errorf("shares (-want +got):\n%s", diff)
	}
	if err := w.SetShares(t.Context(), "shop.cart", map[string]int{"new1": 10}, 6); err != nil {
		t.Fatal(err)
	}
	if got, _ = w.Shares(t.Context(), "shop.cart"); got["new1"] != 10 {
		t.Errorf("share is %d, want 10", got["new1"])
	}
	if err := w.SetShares(t.Context(), "shop.cart", map[string]int{"new1": 50}, 5); !errors.Is(err, haproxy.ErrFence) {
		t.Errorf("an old leader's order: %v, want ErrFence", err)
	}
	if _, err := w.Shares(t.Context(), "nothing"); err == nil || !strings.Contains(err.Error(), "backend") {
		t.Errorf("an unknown backend: %v", err)
	}
	if _, err := w.Shares(t.Context(), "x; shutdown"); err == nil {
		t.Error("a second command was let through")
	}
}

func TestHAProxyAway(t *testing.T) {
	t.Parallel()
	w, err := haproxy.New(haproxy.Config{Socket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Shares(t.Context(), "shop.cart"); err == nil {
		t.Error("no error without HAProxy")
	}
	if _, err := haproxy.New(haproxy.Config{}); err == nil {
		t.Error("no error without Socket")
	}
}
