package hub_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// gate denies those it names and does not know those that begin with "new".
type gate map[string]bool

func (g gate) Verdict(caller, _ string) (allowed, known bool, reason string) {
	return !g[caller], !strings.HasPrefix(caller, "new"), ""
}

// publish moves service a from revision-1 to revision.
func publish(t *testing.T, h *hub.Hub, revision int64) {
	t.Helper()
	held, known := h.View("a")
	if !known {
		held = view.View{Service: "a", Epoch: "e", Revision: revision - 1}
	}
	change := &l5pb.Delta{Service: "a", Epoch: "e", Previous: held.Revision, Revision: revision, Put: []*l5pb.Instance{{Addr: fmt.Sprint("h:", revision)}}}
	next, err := held.Advance(change)
	if err != nil {
		t.Fatal(err)
	}
	if !known {
		change = nil
	}
	if err := h.Publish(next, change); err != nil {
		t.Fatal(err)
	}
}

// frames says what a subscriber is sent now.
func frames(t *testing.T, s *hub.Subscriber) (out []string) {
	t.Helper()
	all, err := s.Frames()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		switch k := f.Message().GetKind().(type) {
		case *l5pb.WatchResponse_Verdict:
			out = append(out, fmt.Sprintf("%s allowed %t", k.Verdict.GetCaller(), k.Verdict.GetAllowed()))
		case *l5pb.WatchResponse_Snapshot:
			out = append(out, fmt.Sprintf("snapshot %d of %d", k.Snapshot.GetRevision(), len(k.Snapshot.GetInstances())))
		case *l5pb.WatchResponse_Delta:
			out = append(out, fmt.Sprintf("delta %d-%d", k.Delta.GetPrevious(), k.Delta.GetRevision()))
		}
	}
	return out
}

func subscribe(s *hub.Subscriber, caller, epoch string, revision int64) {
	s.Request(&l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{Service: "a", Caller: caller, Epoch: epoch, Revision: revision}}})
}

func TestSubscriber(t *testing.T) {
	t.Parallel()
	h, g := hub.New(), gate{"denied": true}
	s := h.Subscriber(g)
	defer s.Close()
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, frames(t, s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	subscribe(s, "c", "", 0)
	check("not published yet", "c allowed true")
	publish(t, h, 1)
	check("published", "snapshot 1 of 1")
	publish(t, h, 2)
	publish(t, h, 3)
	check("two changes", "delta 1-2", "delta 2-3")
	check("nothing new")
	subscribe(s, "c", "e", 1)
	check("resumed", "c allowed true", "delta 1-2", "delta 2-3")
	subscribe(s, "c", "e", 0)
	check("resync", "c allowed true", "snapshot 3 of 3")
	for r := int64(4); r < 200; r++ {
		publish(t, h, r)
	}
	check("far behind", "snapshot 199 of 199")
	g["c"] = true
	s.Recheck()
	check("revoked", "c allowed false")
	publish(t, h, 200)
	check("nothing for the revoked")
	delete(g, "c")
	s.Recheck()
	check("granted again", "c allowed true", "snapshot 200 of 200")
	s.Request(&l5pb.WatchRequest{Unsubscribe: []*l5pb.Subscription{{Service: "a", Caller: "c"}}})
	publish(t, h, 201)
	check("unsubscribed")
	subscribe(s, "new", "", 0)
	check("no verdict yet")
	subscribe(s, "denied", "", 0)
	check("denied", "denied allowed false")
	holds := func(allowed bool) {
		s.Request(&l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{
			Service: "a", Caller: "c", Epoch: "e", Revision: 200, Verdict: view.VerdictSum(allowed, ""),
		}}})
	}
	holds(true)
	check("resumed with the verdict that stands", "delta 200-201")
	holds(false)
	check("resumed with another", "c allowed true", "delta 200-201")
	if got := h.Subscribers("a"); got != 1 {
		t.Errorf("%d subscribers", got)
	}
	s.Close()
	if got := h.Subscribers("a"); got != 0 {
		t.Errorf("%d subscribers after Close", got)
	}
}

// A frame is encoded once: every subscriber gets the same one, and its encoded form is the message's.
func TestFrameIsShared(t *testing.T) {
	t.Parallel()
	h := hub.New()
	publish(t, h, 1)
	var first *hub.Frame
	for range 3 {
		s := h.Subscriber(gate{})
		defer s.Close()
		subscribe(s, "c", "", 0)
		all, err := s.Frames()
		if err != nil || len(all) != 2 {
			t.Fatalf("%d frames, %v", len(all), err)
		}
		if first == nil {
			first = all[1]
		}
		if all[1] != first {
			t.Error("the frame was made again")
		}
	}
	encoded, err := proto.Marshal(first.Encoded())
	if err != nil {
		t.Fatal(err)
	}
	got := &l5pb.WatchResponse{}
	if err := proto.Unmarshal(encoded, got); err != nil || !proto.Equal(got, first.Message()) {
		t.Errorf("decoded %v, %v; want %v", got, err, first.Message())
	}
}

// BenchmarkFanOut is one change handed to 1,000 subscribers, up to the sockets.
func BenchmarkFanOut(b *testing.B) {
	h := hub.New()
	held := view.View{Service: "a", Epoch: "e", Revision: 1, Instances: []*l5pb.Instance{{Addr: "h:1"}}}
	if err := h.Publish(held, nil); err != nil {
		b.Fatal(err)
	}
	subs := make([]*hub.Subscriber, 1000)
	for i := range subs {
		subs[i] = h.Subscriber(gate{})
		subscribe(subs[i], "c", "e", 1)
		subs[i].Frames()
	}
	b.ReportAllocs()
	for b.Loop() {
		change := &l5pb.Delta{Service: "a", Epoch: "e", Previous: held.Revision, Revision: held.Revision + 1, Put: []*l5pb.Instance{{Addr: "h:1"}}}
		held, _ = held.Advance(change)
		if err := h.Publish(held, change); err != nil {
			b.Fatal(err)
		}
		for _, s := range subs {
			if f, _ := s.Frames(); len(f) != 1 {
				b.Fatal("not one frame")
			}
		}
	}
}
