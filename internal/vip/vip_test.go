package vip_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/vip"
	"github.com/zhiyun-ops/zhiyun/internal/vip/viptest"
)

func proxy(t testing.TB, config vip.ProxyConfig) *vip.Proxy {
	t.Helper()
	p, err := vip.NewProxy(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := p.Add(context.Background(), "127.0.0.1:1", "127.0.0.1:1", 1); !errors.Is(err, vip.ErrClosed) {
			t.Error("add after the end:", err)
		}
	})
	return p
}

func TestProxy(t *testing.T) {
	t.Parallel()
	viptest.Run(t, proxy(t, vip.ProxyConfig{Quiet: time.Hour}), addrtest.Free(t))
}

func TestHAProxy(t *testing.T) {
	t.Parallel()
	exe, err := exec.LookPath("haproxy")
	if err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("haproxy is not installed; apt-get install haproxy")
		}
		t.Skip("haproxy is not installed; apt-get install haproxy to run this test")
	}
	dir, err := os.MkdirTemp("", "zy") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, addr := filepath.Join(dir, "admin.sock"), addrtest.Free(t)
	config := `
global
  stats socket ` + socket + ` mode 600 level admin
defaults
  mode tcp
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch 1
frontend front
  bind ` + addr + `
  default_backend ` + strings.NewReplacer(".", "_", ":", "_").Replace(addr) + `
backend ` + strings.NewReplacer(".", "_", ":", "_").Replace(addr) + `
  balance roundrobin
`
	path := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-f", path, "-db")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	driver, err := vip.NewHAProxy(vip.HAProxyConfig{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	limit, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = driver.Servers(t.Context(), addr); err == nil {
			break
		}
		select {
		case <-limit:
			t.Fatal("haproxy did not come up: ", err)
		case <-tick.C:
		}
	}
	viptest.Run(t, driver, addr)

	// A removed server's sessions are ended when their time is over.
	hasty, err := vip.NewHAProxy(vip.HAProxyConfig{Socket: socket, Drain: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	endsWhatGoesOn(t, hasty, addr)

	// With a check among the options, HAProxy itself finds out who does not answer.
	checked, err := vip.NewHAProxy(vip.HAProxyConfig{Socket: socket, Options: "check inter 50ms fall 1 rise 1"})
	if err != nil {
		t.Fatal(err)
	}
	live, dead := viptest.NewServer(t), viptest.NewServer(t)
	dead.Stop()
	for _, server := range []*viptest.Server{live, dead} {
		if err := checked.Add(t.Context(), addr, server.Addr(), 1); err != nil {
			t.Fatal(err)
		}
	}
	states := map[string]vip.State{}
	for deadline := time.Now().Add(time.Minute); states[live.Addr()] != vip.Up || states[dead.Addr()] != vip.Down; {
		servers, err := checked.Servers(t.Context(), addr)
		if err != nil || time.Now().After(deadline) {
			t.Fatal(servers, err)
		}
		for _, server := range servers {
			states[server.Addr] = server.State
		}
	}
	for _, server := range []*viptest.Server{live, dead} {
		if err := checked.Remove(t.Context(), addr, server.Addr()); err != nil {
			t.Error(err)
		}
	}

	if err := driver.Add(t.Context(), "shop.unknown:80", "127.0.0.1:80", 1); !errors.Is(err, vip.ErrUnknownVIP) {
		t.Error("no backend:", err)
	}
	if err := driver.Remove(t.Context(), "shop.unknown:80", "127.0.0.1:80"); !errors.Is(err, vip.ErrUnknownVIP) {
		t.Error("no backend:", err)
	}
	var refused *vip.CommandError
	odd, err := vip.NewHAProxy(vip.HAProxyConfig{Socket: socket, Options: "no-such-option"})
	if err != nil {
		t.Fatal(err)
	}
	if err := odd.Add(t.Context(), addr, "127.0.0.1:80", 1); !errors.As(err, &refused) {
		t.Error("a bad option:", err)
	}
}

// endsWhatGoesOn removes a server from which a client does not part.
func endsWhatGoesOn(t *testing.T, v vip.VIP, addr string) {
	t.Helper()
	server := viptest.NewServer(t)
	if err := v.Add(t.Context(), addr, server.Addr(), 1); err != nil {
		t.Fatal(err)
	}
	client, err := viptest.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := v.Remove(t.Context(), addr, server.Addr()); err != nil {
		t.Error(err)
	}
	if err := client.Echo("anybody there?"); err == nil {
		t.Error("the connection outlived the drain")
	}
}

func TestProxyEndsWhatGoesOnForTooLong(t *testing.T) {
	t.Parallel()
	endsWhatGoesOn(t, proxy(t, vip.ProxyConfig{Drain: 100 * time.Millisecond, Quiet: time.Hour}), addrtest.Free(t))
}

// A connection kept alive between requests must not hold up a contraction.
func TestProxyEndsQuietConnectionsOfARemovedServer(t *testing.T) {
	t.Parallel()
	endsWhatGoesOn(t, proxy(t, vip.ProxyConfig{Drain: time.Hour, Quiet: 50 * time.Millisecond}), addrtest.Free(t))
}

func TestProxyClosesTheAddressWithItsLastServer(t *testing.T) {
	t.Parallel()
	p, addr := proxy(t, vip.ProxyConfig{}), addrtest.Free(t)
	server := viptest.NewServer(t)
	if err := p.Add(t.Context(), addr, server.Addr(), 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(t.Context(), addr, server.Addr()); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("the address is still open")
	}
}

func TestProxyTriesAgainWhatRefused(t *testing.T) {
	t.Parallel()
	p, addr := proxy(t, vip.ProxyConfig{MinDown: 10 * time.Millisecond}), addrtest.Free(t)
	back := addrtest.Free(t) // nobody listens there yet
	if err := p.Add(t.Context(), addr, back, 1); err != nil {
		t.Fatal(err)
	}
	if c, err := viptest.Connect(addr); err == nil {
		c.Close()
		t.Fatal("somebody answered")
	}
	servers, err := p.Servers(t.Context(), addr)
	if err != nil || len(servers) != 1 || servers[0].State != vip.Down {
		t.Error(servers, err)
	}
	listener, err := net.Listen("tcp", back)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("back\n"))
			conn.Close()
		}
	}()
	c, err := viptest.Connect(addr) // the only one is tried however long it was down
	if err != nil || c.Server != "back" {
		t.Fatal(c, err)
	}
	c.Close()
}

func TestProxySaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := vip.NewProxy(vip.ProxyConfig{Drain: -1, Quiet: -1}); !errors.Is(err, vip.ErrInvalid) || !strings.Contains(err.Error(), "Drain") || !strings.Contains(err.Error(), "Quiet") {
		t.Error(err)
	}
	if _, err := vip.NewHAProxy(vip.HAProxyConfig{Options: "check;del server", Drain: -1}); !errors.Is(err, vip.ErrInvalid) ||
		!strings.Contains(err.Error(), "Socket") || !strings.Contains(err.Error(), "Options") || !strings.Contains(err.Error(), "Drain") {
		t.Error(err)
	}
	p := proxy(t, vip.ProxyConfig{})
	if err := p.Add(t.Context(), "192.0.2.1:80", "127.0.0.1:80", 1); err == nil || !strings.Contains(err.Error(), "address of this machine") {
		t.Error("an address of another machine:", err)
	}
	if err := p.Add(t.Context(), "nowhere", "127.0.0.1:80", 1); !errors.Is(err, vip.ErrInvalid) {
		t.Error(err)
	}
}

// BenchmarkProxy carries a line there and back, over a connection that is open.
func BenchmarkProxy(b *testing.B) {
	b.ReportAllocs()
	p, addr, server := proxy(b, vip.ProxyConfig{}), addrtest.Free(b), viptest.NewServer(b)
	if err := p.Add(b.Context(), addr, server.Addr(), 1); err != nil {
		b.Fatal(err)
	}
	client, err := viptest.Connect(addr)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for b.Loop() {
		if err := client.Echo("hello"); err != nil {
			b.Fatal(err)
		}
	}
}
