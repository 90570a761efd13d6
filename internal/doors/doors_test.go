package doors_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/internal/doors"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// An agent with all doors open answers at each of them.
func TestAllDoors(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		backend.Close()
		<-served
	})
	at := backend.Addr().String()
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: at, Share: 100}}); err != nil {
		t.Fatal(err)
	}
	socket, token := filepath.Join(s.Dir(), "agent.sock"), filepath.Join(t.TempDir(), "token")
	open := doors.Config{
		DNS: addrtest.Free(t), SD: addrtest.Free(t), XDS: "unix://" + filepath.Join(s.Dir(), "xds.sock"), JSON: addrtest.Free(t), TokenFile: token, Proxy: "shop.cart=" + addrtest.Free(t),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- doors.Serve(ctx, agent.Config{Upstream: s.Target(), Device: "device-1", Socket: socket}, open)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	get := func(client *http.Client, url, token string) string {
		request, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}
	l5test.Await(t, "DNS", func() bool {
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, open.DNS)
		}}
		got, err := resolver.LookupHost(t.Context(), "shop.cart.l5.")
		return err == nil && len(got) == 1 && got[0] == "127.0.0.1"
	})
	l5test.Await(t, "service discovery", func() bool {
		return strings.Contains(get(http.DefaultClient, "http://"+open.SD+"/sd?service=shop.cart", ""), at)
	})
	l5test.Await(t, "JSON on loopback", func() bool {
		secret, err := os.ReadFile(token)
		return err == nil && strings.Contains(get(http.DefaultClient, "http://"+open.JSON+"/v1/services/shop.cart", strings.TrimSpace(string(secret))), at)
	})
	unix := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(unix.CloseIdleConnections)
	l5test.Await(t, "JSON on the agent's socket", func() bool {
		return strings.Contains(get(unix, "http://l5/v1/services/shop.cart", ""), at)
	})
	l5test.Await(t, "the TCP address", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(open.Proxy, "shop.cart="))
		if err != nil {
			return false
		}
		defer conn.Close()
		text, err := io.ReadAll(conn)
		return err == nil && string(text) == "hello"
	})
	l5test.Await(t, "xDS", func() bool {
		conn, err := net.Dial("unix", strings.TrimPrefix(open.XDS, "unix://"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	readable := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(readable, []byte("0123456789abcdef"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config doors.Config
		want   string
	}{
		"off loopback":          {doors.Config{DNS: "10.0.0.1:53", SD: "10.0.0.2:80"}, "10.0.0.2"},
		"JSON without a token":  {doors.Config{JSON: "127.0.0.1:0"}, "--json-token-file"},
		"a token all can read":  {doors.Config{JSON: "127.0.0.1:0", TokenFile: readable}, "chmod 600"},
		"a proxy without names": {doors.Config{Proxy: "127.0.0.1:80"}, "SERVICE=ADDRESS"},
	} {
		a, err := agent.New(agent.Config{Upstream: "unix:///tmp/none", Device: "d", Socket: "/tmp/none.sock"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := doors.New(a, c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", name, err, c.want)
		}
	}
}
