package agent_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

func route(t *testing.T, c *l5.Client, service string) string {
	t.Helper()
	r, err := c.Route(within(t), service)
	if err != nil {
		t.Fatal(err)
	}
	r.Done(l5.Outcome{Latency: time.Millisecond})
	return r.Addr()
}

// The table follows what is pushed, is linked to beside the socket, and says until when it was right.
func TestTableFollows(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	var config agent.Config
	a, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	c := l5test.Client(t, a.Target(), nil)
	route(t, c, "a")
	folder := table.For(config.Socket+".table", os.Geteuid())
	l5test.Await(t, "the table holds the service", func() bool {
		_, err := table.Find(folder, "test.caller", "a")
		return err == nil
	})
	if err := s.Name().SetShare(within(t), "a", map[string]int{"127.0.0.1:1": 30}); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the table holds the new share", func() bool {
		found, err := table.Find(folder, "test.caller", "a")
		return err == nil && found.View.Instances[0].GetShare() == 30
	})
	written, err := table.Find(folder, "test.caller", "a")
	if err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "it is confirmed although nothing changes", func() bool { return table.Confirmed(folder).After(written.Confirmed) })
	if target, err := os.Readlink(config.Socket + ".table"); err != nil || target != config.SnapshotFile+".table" {
		t.Errorf("the link beside the socket: %q, %v", target, err)
	}
	stop()
	if _, err := table.Find(folder, "test.caller", "a"); err != nil {
		t.Errorf("without the agent: %v", err)
	}
}

// A table that could not be written is written when it can be, although nothing changes any more.
func TestTableIsWrittenWhenItCanBe(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	var folder string
	metrics := prometheus.NewRegistry()
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) {
		c.Table, c.Metrics = t.TempDir(), metrics
		folder = table.For(c.Table, os.Geteuid())
		if err := os.WriteFile(folder, []byte("in the way"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	route(t, l5test.Client(t, a.Target(), nil), "a")
	l5test.Await(t, "a write has failed", func() bool {
		families, err := metrics.Gather()
		for _, f := range families {
			if f.GetName() == "zhiyun_l5_agent_table_write_failures_total" {
				return err == nil && f.GetMetric()[0].GetCounter().GetValue() > 0
			}
		}
		return false
	})
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the table is written", func() bool {
		_, err := table.Find(folder, "test.caller", "a")
		return err == nil
	})
}

// A file of 0.1.0, which held the routes, too, is read once; the routes are in the table afterwards.
func TestSnapshotOfFirstVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	data, err := agent.FormatSnapshot(&l5pb.AgentState{
		Device: "device-1", Verdicts: []*l5pb.Verdict{{Service: "a", Caller: "test.caller", Allowed: true}},
		Snapshots: []*l5pb.Snapshot{{Service: "a", Epoch: "e", Revision: 7, Instances: []*l5pb.Instance{{Addr: "127.0.0.1:1"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	edit := func(c *agent.Config) { c.SnapshotFile = file }
	nowhere := "unix:///nowhere/server.sock"
	a, stop := l5test.Agent(t, nowhere, edit)
	if got := route(t, l5test.Client(t, a.Target(), nil), "a"); got != "127.0.0.1:1" {
		t.Errorf("route to %s", got)
	}
	stop()
	if data, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	if state, err := agent.ParseSnapshot(data); err != nil || len(state.GetSnapshots()) != 0 || len(state.GetVerdicts()) != 1 {
		t.Errorf("the file holds %v, %v", state, err)
	}
	again, _ := l5test.Agent(t, nowhere, edit)
	if got := route(t, l5test.Client(t, again.Target(), nil), "a"); got != "127.0.0.1:1" {
		t.Errorf("route to %s", got)
	}
}

// A server that comes back without its records takes nobody down: not the agent that runs, nor one that starts from its
// table, nor a program that starts while both are away.
func TestEmptyReload(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	full := []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}, {Service: "a", Addr: "127.0.0.1:2", Share: 100}}
	if err := s.Name().Register(within(t), full); err != nil {
		t.Fatal(err)
	}
	var config agent.Config
	a, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	c := l5test.Client(t, a.Target(), nil)
	route(t, c, "a")
	s.Kill()
	empty := l5test.NewServer(t, nil)
	stop()
	config.Upstream = empty.Target()
	restarted, stop := l5test.Agent(t, "", func(c *agent.Config) { *c = config })
	if err := empty.Name().Register(within(t), []l5.Instance{{Service: "b", Addr: "127.0.0.1:3", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	late := l5test.Client(t, restarted.Target(), nil)
	route(t, late, "b") // the server's push arrives
	for _, c := range []*l5.Client{c, late} {
		route(t, c, "a")
		if got := len(c.Explain("a").Instances); got != 2 {
			t.Errorf("%d instances after an empty reload", got)
		}
	}
	stop()
	empty.Stop()
	cold := l5test.Client(t, restarted.Target(), nil)
	route(t, cold, "a")
}
