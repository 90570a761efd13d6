package auth_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// A stream with a connection to itself is let through as any other, and ends with its credential too, although its handler
// does nothing but wait for the peer.
func TestADirectStreamIsGuarded(t *testing.T) {
	t.Parallel()
	k := newBook()
	ended := make(chan error, 1)
	guard := &auth.Guard{
		Verifier: k, Allow: func(auth.Identity, *http.Request) error { return nil }, Conn: transport.Conn, Recheck: time.Millisecond,
	}
	handler := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, _ := auth.From(r.Context()); id.Name != "d-01" {
			t.Errorf("%v calls", id)
		}
		w.WriteHeader(http.StatusOK)
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = transport.NewServer(handler).Serve(ctx, listener, time.Second) })
	t.Cleanup(func() { cancel(); serving.Wait() })
	open := func(token string) *http.Response {
		client, base, err := transport.Dial(transport.DialConfig{Target: "http://" + listener.Addr().String(), Token: token, Direct: []string{"/x"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.CloseIdleConnections)
		body, writer := io.Pipe()
		t.Cleanup(func() { writer.Close() })
		response, err := client.Post(base+"/x", "application/connect+proto", body)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		return response
	}
	if got := open(auth.NewToken().String()); got.StatusCode != http.StatusOK || got.Header.Get("Www-Authenticate") == "" {
		t.Errorf("a token of nobody: %s, %v", got.Status, got.Header)
	}
	if got := open(k.issue(auth.Agent, "d-01")); got.StatusCode != http.StatusOK {
		t.Fatal(got.Status)
	}
	k.burn()
	if err := <-ended; err == nil {
		t.Error("the peer has ended the stream, it seems")
	}
}
