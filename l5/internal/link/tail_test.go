package link_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

type open struct{}

func (open) Verdict(string, string) (allowed, known bool, reason string) { return true, true, "" }

// Streams that break in the middle of what they have to say lose nothing, and leave no service out for ever.
func TestBrokenStreamsReachEveryService(t *testing.T) {
	t.Parallel()
	const services, lives = 100, 60
	h := hub.New()
	heard := make(map[string]int64)
	l := link.New(link.Config{
		OnView: func(v view.View, _ *l5pb.Delta) {
			if v.Revision < heard[v.Service] {
				t.Errorf("%s went back from %d to %d", v.Service, heard[v.Service], v.Revision)
			}
			heard[v.Service] = v.Revision
		},
		OnVerdict: func(*l5pb.Verdict) {},
		Logger:    slog.New(slog.DiscardHandler),
	})
	for i := range services {
		l.Subscribe("c", fmt.Sprint("s", i))
	}
	// live is one life of the stream: all services have moved since the last, and at most so many messages arrive.
	live := func(revision int64, messages int) {
		for i := range services {
			held := view.View{Service: fmt.Sprint("s", i), Epoch: "e", Revision: revision - 1}
			next, err := held.Advance(&l5pb.Delta{Service: held.Service, Epoch: "e", Previous: revision - 1, Revision: revision})
			if err != nil {
				t.Fatal(err)
			}
			change := view.Diff(held, next)
			if err := h.Publish(next, change); err != nil {
				t.Fatal(err)
			}
		}
		sub := h.Subscriber(open{})
		defer sub.Close()
		sub.Request(l.Hello())
		frames, err := sub.Frames()
		if err != nil {
			t.Fatal(err)
		}
		for _, frame := range frames[:min(messages, len(frames))] {
			l.Apply(frame.Message())
		}
	}
	for i := range lives {
		live(int64(1+i), 40+i%3) // a service has a verdict and a state: some 20 of 100 are told of
	}
	for i := range services {
		if name := fmt.Sprint("s", i); heard[name] == 0 {
			t.Errorf("%s was never heard of, through %d streams", name, lives)
		}
	}
	live(lives+1, 1<<30)
	for i := range services {
		if name := fmt.Sprint("s", i); heard[name] != lives+1 {
			t.Errorf("%s is at %d after a whole stream, want %d", name, heard[name], lives+1)
		}
	}
}
