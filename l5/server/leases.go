package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// leases is the shell around tenure: it keeps this server's records in the store, follows those of the others, and, while
// it is the keeper, marks what lost owners had registered and expires it.
//
//	          opened                        closed by the peer
//	(none) ---------------> live(streams>0) ------------------> lost(since) --grace--> expiring
//	                          ^                                  |                      |
//	                          +------ a stream to any server ----+----------------------+
type leases struct {
	config   Config
	registry *registry
	metrics  *metrics
	expiry   expiry
	kick     chan struct{}

	mu      sync.Mutex
	tenure  *tenure              // guarded by mu
	history []expired            // guarded by mu
	shards  map[string]struct{}  // guarded by mu; of this server's holds, to be written
	marks   map[string]struct{}  // guarded by mu; owners whose rows' suspicion is to be looked at
	led     bool                 // guarded by mu; was the keeper when it last looked
	held    map[id]string        // guarded by mu; instances that should have expired, and why they did not
	renewed map[string]time.Time // guarded by mu; owners without a stream, and until when they count as holding one
	beaten  time.Time            // guarded by mu; when the last beat was acknowledged
	cut     chan struct{}        // guarded by mu; closed when register streams are to go elsewhere
}

func newLeases(config Config, r *registry) *leases {
	return &leases{
		config: config, registry: r, expiry: expiry{perMinute: config.ExpiriesPerMinute, share: config.ExpiryShare}, kick: make(chan struct{}, 1),
		tenure: newTenure(uid.New(), min(max(config.Grace/10, 20*time.Millisecond), time.Second)),
		shards: make(map[string]struct{}), marks: make(map[string]struct{}), held: make(map[id]string),
		renewed: make(map[string]time.Time), cut: make(chan struct{}),
	}
}

// suspectAfter is how long an owner is lost before its instances are marked: one that only moves to another server is
// back before.
func (l *leases) suspectAfter() time.Duration { return min(l.config.Grace/5, 2*time.Second) }

// opened counts a stream of owner.
func (l *leases) opened(owner string, now time.Time) { l.stream(owner, now, 1) }

// closed uncounts a stream of owner.
func (l *leases) closed(owner string, now time.Time) { l.stream(owner, now, -1) }

func (l *leases) stream(owner string, now time.Time, step int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tenure.stream(now, owner, step) {
		l.shards[shardOf(owner)] = struct{}{}
		l.signal()
	}
}

// renew makes owner count as holding a stream for a while.
func (l *leases) renew(owner string, now time.Time, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, has := l.renewed[owner]; !has && l.tenure.stream(now, owner, 1) {
		l.shards[shardOf(owner)] = struct{}{}
		l.signal()
	}
	l.renewed[owner] = now.Add(ttl)
}

// lapse uncounts owners who did not renew.
func (l *leases) lapse(now time.Time) {
	for owner, until := range l.renewed {
		if now.After(until) {
			delete(l.renewed, owner)
			if l.tenure.stream(now, owner, -1) {
				l.shards[shardOf(owner)] = struct{}{}
			}
		}
	}
}

func (l *leases) signal() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// live returns the owners with an open stream to any server, in order.
func (l *leases) live() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tenure.owners()
}

// own returns the owners with a stream to this server, in order.
func (l *leases) own() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.tenure.local))
}

// status says whether an owner has a stream, and why an instance of it is still there if it should not be.
func (l *leases) status(owner string, name id) (live bool, held string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return owner == "" || l.tenure.live(owner), l.held[name]
}

// away returns a channel that is closed when this server's register streams are to go elsewhere: the others are about to
// take it for dead. While it is closed, new ones are refused.
func (l *leases) away() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// expect starts the grace period of an owner who is given something and has no stream.
func (l *leases) expect(owner string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenure.expect(now, owner)
}

// run keeps the leases until ctx ends; then it takes this server's records back, so that nobody waits for it.
func (l *leases) run(ctx context.Context) error {
	if err := l.registry.loaded(ctx); err != nil {
		return err
	}
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { _ = l.registry.retry(ctx, l.follow) }) // ends with ctx
	others.Go(func() { l.beats(ctx) })
	// What comes in a crowd is taken in a crowd: agents come by the thousand when a server went away.
	pace := time.NewTicker(min(l.tenure.beat/4, 20*time.Millisecond))
	defer pace.Stop()
	for due := l.config.now(); ; {
		now := l.config.now()
		l.try(ctx, "this server's streams are not noted", l.note)
		l.try(ctx, "lost owners are not looked after", func(ctx context.Context) error {
			if err := l.look(ctx, now); err != nil || now.Before(due) {
				return err
			}
			due = now.Add(l.tenure.beat / 2)
			return l.decide(ctx, now)
		})
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
		select {
		case <-ctx.Done():
			l.leave(context.WithoutCancel(ctx))
			return ctx.Err()
		case <-l.kick:
		case <-time.After(due.Sub(l.config.now())):
		}
	}
}

// try runs do, not for longer than it takes a server to be dead.
func (l *leases) try(ctx context.Context, otherwise string, do func(context.Context) error) {
	bounded, cancel := context.WithTimeout(ctx, beatsToDeath*l.tenure.beat)
	defer cancel()
	if err := do(bounded); err != nil && ctx.Err() == nil {
		l.config.Logger.Warn("l5/server: "+otherwise+", trying again", "error", err)
	}
}

