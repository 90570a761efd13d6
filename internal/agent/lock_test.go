package agent_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
)

// A second agent on a root must not take, or remove, the sockets of the first.
func TestTheSecondAgentOfARootIsRefused(t *testing.T) {
	t.Parallel()
	root, err := os.MkdirTemp("", "za") // short: sockets stand below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	config := agent.Config{Device: "d1", Addr: "127.0.0.1", Root: root, Server: "unix://" + filepath.Join(root, "absent.sock")}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, config) }()
	socket := filepath.Join(root, "run", "device.sock")
	reach := func() error {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); reach() != nil; {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("the agent ended: %v", err)
		case <-limit:
			t.Fatal("the agent's socket is not there after a minute")
		}
	}
	if err := agent.Run(ctx, config); !errors.Is(err, agent.ErrRunning) {
		t.Errorf("the second agent: %v, want ErrRunning", err)
	}
	if err := reach(); err != nil {
		t.Errorf("the first agent's socket: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the first agent: %v", err)
	}
	// The lock went with it.
	again, stop := context.WithCancel(t.Context())
	stop()
	if err := agent.Run(again, config); err != nil {
		t.Errorf("the next agent: %v", err)
	}
}
