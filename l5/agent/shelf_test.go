package agent_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// Whatever comes, is dropped, is written and is loaded again, a shelf holds what was put last (I9).
func TestShelfHoldsWhatWasPut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp(dir, "t")
		if err != nil {
			t.Fatal(err)
		}
		folder, err := table.Make(root, os.Geteuid())
		if err != nil {
			t.Fatal(err)
		}
		logger := slog.New(slog.DiscardHandler)
		shelf := agent.NewShelf(logger)
		defer func() { shelf.Close() }()
		model, written := map[string]view.View{}, map[string]view.View{}
		service := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		revision := int64(0)
		check := func() {
			for _, name := range []string{"a", "b", "c", "d"} {
				want, known := model[name]
				got, ok := shelf.View(name)
				_, at, held := shelf.At(name)
				if ok != known || held != known || at != want.Revision {
					t.Fatalf("%s: held %v at %d, want %v at %d", name, ok, at, known, want.Revision)
				}
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Fatalf("%s (-want +got):\n%s", name, diff)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				revision++
				v := view.View{Service: service.Draw(t, "service"), Epoch: "e", Revision: revision}
				for i := range rapid.IntRange(0, 3).Draw(t, "instances") {
					v.Instances = append(v.Instances, &l5pb.Instance{Addr: fmt.Sprintf("127.0.0.%d:80", i), Weight: uint32(revision)})
				}
				shelf.Put(v)
				if v.Instances == nil {
					v.Instances = []*l5pb.Instance{} // as it is read
					shelf.Put(v)
				}
				model[v.Service] = v
			},
			"drop": func(t *rapid.T) {
				name := service.Draw(t, "service")
				shelf.Drop(name)
				delete(model, name)
			},
			"write": func(t *rapid.T) {
				segment := table.SegmentOf(service.Draw(t, "service"))
				if err := shelf.Write(folder, segment); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"a", "b", "c", "d"} {
					if table.SegmentOf(name) != segment {
						continue
					}
					if v, ok := model[name]; ok {
						written[name] = v
					} else {
						delete(written, name)
					}
				}
			},
			"restart": func(t *rapid.T) {
				shelf.Close()
				shelf = agent.NewShelf(logger)
				clear(model)
				for name, v := range written {
					model[name] = v
					if err := shelf.Load(folder, table.SegmentOf(name)); err != nil {
						t.Fatal(err)
					}
				}
			},
			"": func(*rapid.T) { check() },
		})
		if lost := shelf.Lost(); lost != nil {
			t.Fatalf("%q could not be read", lost)
		}
	})
}

// What the table has leaves the agent's memory, and is served from there.
func TestCopyIsServedFromTheTable(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	route(t, l5test.Client(t, a.Target(), nil), "a")
	l5test.Await(t, "the state is written and leaves memory", func() bool { return agent.ShelfOf(a).InMemory() == 0 })
	late := l5test.Client(t, a.Target(), nil)
	if got := route(t, late, "a"); got != "127.0.0.1:1" {
		t.Errorf("route to %s", got)
	}
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:2", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "a change to what the table has arrives", func() bool { return len(late.Explain("a").Instances) == 2 })
}

// A table that goes bad under its agent costs nobody a route: what cannot be read is asked for anew.
func TestBadTableIsAskedForAnew(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	var config agent.Config
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) { config = *c })
	route(t, l5test.Client(t, a.Target(), nil), "a")
	l5test.Await(t, "the state is written and leaves memory", func() bool { return agent.ShelfOf(a).InMemory() == 0 })
	files, err := filepath.Glob(filepath.Join(table.For(config.Socket+".table", os.Geteuid()), "*.routes"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	if err := os.Truncate(files[0], 0); err != nil {
		t.Fatal(err)
	}
	late := l5test.Client(t, a.Target(), nil)
	if got := route(t, late, "a"); got != "127.0.0.1:1" {
		t.Errorf("route to %s", got)
	}
	l5test.Await(t, "the agent has it again", func() bool { // the first look may be what finds out
		v, ok := agent.ShelfOf(a).View("a")
		return ok && len(v.Instances) == 1
	})
}