// look judges, tells who came and went, and makes this server the keeper if there is none.
func (l *leases) look(ctx context.Context, now time.Time) error {
	newcomers := l.registry.newcomers()
	l.mu.Lock()
	for _, owner := range newcomers {
		l.tenure.expect(now, owner)
	}
	l.lapse(now)
	l.tenure.tick(now)
	events := l.tenure.take()
	for _, event := range events {
		l.marks[event.Owner] = struct{}{}
	}
	leads, vacant, fence := l.tenure.leads(), l.tenure.vacant(), l.tenure.fence
	if leads && !l.led {
		for _, owner := range l.registry.owners() {
			l.marks[owner] = struct{}{}
		}
	}
	l.led = leads
	l.mu.Unlock()
	for _, event := range events {
		l.config.Logger.Info("l5/server: owner", "owner", event.Owner, "live", event.Live)
		if l.config.OnOwner != nil {
			l.config.OnOwner(event)
		}
	}
	if vacant {
		_, err := l.registry.store.Commit(ctx, store.Put(keeperKey, []byte(l.tenure.self)).At(fence))
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("become the keeper of leases: %w", err)
		}
		return nil // its watch tells
	}
	if leads {
		return l.mark(ctx, now, store.Check(keeperKey, fence))
	}
	return nil
}

// decide acts on what is due if this server is the keeper, and otherwise knows why nothing is done.
func (l *leases) decide(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	leads, guard := l.tenure.leads(), store.Check(keeperKey, l.tenure.fence)
	l.mu.Unlock()
	if err := l.registry.release(ctx, now); err != nil {
		return err
	}
	if err := l.expire(ctx, now, leads, guard); err != nil || !leads {
		return err
	}
	return l.bury(ctx, now, guard)
}

// mark makes the rows' suspicion agree with who is lost: callers and other servers see it.
func (l *leases) mark(ctx context.Context, now time.Time, guard store.Op) error {
	l.mu.Lock()
	var owners []string
	for owner := range l.marks {
		since, lost := l.tenure.lost[owner]
		if !lost || now.Sub(since) >= l.suspectAfter() {
			owners = append(owners, owner)
		} // else it may be back before anybody needs to know
	}
	for _, owner := range owners {
		delete(l.marks, owner)
	}
	l.mu.Unlock()
	slices.Sort(owners)
	var names []id
	for _, owner := range owners {
		names = append(names, l.registry.ownedBy(owner)...)
	}
	if len(names) == 0 {
		return nil
	}
	_, err := l.registry.edit(ctx, names, func(name id, have *row) (l5.Instance, verb) {
		if have == nil {
			return l5.Instance{}, leave
		}
		// The stream may have come or gone since: what holds now counts.
		lost := l.isLost(have.Owner)
		if have.Suspect == lost {
			return l5.Instance{}, leave
		}
		next := have.Instance
		next.Suspect = lost
		return next, put
	}, guard)
	if err != nil {
		l.mu.Lock()
		for _, owner := range owners {
			l.marks[owner] = struct{}{}
		}
		l.mu.Unlock()
		return deposed(err)
	}
	return nil
}

func (l *leases) isLost(owner string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, lost := l.tenure.lost[owner]
	return lost
}

// deposed turns the refusal of a write by the fence into nothing: another server is the keeper now, and the watch tells.
func deposed(err error) error {
	var conflict *store.ConflictError
	if errors.As(err, &conflict) && conflict.Key == keeperKey {
		return nil
	}
	return err
}

// expire decides what is due, and removes it if this server is the keeper. The others decide, too: they say why
// something is held.
func (l *leases) expire(ctx context.Context, now time.Time, leads bool, guard store.Op) error {
	l.mu.Lock()
	var due []id
	for _, owner := range l.tenure.due(now, l.config.Grace) {
		owned := l.registry.ownedBy(owner)
		if len(owned) == 0 {
			delete(l.tenure.lost, owner)
		}
		due = append(due, owned...)
	}
	expire, held, history := l.expiry.decide(now, l.history, due, l.registry.size)
	for name, reason := range held {
		if _, known := l.held[name]; !known && leads {
			l.config.Logger.Warn("l5/server: an instance should expire", "service", name.service, "addr", name.addr, "reason", reason)
		}
	}
	l.held = held
	l.mu.Unlock()
	l.metrics.held.Set(float64(len(held)))
	if len(expire) == 0 || !leads {
		return nil
	}
	_, err := l.registry.edit(ctx, expire, func(name id, have *row) (l5.Instance, verb) {
		if have == nil || !l.isLost(have.Owner) {
			return l5.Instance{}, leave
		}
		return l5.Instance{}, remove
	}, guard, store.Put(expiriesKey, encodeHistory(now, history)))
	if err != nil {
		return deposed(err)
	}
	l.mu.Lock()
	l.history = history // before the watch tells, lest the same is allowed twice
	l.mu.Unlock()
	for _, name := range expire {
		l.config.Logger.Info("l5/server: instance expired: its owner's stream was lost", "service", name.service, "addr", name.addr, "grace", l.config.Grace)
	}
	l.metrics.expired.Add(float64(len(expire)))
	return nil
}

// bury removes the records of servers that died long ago.
func (l *leases) bury(ctx context.Context, now time.Time, guard store.Op) error {
	l.mu.Lock()
	keys := l.tenure.remains(now)
	l.mu.Unlock()
	for batch := range slices.Chunk(keys, maxOps) {
		ops := []store.Op{guard}
		for _, key := range batch {
			ops = append(ops, store.Delete(key))
		}
		if _, err := l.registry.store.Commit(ctx, ops...); err != nil {
			return deposed(err)
		}
	}
	return nil
}
