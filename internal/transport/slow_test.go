package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// A body that does not arrive ends the request; a stream that has begun may be silent, and a handler may take its time.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	const within = time.Second
	type seen struct {
		n   int
		err error
		ctx error // once the handler has waited for longer than a body may take
	}
	handled := make(chan seen, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var s seen
		buffer := make([]byte, 3)
		s.n, s.err = io.ReadFull(r.Body, buffer)
		if s.err == nil {
			timer := time.NewTimer(3 * within)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				s.ctx = r.Context().Err()
			}
		}
		handled <- s
	})
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = transport.NewServerWithin(handler, within, time.Minute).Serve(ctx, listener, time.Millisecond)
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	for _, test := range []struct {
		name, kind, body string // of a body of 3 bytes at least, of which body arrives
		whole            bool   // the body ends there
		cut              bool
	}{
		{"a unary call that stalls", "application/proto", "ab", false, true},
		{"a stream that never begins", "application/connect+proto", "", false, true},
		{"a stream that falls silent", "application/connect+proto", "abc", false, false},
		{"a whole body and a handler that takes its time", "application/proto", "abc", true, false},
	} {
		for _, version := range []string{"h1", "h2"} {
			client, base, err := transport.Dial(transport.DialConfig{Target: "unix://" + socket})
			if err != nil {
				t.Fatal(err)
			}
			if version == "h1" {
				client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "unix", socket)
				}}}
			}
			reader, writer := io.Pipe()
			call, stop := context.WithTimeout(t.Context(), time.Minute)
			request, err := http.NewRequestWithContext(call, http.MethodPost, base+"/x", reader)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", test.kind)
			var calling sync.WaitGroup
			calling.Go(func() {
				if response, err := client.Do(request); err == nil {
					response.Body.Close()
				}
			})
			if _, err := io.Copy(writer, strings.NewReader(test.body)); err != nil {
				t.Errorf("%s, %s: %v", test.name, version, err)
			}
			if test.whole {
				writer.Close()
			}
			got := <-handled
			if (got.err != nil) != test.cut || got.ctx != nil || got.n != len(test.body) {
				t.Errorf("%s, %s: read %d bytes, %v, then %v; want it cut: %v", test.name, version, got.n, got.err, got.ctx, test.cut)
			}
			writer.CloseWithError(errors.New(fmt.Sprint("over: ", test.name)))
			stop()
			calling.Wait()
			client.CloseIdleConnections()
		}
	}
}
