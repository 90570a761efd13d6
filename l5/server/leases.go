package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// leases knows whose streams are open and removes what lost owners had registered.
//
//	          stream opens                  last stream lost
//	(none) ---------------> live(streams>0) ----------------> lost(since) --grace--> expiring
//	                          ^                                  |                      |
//	                          +--------- stream opens -----------+----------------------+
type leases struct {
	config   Config
	registry *registry
	metrics  *metrics

	mu      sync.Mutex
	streams map[string]int       // guarded by mu; open streams by owner
	lost    map[string]time.Time // guarded by mu; since when an owner has none
	held    map[id]string        // guarded by mu; instances that should have expired, and why they did not
	expiry  expiry               // guarded by mu
	events  []OwnerEvent         // guarded by mu; not yet told
	changed map[string]struct{}  // guarded by mu; owners whose rows' suspicion is to be looked at
	kick    chan struct{}
}

func newLeases(config Config, r *registry) *leases {
	return &leases{
		config: config, registry: r, streams: make(map[string]int), lost: make(map[string]time.Time),
		held: make(map[id]string), changed: make(map[string]struct{}), kick: make(chan struct{}, 1),
		expiry: expiry{perMinute: config.ExpiriesPerMinute, share: config.ExpiryShare},
	}
}

// opened counts a stream of owner.
func (l *leases) opened(owner string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams[owner]++
	if l.streams[owner] == 1 {
		delete(l.lost, owner)
		l.changed[owner] = struct{}{}
		l.events = append(l.events, OwnerEvent{Owner: owner, Live: true})
		l.signal()
	}
}

// closed uncounts a stream of owner.
func (l *leases) closed(owner string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[owner]--; l.streams[owner] > 0 {
		return
	}
	delete(l.streams, owner)
	l.lost[owner] = now
	l.changed[owner] = struct{}{}
	l.events = append(l.events, OwnerEvent{Owner: owner})
	l.signal()
}

func (l *leases) signal() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// live returns the owners with an open stream, in order.
func (l *leases) live() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.streams))
}

// status says whether an owner has a stream, and why an instance of it is still there if it should not be.
func (l *leases) status(owner string, name id) (live bool, held string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return owner == "" || l.streams[owner] > 0, l.held[name]
}

// run tells owners' comings and goings, marks what they own and expires it, until ctx ends.
func (l *leases) run(ctx context.Context) error {
	if err := l.registry.loaded(ctx); err != nil {
		return err
	}
	l.adopt(time.Now())
	ticker := time.NewTicker(max(l.config.Grace/20, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		l.tell()
		if err := l.mark(ctx); err != nil && ctx.Err() == nil {
			l.config.Logger.Warn("l5/server: leases are not marked, trying again", "error", err)
		}
		if err := l.expire(ctx, time.Now()); err != nil && ctx.Err() == nil {
			l.config.Logger.Warn("l5/server: lost instances are not removed, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.kick:
		case <-ticker.C:
		}
	}
}

// adopt starts the grace period of everyone who owns something and has no stream: whoever the last server knew.
func (l *leases) adopt(now time.Time) {
	owners := l.registry.owners()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, owner := range owners {
		if _, known := l.lost[owner]; !known && l.streams[owner] == 0 {
			l.lost[owner] = now
		}
	}
}

// tell calls OnOwner, in order.
func (l *leases) tell() {
	l.mu.Lock()
	events := l.events
	l.events = nil
	l.mu.Unlock()
	for _, event := range events {
		l.config.Logger.Info("l5/server: owner", "owner", event.Owner, "live", event.Live)
		if l.config.OnOwner != nil {
			l.config.OnOwner(event)
		}
	}
}

// expect starts the grace period of an owner who is given something and has no stream.
func (l *leases) expect(owner string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.lost[owner]; owner != "" && !known && l.streams[owner] == 0 {
		l.lost[owner] = now
	}
}

// mark makes the rows' suspicion agree with the streams: callers and other servers see it.
func (l *leases) mark(ctx context.Context) error {
	l.mu.Lock()
	owners := slices.Sorted(maps.Keys(l.changed))
	clear(l.changed)
	l.mu.Unlock()
	var names []id
	for _, owner := range owners {
		names = append(names, l.registry.ownedBy(owner)...)
	}
	err := l.suspect(ctx, names)
	if err != nil {
		l.mu.Lock()
		for _, owner := range owners {
			l.changed[owner] = struct{}{}
		}
		l.mu.Unlock()
	}
	return err
}

// suspect writes for each instance whether its owner is lost.
func (l *leases) suspect(ctx context.Context, names []id) error {
	if len(names) == 0 {
		return nil
	}
	_, err := l.registry.edit(ctx, names, func(name id, have *row) (l5.Instance, verb) {
		if have == nil {
			return l5.Instance{}, leave
		}
		// The stream may have come or gone since: what holds now counts.
		l.mu.Lock()
		_, lost := l.lost[have.Owner]
		l.mu.Unlock()
		if have.Suspect == lost {
			return l5.Instance{}, leave
		}
		next := have.Instance
		next.Suspect = lost
		return next, put
	})
	return err
}

// expire removes what is due, within the bounds.
func (l *leases) expire(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	var due []id
	for _, owner := range slices.Sorted(maps.Keys(l.lost)) {
		if now.Sub(l.lost[owner]) < l.config.Grace {
			continue
		}
		owned := l.registry.ownedBy(owner)
		if len(owned) == 0 {
			delete(l.lost, owner)
		}
		due = append(due, owned...)
	}
	expire, held := l.expiry.decide(now, due, l.registry.size)
	for name, reason := range held {
		if _, known := l.held[name]; !known {
			l.config.Logger.Warn("l5/server: an instance should expire", "service", name.service, "addr", name.addr, "reason", reason)
		}
	}
	l.held = held
	l.mu.Unlock()
	l.metrics.held.Set(float64(len(held)))
	if len(expire) == 0 {
		return nil
	}
	_, err := l.registry.edit(ctx, expire, func(name id, have *row) (l5.Instance, verb) {
		if have == nil {
			return l5.Instance{}, leave
		}
		l.mu.Lock()
		_, lost := l.lost[have.Owner]
		l.mu.Unlock()
		if !lost {
			return l5.Instance{}, leave
		}
		return l5.Instance{}, remove
	})
	if err == nil {
		for _, name := range expire {
			l.config.Logger.Info("l5/server: instance expired: its owner's stream was lost", "service", name.service, "addr", name.addr, "grace", l.config.Grace)
		}
		l.metrics.expired.Add(float64(len(expire)))
	}
	return err
}
