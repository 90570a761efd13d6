package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The daemon takes an order over its socket, keeps it over a restart, and ends when told to.
func TestDaemon(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gray") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for round := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- run(ctx, []string{"-listen", socket, "-data", filepath.Join(dir, "data"), "-haproxy", filepath.Join(dir, "none")})
		}()
		open(t, socket, ended)
		if round == 0 {
			text := call(t, client, http.MethodPost, "http://gray/rollouts", `{"id":"r","service":"shop.cart","new":[{"id":"new1","cores":8}]}`)
			if !strings.Contains(text, `"queued"`) {
				t.Errorf("start answered %s", text)
			}
		}
		if text := call(t, client, http.MethodGet, "http://gray/rollouts/r", ""); !strings.Contains(text, `"created"`) {
			t.Errorf("round %d: get answered %s", round, text)
		}
		if text := call(t, client, http.MethodPost, "http://gray/rollouts/none/abort", `{"actor":"li"}`); !strings.Contains(text, "no such rollout") {
			t.Errorf("abort of none answered %s", text)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// open waits until the socket is there, or the daemon ends.
func open(t *testing.T, socket string, ended chan error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		select {
		case err := <-ended:
			t.Fatalf("the daemon ended: %v", err)
		case <-time.After(5 * time.Millisecond): // between two looks: a socket has no other sign
		}
		if _, err := os.Stat(socket); err == nil {
			return
		}
	}
	t.Fatal("the daemon did not open its socket")
}

func call(t *testing.T, client *http.Client, method, url, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
