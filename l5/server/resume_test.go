package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// refusing are grants that everyone has but those named.
type refusing struct {
	mu      sync.Mutex
	refused map[string]bool // guarded by mu; by service
}

// MayCall implements server.Grants.
func (r *refusing) MayCall(_, service string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.refused[service]
}

// Changed implements server.Grants: who is connected is not told.
func (r *refusing) Changed() <-chan struct{} { return nil }

func (r *refusing) set(service string, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[service] = refused
}

// Who comes back is told what changed, and nothing of what did not: verdicts are as many as subscriptions, and a whole fleet
// comes back at once.
func TestVerdictsThatStandAreNotSentAgain(t *testing.T) {
	t.Parallel()
	const services = 50
	grants := &refusing{refused: map[string]bool{"s7": true}}
	s := l5test.NewServer(t, func(c *server.Config) { c.Grants = grants })
	var mu sync.Mutex
	var verdicts []string
	open, came := make(chan struct{}, 10), make(chan string, 10*services)
	l := link.New(link.Config{
		Client: wire(t, s.Target()), Peer: "test", Logger: slog.New(slog.DiscardHandler),
		OnView: func(view.View, *l5pb.Delta) {},
		OnVerdict: func(v *l5pb.Verdict) {
			mu.Lock()
			verdicts = append(verdicts, fmt.Sprint(v.GetService(), " ", v.GetAllowed()))
			mu.Unlock()
			came <- v.GetService()
		},
		OnState: func(connected bool, _ error) {
			if connected {
				open <- struct{}{}
			}
		},
	})
	// settled waits until all that was due on this stream has come: what a message is answered with comes before what the next
	// but one is.
	last := 0
	settled := func() (told []string) {
		t.Helper()
		for range 2 {
			last++
			name := fmt.Sprint("last", last)
			l.Subscribe("c", name)
			for got := ""; got != name; {
				select {
				case got = <-came:
				case <-within(t).Done():
					t.Fatal("no verdict comes")
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, v := range verdicts {
			if v[0] == 's' {
				told = append(told, v)
			}
		}
		verdicts = nil
		return told
	}
	for i := range services {
		l.Subscribe("c", fmt.Sprint("s", i))
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		<-ended
	}()
	go func() { ended <- l.Run(ctx) }()
	<-open
	if told := settled(); len(told) != services {
		t.Errorf("%d verdicts on %d subscriptions", len(told), services)
	}
	s.Cut()
	<-open
	if told := settled(); len(told) != 0 {
		t.Errorf("nothing changed, and who came back is told %v", told)
	}
	s.Kill()
	grants.set("s7", false)
	grants.set("s9", true)
	s.Start() // another, which knows nothing of the first
	<-open
	told := settled()
	if len(told) == 2 && told[0] > told[1] {
		told[0], told[1] = told[1], told[0]
	}
	if diff := cmp.Diff([]string{"s7 true", "s9 false"}, told); diff != "" {
		t.Errorf("after two changes (-want +got):\n%s", diff)
	}
}
