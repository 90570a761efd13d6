package transport_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// serve answers with a name, or as handler says, until stop is called.
func serve(t *testing.T, handler http.HandlerFunc) (target string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- transport.NewServer(handler).Serve(ctx, listener, time.Millisecond) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	return "http://" + listener.Addr().String(), stop
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }
}

func TestSeveralTargets(t *testing.T) {
	t.Parallel()
	a, stopA := serve(t, named("a"))
	b, _ := serve(t, named("b"))
	busy, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	ended, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/connect+proto") // a stream, which ends at once
	})
	ask := func(client *http.Client, base string) string {
		response, err := client.Get(base)
		if err != nil {
			return "error"
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return "error"
		}
		return string(body)
	}
	for name, test := range map[string]struct {
		targets string
		want    string // in the end
	}{
		"one that is busy":        {busy + "," + b, "b"},
		"one that ends streams":   {ended + ", " + b, "b"},
		"three, two of no use":    {busy + "," + ended + "," + b, "b"},
		"nobody listens at first": {"http://127.0.0.1:1," + b, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, base, err := transport.Dial(transport.DialConfig{Target: test.targets})
			if err != nil {
				t.Fatal(err)
			}
			defer client.CloseIdleConnections()
			for range 3 {
				ask(client, base)
			}
			for range 3 { // and there it stays
				if got := ask(client, base); got != test.want {
					t.Errorf("answered by %q, want %q", got, test.want)
				}
			}
		})
	}
	client, base, err := transport.Dial(transport.DialConfig{Target: a + "," + b})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if got := ask(client, base); got != "a" && got != "b" {
		t.Errorf("answered by %q", got)
	}
	stopA()
	ask(client, base)
	if got := ask(client, base); got != "b" {
		t.Errorf("after one died: %q", got)
	}
	_, _, err = transport.Dial(transport.DialConfig{Target: "http://example.com," + a + ",ftp://x"})
	if err == nil || !strings.Contains(err.Error(), "example.com") || !strings.Contains(err.Error(), "ftp") {
		t.Errorf("the error %v does not name both", err)
	}
}
