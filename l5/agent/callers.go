package agent

import (
	"context"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// callers knows who on this device calls what, and whether they may. It is the hub's gate.
//
//	            a stream asks              verdict from upstream
//	(none) ------------------> asked -----------------------------> allowed | denied (and back, as grants change)
//	   ^                         |                                      |
//	   +------ no stream for Linger: unsubscribed, forgotten -----------+
type callers struct {
	link   *link.Link
	linger time.Duration
	now    func() time.Time

	turn    sync.Mutex // held from a change of pairs until the link knows it, lest the link hear the last two in the other order; before mu
	mu      sync.Mutex
	pairs   map[pair]*standing // guarded by mu
	changed chan struct{}      // guarded by mu; closed and replaced when a verdict changes
}

type pair struct{ caller, service string }

type standing struct {
	streams int
	idle    time.Time     // since when no stream asks
	verdict *l5pb.Verdict // nil: not known yet
}

func newCallers(l *link.Link, linger time.Duration, now func() time.Time) *callers {
	return &callers{link: l, linger: linger, now: now, pairs: make(map[pair]*standing), changed: make(chan struct{})}
}

// Verdict implements hub.Gate.
func (c *callers) Verdict(caller, service string) (allowed, known bool, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.pairs[pair{caller, service}]; s != nil && s.verdict != nil {
		return s.verdict.GetAllowed(), true, s.verdict.GetReason()
	}
	return false, false, ""
}

// Changed returns a channel that is closed at the next change of a verdict.
func (c *callers) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// ask counts a stream that wants service for caller.
func (c *callers) ask(caller, service string) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.mu.Lock()
	c.standing(pair{caller, service}).streams++
	c.mu.Unlock()
	c.link.Subscribe(caller, service)
}

// standing returns the standing of p, a new one if need be. Callers hold mu.
func (c *callers) standing(p pair) *standing {
	s := c.pairs[p]
	if s == nil {
		s = &standing{}
		c.pairs[p] = s
	}
	return s
}

// release uncounts a stream.
func (c *callers) release(caller, service string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.pairs[pair{caller, service}]; s != nil {
		s.streams--
		s.idle = now
	}
}

// decide takes a verdict from upstream, or from disk.
func (c *callers) decide(verdict *l5pb.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.standing(pair{verdict.GetCaller(), verdict.GetService()})
	if s.streams == 0 && s.idle.IsZero() {
		s.idle = c.now()
	}
	s.verdict = verdict
	close(c.changed)
	c.changed = make(chan struct{})
}

// verdicts returns all that are known.
func (c *callers) verdicts() []*l5pb.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*l5pb.Verdict, 0, len(c.pairs))
	for _, s := range c.pairs {
		if s.verdict != nil {
			out = append(out, s.verdict)
		}
	}
	return out
}

// run forgets who has not called for a while.
func (c *callers) run(ctx context.Context) error {
	ticker := time.NewTicker(max(c.linger/10, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			c.sweep(c.now())
		}
	}
}

// sweep unsubscribes from what nobody has asked for for a while.
func (c *callers) sweep(now time.Time) {
	c.turn.Lock()
	defer c.turn.Unlock()
	for _, p := range c.idle(now) {
		c.link.Unsubscribe(p.caller, p.service)
	}
}

// idle forgets who has not called for a while, and returns them.
func (c *callers) idle(now time.Time) (gone []pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, s := range c.pairs {
		if s.streams == 0 && now.Sub(s.idle) > c.linger {
			delete(c.pairs, p)
			gone = append(gone, p)
		}
	}
	return gone
}
