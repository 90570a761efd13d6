package server_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// pushes opens a watch stream with one request; the returned function reads on and says what comes.
func pushes(t *testing.T, s *l5test.Server, request *l5pb.WatchRequest) (next func() string) {
	t.Helper()
	stream := wire(t, s.Target()).Watch(within(t))
	t.Cleanup(func() { stream.CloseRequest(); stream.CloseResponse() })
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	return func() string {
		t.Helper()
		response, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch k := response.GetKind().(type) {
		case *l5pb.WatchResponse_Settings:
			return "settings " + string(k.Settings.GetDocument())
		case *l5pb.WatchResponse_Place:
			return "place " + k.Place.GetDevice() + " " + k.Place.GetSite() + " " + k.Place.GetCity()
		case *l5pb.WatchResponse_Snapshot:
			return "snapshot " + describe(k.Snapshot.GetInstances())
		case *l5pb.WatchResponse_Delta:
			return "delta " + describe(k.Delta.GetPut())
		}
		return "verdict"
	}
}

func describe(instances []*l5pb.Instance) (out string) {
	for _, i := range instances {
		out += fmt.Sprintf("%s %s %q", i.GetAddr(), i.GetState(), i.GetIsolated())
	}
	return out
}

func TestRulesArePushed(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) {
		c.Place = func(device string) (string, string) { return "site-of-" + device, "sz" }
	})
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	const snapshot = `snapshot 127.0.0.1:1 STATE_UP ""`
	first, err := s.Name().SetRules(within(t), "a", []byte(`{"subset": 5}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	next := pushes(t, s, &l5pb.WatchRequest{Device: "d1", Subscribe: []*l5pb.Subscription{{Service: "a"}}})
	want := []string{"place d1 site-of-d1 sz", "verdict", `settings {"subset":5}`, snapshot}
	for _, w := range want {
		if got := next(); got != w {
			t.Fatalf("got %q, want %q", got, w)
		}
	}
	if _, err := s.Name().SetRules(within(t), "a", []byte(`{"subset": 6}`), first+100); !errors.Is(err, server.ErrRulesChanged) {
		t.Errorf("over another revision: %v", err)
	}
	second, err := s.Name().SetRules(within(t), "a", []byte(`{"subset": 7}`), first)
	if err != nil {
		t.Fatal(err)
	}
	if got := next(); got != `settings {"subset":7}` {
		t.Errorf("after a change: %q", got)
	}
	if _, err := s.Name().SetRules(within(t), "a", nil, server.AnyRevision); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != `settings {}` {
		t.Errorf("after the end of all rules: %q", got)
	}
	if _, err := s.Name().SetRules(within(t), "a", []byte(`{"subset": 8}`), server.AnyRevision); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Start()
	text, revision := s.Name().Rules("a")
	if string(text) != `{"subset":8}` || revision <= second {
		t.Errorf("after a restart: %s at %d", text, revision)
	}
	// Who comes back with what is in force is sent nothing; who holds less is sent the whole.
	epoch := s.Name().Explain("a").Epoch
	for held, want := range map[int64]string{revision: snapshot, second: `settings {"subset":8}`} {
		next := pushes(t, s, &l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{Service: "a", Epoch: epoch, Settings: held}}})
		next()
		if got := next(); got != want {
			t.Errorf("with revision %d held: %q, want %q", held, got, want)
		}
	}
	// Who holds settings of a history that is gone is told that there are none.
	next = pushes(t, s, &l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{Service: "b", Epoch: "gone", Settings: 9}}})
	next()
	if got := next(); got != "settings " {
		t.Errorf("of another history: %q", got)
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	_, err := s.Name().SetRules(within(t), "a", []byte(`{"subset":-1,"routes":[{"name":"x","to":[]}]}`), server.AnyRevision)
	if err == nil || !strings.Contains(err.Error(), "subset is -1") || !strings.Contains(err.Error(), "routes[0] (x).to") {
		t.Errorf("got %v", err)
	}
	if text, revision := s.Name().Rules("a"); text != nil || revision != 0 {
		t.Errorf("stored %s at %d", text, revision)
	}
}

func TestIsolate(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	instances := []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}, {Service: "a", Addr: "127.0.0.1:2", Share: 100}}
	register := func() {
		t.Helper()
		if err := s.Name().Register(within(t), instances); err != nil {
			t.Fatal(err)
		}
	}
	weights := func() (out []float64) {
		for _, i := range s.Name().Instances("a") {
			out = append(out, i.EffectiveWeight)
		}
		return out
	}
	register()
	if err := s.Name().Isolate(within(t), "a", "127.0.0.1:9", "x"); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("an instance that is not there: %v", err)
	}
	next := pushes(t, s, &l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{Service: "a"}}})
	next()
	next()
	if err := s.Name().Isolate(within(t), "a", "127.0.0.1:1", "heap dump"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{0, 100}, weights()); diff != "" {
		t.Errorf("isolated (-want +got):\n%s", diff)
	}
	if got := s.Name().Instances("a")[0]; got.State != l5.StateUp || !strings.Contains(got.Reason, "isolated: heap dump") {
		t.Errorf("got %+v", got)
	}
	// Peers that do not know the field see an instance that drains.
	if got, want := []string{next(), next()}, []string{`settings {"isolate":{"127.0.0.1:1":"heap dump"}}`, `delta 127.0.0.1:1 STATE_DRAINING "heap dump"`}; !cmp.Equal(want, got) {
		t.Errorf("pushed %q", got)
	}
	register()
	if err := s.Name().Deregister(within(t), "a", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	register()
	s.Stop()
	s.Start()
	if diff := cmp.Diff([]float64{0, 100}, weights()); diff != "" {
		t.Errorf("after it registered anew (-want +got):\n%s", diff)
	}
	if err := s.Name().Isolate(within(t), "a", "127.0.0.1:1", ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{100, 100}, weights()); diff != "" {
		t.Errorf("given back (-want +got):\n%s", diff)
	}
}

// Where a device is stands in its instances, unless they say so themselves.
func TestInstancesAreLocated(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, func(c *server.Config) { c.Place = func(device string) (string, string) { return "sz-1", "sz" } })
	err := s.Name().Register(within(t), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Device: "d1"}, {Service: "a", Addr: "127.0.0.1:2", Site: "sh-1"}})
	if err != nil {
		t.Fatal(err)
	}
	got := s.Name().Instances("a")
	if got[0].Site != "sz-1" || got[0].City != "sz" || got[1].Site != "sh-1" || got[1].City != "" {
		t.Errorf("got %+v", got)
	}
}
