package link_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

func snapshot(epoch string, revision int64, ports ...int) *l5pb.WatchResponse {
	s := &l5pb.Snapshot{Service: "a", Epoch: epoch, Revision: revision}
	for _, port := range ports {
		s.Instances = append(s.Instances, &l5pb.Instance{Addr: fmt.Sprint("h:", port)})
	}
	return &l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: s}}
}

func put(epoch string, previous, revision int64, port int) *l5pb.WatchResponse {
	return &l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Delta{Delta: &l5pb.Delta{
		Service: "a", Epoch: epoch, Previous: previous, Revision: revision, Put: []*l5pb.Instance{{Addr: fmt.Sprint("h:", port)}},
	}}}
}

// A name service that comes back without its records takes nobody down: what was known is held until it is known again.
func TestLostHistoryIsHeld(t *testing.T) {
	t.Parallel()
	var seen []string
	l := link.New(link.Config{
		OnView: func(v view.View, change *l5pb.Delta) {
			seen = append(seen, fmt.Sprintf("%s/%d: %d instances, delta %t", v.Epoch, v.Revision, len(v.Instances), change != nil))
		},
		OnHold: func(service string, have, get int) { seen = append(seen, fmt.Sprintf("held: %d -> %d", have, get)) },
		Logger: slog.New(slog.DiscardHandler),
	})
	l.Subscribe("c", "a")
	l.Apply(&l5pb.WatchResponse{}) // a kind that this version does not know
	l.Apply(snapshot("old", 90, 1, 2, 3, 4))
	l.Apply(snapshot("old", 80, 1)) // late
	l.Apply(snapshot("new", 1))     // empty
	l.Apply(put("new", 1, 2, 1))    // they register again
	l.Apply(put("new", 2, 3, 2))
	l.Apply(put("new", 3, 4, 3)) // three of four: good
	l.Apply(put("new", 4, 5, 4))
	l.Apply(snapshot("newer", 1))
	l.Release(time.Now())
	l.Release(time.Now().Add(2 * time.Minute)) // nobody came back: so be it
	l.Apply(snapshot("newer", 2, 9))
	l.Apply(snapshot("newer", 3)) // removals within one history are believed at once
	want := []string{
		"old/90: 4 instances, delta false", "held: 4 -> 0", "new/4: 3 instances, delta false", "new/5: 4 instances, delta true",
		"held: 4 -> 0", "newer/1: 0 instances, delta false", "newer/2: 1 instances, delta false", "newer/3: 0 instances, delta false",
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBackoffIsJitteredAndBounded(t *testing.T) {
	t.Parallel()
	var b link.Backoff
	for i, step := range []time.Duration{50, 100, 200, 400, 800, 1600, 3000, 3000, 3000} {
		got, step := b.Next(), step*time.Millisecond
		if got < step/2 || got > step {
			t.Errorf("wait %d is %v, want %v to %v", i, got, step/2, step)
		}
	}
	// Those who lost one server do not come back at once: a thousand, in tenths of a second.
	var tenths [10]int
	for range 1000 {
		b.Reset()
		tenths[b.Next()/(100*time.Millisecond)]++
		if got := b.Next(); got > 50*time.Millisecond {
			t.Fatalf("the wait after that is %v", got)
		}
	}
	for i, n := range tenths {
		if n < 50 || n > 200 {
			t.Errorf("%d of 1,000 come in tenth %d: %v", n, i, tenths)
		}
	}
}

// BenchmarkHeld is the heap that an instance takes that came off the wire, with a device of its own, and module, site and
// city as its neighbours have.
func BenchmarkHeld(b *testing.B) {
	const services, each = 1000, 13
	for b.Loop() {
		l := link.New(link.Config{OnView: func(view.View, *l5pb.Delta) {}, Logger: slog.New(slog.DiscardHandler)})
		before := heap()
		for i := range services {
			name := fmt.Sprint("service-", i)
			l.Subscribe("c", name)
			s := &l5pb.Snapshot{Service: name, Epoch: "e", Revision: 1}
			for j := range each {
				device := fmt.Sprintf("device-%06d", i*each+j)
				s.Instances = append(s.Instances, &l5pb.Instance{
					Addr: fmt.Sprintf("10.0.%d.%d:80", i%250, j), Device: device, Owner: device, Module: "module-" + name, Weight: 100, Share: proto.Uint32(100),
					Labels: map[string]string{"site": fmt.Sprint("site-", j), "city": fmt.Sprint("city-", j/4)},
				})
			}
			data, err := proto.Marshal(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: s}})
			if err != nil {
				b.Fatal(err)
			}
			var response l5pb.WatchResponse
			if err := proto.Unmarshal(data, &response); err != nil {
				b.Fatal(err)
			}
			l.Apply(&response)
		}
		b.ReportMetric(float64(heap()-before)/services/each, "B/instance")
		runtime.KeepAlive(l)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Settings never go back within one history, and a link says which it holds.
func TestSettingsDoNotGoBack(t *testing.T) {
	t.Parallel()
	var seen []string
	l := link.New(link.Config{
		OnView:     func(view.View, *l5pb.Delta) {},
		OnSettings: func(s *l5pb.Settings) { seen = append(seen, fmt.Sprintf("%s/%d", s.GetEpoch(), s.GetRevision())) },
		Logger:     slog.New(slog.DiscardHandler),
	})
	settings := func(service, epoch string, revision int64) {
		l.Apply(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Settings{Settings: &l5pb.Settings{Service: service, Epoch: epoch, Revision: revision}}})
	}
	l.Subscribe("c", "a")
	settings("b", "e", 1) // nobody asked
	settings("a", "e", 5)
	settings("a", "e", 4) // a server that lags
	settings("a", "e", 5)
	settings("a", "e", 6)
	l.Apply(snapshot("e", 9, 1))
	if got := l.Hello().GetSubscribe()[0]; got.GetSettings() != 6 {
		t.Errorf("holds %d, says %v", 6, got)
	}
	settings("a", "new", 1) // another history
	if got := l.Hello().GetSubscribe()[0]; got.GetSettings() != 0 {
		t.Errorf("of another history than the instances: %v", got)
	}
	if diff := cmp.Diff([]string{"e/5", "e/6", "new/1"}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A state that is let go and one that comes at that moment are handed on one after the other: the newer is the last.
func TestWhatIsLetGoDoesNotOvertake(t *testing.T) {
	t.Parallel()
	var l *link.Link
	var mu sync.Mutex
	var seen []int64
	applied := make(chan struct{})
	l = link.New(link.Config{
		OnView: func(v view.View, _ *l5pb.Delta) {
			if v.Epoch == "new" && v.Revision == 1 {
				go func() {
					defer close(applied)
					l.Apply(snapshot("new", 2, 9))
				}()
				select { // it must not be through before this has returned
				case <-applied:
				case <-time.After(50 * time.Millisecond):
				}
			}
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, v.Revision)
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	l.Subscribe("c", "a")
	l.Apply(snapshot("old", 90, 1, 2, 3, 4))
	l.Apply(snapshot("new", 1))
	l.Release(time.Now().Add(2 * time.Minute))
	<-applied
	if diff := cmp.Diff([]int64{90, 1, 2}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A link says which verdicts it holds, so that they need not come again, and no longer once it has let go of them.
func TestVerdictIsHeld(t *testing.T) {
	t.Parallel()
	l := link.New(link.Config{OnView: func(view.View, *l5pb.Delta) {}, OnVerdict: func(*l5pb.Verdict) {}, Logger: slog.New(slog.DiscardHandler)})
	says := func(what string, want uint64) {
		t.Helper()
		if got := l.Hello().GetSubscribe()[0].GetVerdict(); got != want {
			t.Errorf("%s: it says %x, want %x", what, got, want)
		}
	}
	verdict := func(caller string, allowed bool, reason string) {
		l.Apply(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Verdict{Verdict: &l5pb.Verdict{Service: "a", Caller: caller, Allowed: allowed, Reason: reason}}})
	}
	l.Subscribe("c", "a")
	says("nothing came", 0)
	verdict("c", true, "")
	verdict("another", false, "who?")
	says("allowed", view.VerdictSum(true, ""))
	verdict("c", false, "no grant")
	says("denied", view.VerdictSum(false, "no grant"))
	l.Apply(put("e", 5, 6, 1)) // a gap
	if again := l.Pending().GetSubscribe(); len(again) != 1 || again[0].GetVerdict() != view.VerdictSum(false, "no grant") || again[0].GetRevision() != 0 {
		t.Errorf("after a gap it asks for %v", again)
	}
	l.Unsubscribe("c", "a")
	l.Subscribe("c", "a")
	says("subscribed anew", 0)
}
