package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestSocket(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	var config agent.Config
	_, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	info, err := os.Stat(config.Socket)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("socket: %v, %v; want mode 0600", info.Mode(), err)
	}
	second, err := agent.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(within(t)); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Errorf("a second agent on the socket: %v", err)
	}
	stop()
	if _, err := os.Stat(config.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if err := os.WriteFile(config.Socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	third, err := agent.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Run(within(t)); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the socket's place: %v", err)
	}
}

func TestConfigNamesAllFaults(t *testing.T) {
	t.Parallel()
	_, err := agent.New(agent.Config{Socket: "relative", SnapshotFile: "relative", Linger: -1})
	for _, want := range []string{"Upstream", "Device", "Socket", "SnapshotFile", "Linger"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// A program that dies without a word is gone for callers after the local grace; its agent noticed.
func TestProgramDies(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { c.LocalGrace = 50 * time.Millisecond })
	config := l5.Config{Target: a.Target(), Caller: "shop.cart"}
	program, err := l5.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, die := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() { ended <- program.Run(ctx) }()
	if _, err := program.Register(within(t), "shop.cart", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if got := s.Name().Instances("shop.cart"); len(got) != 1 || got[0].Owner != "device-1" || got[0].Module != "shop.cart" {
		t.Errorf("registered: %+v", got)
	}
	die()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the instance is removed", func() bool { return len(s.Name().Instances("shop.cart")) == 0 })
}

// A snapshot file that is damaged is no reason not to start.
func TestDamagedSnapshot(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	if err := os.WriteFile(file, []byte("zhiyun-l5-snapshot 1\nrubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { c.SnapshotFile = file })
	if err := a.Register(within(t), l5.Instance{Service: "a", Addr: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	stop()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	state, err := agent.ParseSnapshot(data)
	if err != nil || len(state.GetRegistrations()) != 1 {
		t.Errorf("the file was not written anew: %v, %v", state, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".l5-snapshot-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
}

// A snapshot file that no agent wrote, of any size, is not read: it would fill the memory.
func TestHugeSnapshot(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<40); err != nil {
		t.Skip(err) // the file system has no holes
	}
	a, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { c.SnapshotFile = file })
	if err := a.Register(within(t), l5.Instance{Service: "a", Addr: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	stop()
	if info, err := os.Stat(file); err != nil || info.Size() > 1<<20 {
		t.Errorf("the file was not written anew: %v", err)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	t.Parallel()
	state := sampleState()
	data, err := agent.FormatSnapshot(state)
	if err != nil {
		t.Fatal(err)
	}
	got, err := agent.ParseSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 0x10
		if _, err := agent.ParseSnapshot(damaged); !errors.Is(err, agent.ErrSnapshot) {
			t.Fatalf("a file with byte %d changed: %v", i, err)
		}
		if _, err := agent.ParseSnapshot(data[:i]); !errors.Is(err, agent.ErrSnapshot) {
			t.Fatalf("a file cut at byte %d: %v", i, err)
		}
	}
}

func sampleState() *l5pb.AgentState {
	return &l5pb.AgentState{
		Device: "d", WrittenAt: 1, Verdicts: []*l5pb.Verdict{{Service: "a", Caller: "c", Allowed: true}},
		Snapshots:     []*l5pb.Snapshot{{Service: "a", Epoch: "e", Revision: 7, Instances: []*l5pb.Instance{{Addr: "[::1]:80"}}}},
		Registrations: []*l5pb.Instance{{Service: "b", Addr: "127.0.0.1:1"}},
	}
}

func FuzzParseSnapshot(f *testing.F) {
	data, err := agent.FormatSnapshot(sampleState())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("zhiyun-l5-snapshot 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := agent.ParseSnapshot(data)
		if err != nil {
			if !errors.Is(err, agent.ErrSnapshot) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if _, err := agent.FormatSnapshot(state); err != nil {
			t.Errorf("what was parsed cannot be written: %v", err)
		}
	})
}
