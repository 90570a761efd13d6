package json

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// open holds the picks whose outcome is not told yet. It is safe for concurrent use.
type open struct {
	most int
	last time.Duration

	mu    sync.Mutex
	picks map[string]pick // guarded by mu; by id
	order []expiry        // guarded by mu; the oldest first, those that are told included
	ended bool            // guarded by mu
}

type pick struct {
	route l5.Route
	begin time.Time
}

type expiry struct {
	id string
	at time.Time
}

func newOpen(most int, last time.Duration) *open {
	return &open{most: most, last: last, picks: make(map[string]pick)}
}

// add keeps a pick and returns its id, which nobody can guess; false if there are as many as may be.
func (o *open) add(route l5.Route, now time.Time) (id string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || len(o.picks) >= o.most {
		return "", false
	}
	if len(o.order) >= 2*o.most { // half of them were told, at least
		o.order = slices.DeleteFunc(o.order, func(e expiry) bool { _, open := o.picks[e.id]; return !open })
	}
	id = rand.Text()
	o.picks[id] = pick{route, now}
	o.order = append(o.order, expiry{id, now.Add(o.last)})
	return id, true
}

// take returns a pick once.
func (o *open) take(id string) (pick, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.picks[id]
	delete(o.picks, id)
	return p, ok
}

func (o *open) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.picks)
}

// run forgets picks that are too old, until ctx ends.
func (o *open) run(ctx context.Context) {
	ticker := time.NewTicker(max(o.last/16, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			o.sweep(now)
		case <-ctx.Done():
			return
		}
	}
}

// sweep forgets what is too old at now: how such a call went is not known.
func (o *open) sweep(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	done := 0
	for ; done < len(o.order) && !o.order[done].at.After(now); done++ {
		id := o.order[done].id
		if p, ok := o.picks[id]; ok {
			delete(o.picks, id)
			p.route.Done(l5.Outcome{Err: context.Canceled})
		}
	}
	o.order = append(o.order[:0:0], o.order[done:]...)
}

// end forgets all, for good.
func (o *open) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for id, p := range o.picks {
		delete(o.picks, id)
		p.route.Done(l5.Outcome{Err: context.Canceled})
	}
}
