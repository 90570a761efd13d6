package l5_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// With server and agent both dead, a new process routes by the table; when they are back, their word counts.
func TestColdRoute(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	var config agent.Config
	_, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	target := "unix://" + config.Socket
	warm := l5test.Client(t, target, nil)
	route(t, warm, "a")
	stop()
	s.Stop()

	c := l5test.Client(t, target, nil)
	route(t, c, "a")
	e := c.Explain("a")
	if e.Source != l5.SourceTable || len(e.Instances) != 3 || e.Revision != warm.Explain("a").Revision || e.Age < 0 || e.Age > time.Minute {
		t.Errorf("explained: source %v, age %v, %d instances", e.Source, e.Age, len(e.Instances))
	}
	idle, err := l5.New(l5.Config{Target: target, Caller: "test.caller"})
	if err != nil {
		t.Fatal(err)
	}
	route(t, idle, "a") // before Run, too

	if known, _, err := idle.Follow(within(t), "a"); err != nil || len(known.Instances) != 3 {
		t.Errorf("followed: %d instances, %v", len(known.Instances), err)
	}

	// Who holds no grant, and what nobody called, is not in it.
	for _, ask := range []struct{ caller, service string }{{"stranger", "a"}, {"test.caller", "b"}} {
		other := l5test.Client(t, target, func(c *l5.Config) { c.Caller = ask.caller })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := other.Route(ctx, ask.service); err == nil {
			t.Errorf("%s -> %s was routed", ask.caller, ask.service)
		}
		cancel()
	}

	// The agent is back without the server: it serves what it kept. Then the server is back, too.
	l5test.Agent(t, s.Target(), func(c *agent.Config) { *c = config })
	l5test.Await(t, "the agent's word counts", func() bool { return c.Explain("a").Source == l5.SourceStream })
	s.Start()
	if err := s.Name().Deregister(within(t), "a", "127.0.0.1:2"); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "the server's push arrives", func() bool { return len(c.Explain("a").Instances) == 2 })
}

// The rules of a service and the place of the device are in the table, too.
func TestColdRouteByRules(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	document := []byte(`{"routes": [{"name": "one", "match": {"callers": ["test.caller"]}, "to": [{"select": {"version": "v2"}}]}]}`)
	if _, err := s.Name().SetRules(within(t), "a", document, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:9", Share: 100, Labels: map[string]string{"version": "v2"}}}); err != nil {
		t.Fatal(err)
	}
	var config agent.Config
	_, stop := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	target := "unix://" + config.Socket
	warm := l5test.Client(t, target, nil)
	l5test.Await(t, "the rules arrive", func() bool {
		for range 20 {
			if route(t, warm, "a") != "127.0.0.1:9" {
				return false
			}
		}
		return true
	})
	stop()
	s.Stop()
	cold := l5test.Client(t, target, nil)
	for range 20 {
		if got := route(t, cold, "a"); got != "127.0.0.1:9" {
			t.Fatalf("route to %s, the rules say 127.0.0.1:9", got)
		}
	}
	l5test.Agent(t, s.Target(), func(c *agent.Config) { *c = config })
	late := l5test.Client(t, target, func(c *l5.Config) { c.Table = "/nowhere" })
	if got := route(t, late, "a"); got != "127.0.0.1:9" {
		t.Errorf("an agent that started from its table routes to %s", got)
	}
}

// An older table never replaces what the stream said, and a damaged one is as good as none.
func TestTableNeverGoesBackwards(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), instances("a", 3, 100)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	old := view.View{Service: "a", Epoch: "another", Revision: 1 << 40, Instances: []*l5pb.Instance{{Addr: "127.0.0.1:99"}}}
	writeTable(t, dir, table.Entry{View: old, Callers: []string{"test.caller"}})
	c := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Table = dir })
	for range 50 {
		if got := route(t, c, "a"); got == "127.0.0.1:99" {
			t.Fatal("the table was used although the server answers")
		}
	}
	s.Stop()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.routes"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 100); err != nil {
		t.Fatal(err)
	}
	torn := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Table = dir })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := torn.Route(ctx, "a"); err == nil {
		t.Error("routed by half a file")
	}
}

// writeTable writes entries as the agent does.
func writeTable(t testing.TB, dir string, entries ...table.Entry) {
	t.Helper()
	folder, err := table.Make(dir, os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	by := make(map[int][]table.Entry)
	for _, e := range entries {
		by[table.SegmentOf(e.View.Service)] = append(by[table.SegmentOf(e.View.Service)], e)
	}
	files := make(map[int][]byte)
	for segment, entries := range by {
		if files[segment], err = table.Encode(table.Head{Segment: segment, Written: time.Now()}, entries); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Write(folder, os.Geteuid(), files); err != nil {
		t.Fatal(err)
	}
}

// deckTable writes the table of a device that calls 12,740 services on 161,679 devices.
func deckTable(t testing.TB, dir string) {
	t.Helper()
	const services, devices = 12_740, 161_679
	entries := make([]table.Entry, services)
	for i, device := 0, 0; i < services; i++ {
		v := view.View{Service: fmt.Sprintf("module-%05d.api", i), Epoch: "e", Revision: int64(i + 1)}
		for ; device < devices*(i+1)/services; device++ {
			name := fmt.Sprintf("device-%06d", device)
			v.Instances = append(v.Instances, &l5pb.Instance{
				Addr: fmt.Sprintf("10.%d.%d.%d:80", 100+device>>16, 100+device>>8&127, 100+device&127), Device: name, Owner: name,
				Module: fmt.Sprintf("module-%05d", i), Weight: 100, Share: proto.Uint32(100), State: l5pb.State_STATE_UP,
				Labels: map[string]string{"site": fmt.Sprintf("site-%02d", device%40)},
			})
		}
		entries[i] = table.Entry{View: view.Of(v.Snapshot()), Callers: []string{"test.caller"}}
	}
	writeTable(t, dir, entries...)
}

// BenchmarkColdRoute is from New to the first route, server and agent dead, at the deck's size.
func BenchmarkColdRoute(b *testing.B) {
	dir := b.TempDir()
	deckTable(b, dir)
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c, err := l5.New(l5.Config{Target: "unix:///nowhere/l5.sock", Caller: "test.caller", Table: dir})
		if err != nil {
			b.Fatal(err)
		}
		r, err := c.Route(ctx, fmt.Sprintf("module-%05d.api", i*97%12_740))
		if err != nil {
			b.Fatal(err)
		}
		r.Done(l5.Outcome{})
		i++
	}
}

// The time that a real process needs from New to its first route, its client running, server and agent dead.
func TestColdProcess(t *testing.T) {
	if dir := os.Getenv("L5_TEST_COLD"); dir != "" {
		begin := time.Now()
		c, err := l5.New(l5.Config{Target: "unix:///nowhere/l5.sock", Caller: "test.caller", Table: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		if _, err := c.Route(within(t), "module-00042.api"); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("cold=%v\n", time.Since(begin))
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	if testing.Short() {
		t.Skip("it writes a table of the deck's size")
	}
	dir := t.TempDir()
	deckTable(t, dir)
	var took []string
	for range 5 {
		process := exec.Command(os.Args[0], "-test.run=^TestColdProcess$")
		process.Env = append(os.Environ(), "L5_TEST_COLD="+dir)
		output, err := process.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		_, after, ok := strings.Cut(string(output), "cold=")
		if !ok {
			t.Fatalf("no time in %s", output)
		}
		line, _, _ := strings.Cut(after, "\n")
		took = append(took, line)
	}
	t.Logf("New to first route in new processes: %v", took)
}
