package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/server"
)

// lines is a log that tells when a text has come.
type lines struct {
	mu    sync.Mutex
	text  bytes.Buffer // guarded by mu
	wrote chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// A server with a private CA that wants client certificates is reached by verbs and by agents that bring theirs, and by
// nobody else.
func TestVerbsAndAgentsTalkTLS(t *testing.T) {
	dir, err := os.MkdirTemp("", "zt") // sockets stand in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if _, err := certs.Make(filepath.Join(dir, "tls"), []string{"127.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, "tls", name) }
	log := &lines{wrote: make(chan struct{}, 1)}
	s, err := server.New(server.Config{
		Dir: filepath.Join(dir, "s"), Exe: "/bin/false", Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(log, nil)),
		CertFile: file("127.0.0.1.pem"), KeyFile: file("127.0.0.1-key.pem"), ClientCAFile: file("ca.pem"),
		CAFile: file("ca.pem"), CAKeyFile: file("ca-key.pem"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var daemons sync.WaitGroup
	t.Cleanup(daemons.Wait)
	t.Cleanup(cancel)
	daemons.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	patience := time.After(time.Minute)
	select {
	case <-s.Ready():
	case <-patience:
		t.Fatal("the server is not ready after a minute")
	}
	call := []string{"device", "counts", "--server", "https://" + s.Addr(), "--token-file", filepath.Join(dir, "s", "token")}
	if out, err := run(t, call...); err == nil {
		t.Errorf("an unknown CA was trusted: %s", out)
	}
	call = append(call, "--ca", file("ca.pem"))
	if out, err := run(t, call...); err == nil {
		t.Errorf("no client certificate was needed: %s", out)
	}
	call = append(call, "--client-cert", file("127.0.0.1.pem"), "--client-key", file("127.0.0.1-key.pem"))
	if out, err := run(t, call...); err != nil || !strings.Contains(out, "IDLE") {
		t.Errorf("with CA and certificate: %v %s", err, out)
	}

	// The device has nothing but a token, not even the CA: what it is exchanged for is all that it needs.
	token := filepath.Join(dir, "d1.enrol")
	text, err := run(t, "token", "enrol", "d1", "--server", "unix://"+filepath.Join(dir, "s", "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte(text[strings.Index(text, "zy2."):]), 0o600); err != nil {
		t.Fatal(err)
	}
	daemons.Go(func() {
		err := agent.Run(ctx, agent.Config{
			Device: "d1", Addr: "127.0.0.1", Root: filepath.Join(dir, "d1"), Server: "https://" + s.Addr(), Enrol: "@" + token,
		})
		if err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	for !log.has("worker connected") {
		select {
		case <-log.wrote:
		case <-patience:
			t.Fatal("the agent has not connected within a minute")
		}
	}
}
