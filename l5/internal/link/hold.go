package link

import (
	"context"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
)

// A name service that lost its records, or was pointed at the wrong ones, answers truthfully that nobody is there. A
// snapshot of another history than the one held, which drops more than holdShare of a service, is therefore held back
// until the instances have come back, or holdFor is over.
const (
	holdShare = 0.3
	holdFor   = time.Minute
)

// holding is a state that is held back.
type holding struct {
	view  view.View
	since time.Time
}

// shrinks reports whether too much of held is missing in next.
func shrinks(held, next view.View) bool {
	missing := 0
	for _, instance := range held.Instances {
		if next.Find(instance.GetAddr()) == nil {
			missing++
		}
	}
	return float64(missing) > holdShare*float64(len(held.Instances))
}

// admit returns whether next may be used now in the place of what is. Otherwise it is held back. Callers hold mu.
func (l *Link) admit(next view.View, now time.Time) bool {
	var held view.View
	if epoch, _, _ := l.views.At(next.Service); epoch != "" && epoch != next.Epoch {
		held, _ = l.views.View(next.Service)
	}
	if held.Epoch == "" || !shrinks(held, next) {
		delete(l.holds, next.Service)
		return true
	}
	since := now
	if h, ok := l.holds[next.Service]; ok {
		since = h.since
	} else if l.config.OnHold != nil {
		l.config.OnHold(next.Service, len(held.Instances), len(next.Instances))
	}
	l.holds[next.Service] = holding{next, since}
	return false
}

// newest is what the name service last said, held back or not. Callers hold mu.
func (l *Link) newest(service string) (view.View, bool) {
	if h, ok := l.holds[service]; ok {
		return h.view, true
	}
	return l.views.View(service)
}

// stands is newest without the instances. Callers hold mu.
func (l *Link) stands(service string) (view.View, bool) {
	if h, ok := l.holds[service]; ok {
		return view.View{Service: service, Epoch: h.view.Epoch, Revision: h.view.Revision}, true
	}
	epoch, revision, ok := l.views.At(service)
	return view.View{Service: service, Epoch: epoch, Revision: revision}, ok
}

// Held returns of how many services a state is held back.
func (l *Link) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.holds)
}

// Release lets go of what was held back for holdFor. Run calls it now and then.
func (l *Link) Release(now time.Time) {
	l.order.Lock() // what the stream says meanwhile is newer, and comes after it
	defer l.order.Unlock()
	l.mu.Lock()
	var due []view.View
	for service, h := range l.holds {
		if now.Sub(h.since) >= holdFor {
			delete(l.holds, service)
			l.views.Put(h.view)
			due = append(due, h.view)
		}
	}
	l.mu.Unlock()
	for _, v := range due {
		l.config.OnView(v, nil)
	}
}

// release calls Release until ctx ends.
func (l *Link) release(ctx context.Context) {
	ticker := time.NewTicker(holdFor / 60)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.Release(l.config.Now())
		}
	}
}
