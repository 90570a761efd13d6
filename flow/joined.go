package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// claimBatch is how many executions a member claims at a time.
const claimBatch = 128

// errStranded is why a verb cannot reach an execution.
var errStranded = fmt.Errorf("%w: its definition does not compile with the tools registered here; mend the tools and start the engine again", ErrState)

// join keeps the engine a member of its Shared store until ctx ends.
func (e *Engine) join(ctx context.Context) {
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { e.listen(ctx) })
	background.Go(func() { e.follow(ctx) })
	known := &letters{known: map[int64]bool{}}
	for ctx.Err() == nil {
		e.mu.Lock()
		e.part.draining = e.draining
		do, wait := e.part.decide(time.Now())
		member := e.part.member
		e.mu.Unlock()
		switch do {
		case doJoin:
			number, err := e.shared.Join(ctx, e.config.Name, e.part.lease())
			e.tellPart(ctx, "join", err, func() { e.part.joined(time.Now(), number, err) })
			if err == nil {
				e.log.Info("joined", "member", number, "name", e.config.Name)
			}
		case doBeat:
			sent := time.Now()
			beat, err := e.beat(ctx, member)
			e.tellPart(ctx, "beat", err, func() {
				e.part.beaten(sent, time.Now(), beat, err)
				clear(e.latest) // another engine may have saved a version
			})
			if err == nil {
				e.hear(ctx, &background, beat, known)
			}
		case doClaim:
			rows, err := e.shared.Claim(ctx, member, claimBatch)
			e.tellPart(ctx, "claim", err, func() { e.part.claimed(time.Now(), len(rows), claimBatch, err) })
			if len(rows) > 0 {
				background.Go(func() { e.takeOver(ctx, member, rows) })
			}
		case doDrop:
			e.log.Warn("fenced: others own what ran here; joining them again", "member", member)
			e.dropMember(ctx, member)
			e.tellPart(ctx, "", nil, func() { e.part.dropped(time.Now()) })
			known.forget()
		case doWait:
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-e.poked:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}
}

// tellPart tells the membership what came of a call, and logs the first failure of a row.
func (e *Engine) tellPart(ctx context.Context, what string, err error, tell func()) {
	e.mu.Lock()
	before := e.part.failures
	tell()
	after := e.part.failures
	e.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil && before == 0:
		e.log.Warn("the store does not answer; trying again", "to", what, "error", err)
	case err == nil && before > 0 && after == 0:
		e.log.Info("the store answers again")
	}
}

// beat says that the member lives. One that is not answered within a heartbeat is another failure.
func (e *Engine) beat(ctx context.Context, member int64) (Beat, error) {
	ctx, cancel := context.WithTimeout(ctx, max(e.config.Heartbeat, time.Second))
	defer cancel()
	return e.shared.Beat(ctx, member)
}

// hear acts on what a beat brought.
func (e *Engine) hear(ctx context.Context, background *sync.WaitGroup, beat Beat, known *letters) {
	for _, member := range beat.Removed {
		e.log.Warn("an engine has gone silent; taking over what it ran", "member", member)
		e.metrics.removed()
	}
	e.metrics.members(beat.Members)
	if beat.Lead {
		e.pokeNotices()
	}
	for _, l := range known.fresh(beat.Letters) {
		background.Go(func() {
			if err := e.handIn(ctx, l); err != nil {
				known.again(l.ID)
			}
		})
	}
}

// letters are those that this engine has in hand.
type letters struct {
	mu    sync.Mutex // guards what follows
	known map[int64]bool
}

// maxLetters is how many letters a beat brings at most.
const maxLetters = 100

// fresh returns the letters that are not in hand yet. A letter that a beat does not list any more is answered.
func (k *letters) fresh(listed []Letter) []Letter {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(listed) < maxLetters {
		maps.DeleteFunc(k.known, func(id int64, _ bool) bool {
			return !slices.ContainsFunc(listed, func(l Letter) bool { return l.ID == id })
		})
	}
	var out []Letter
	for _, l := range listed {
		if !k.known[l.ID] {
			k.known[l.ID] = true
			out = append(out, l)
		}
	}
	return out
}

// again has a letter that could not be handed in come with the next beat.
func (k *letters) again(id int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, id)
}

func (k *letters) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.known)
}

// takeOver takes up what the member has claimed, but for what rests, again and again while the store is away, for as long as the member is one.
func (e *Engine) takeOver(ctx context.Context, member int64, rows []Row) {
	e.metrics.claimed(len(rows))
	wait := e.config.Heartbeat / 20
	var ids []string
	for _, row := range rows {
		if !e.rests(row, member) {
			ids = append(ids, row.ID)
		}
	}
	for len(ids) > 0 && ctx.Err() == nil && e.isMember(member) {
		var mu sync.Mutex
		var left []string
		var group sync.WaitGroup
		for _, id := range ids {
			group.Go(func() {
				if err := e.adopt(ctx, id, member); err != nil && !errors.Is(err, errStranded) {
					mu.Lock()
					defer mu.Unlock()
					left = append(left, id)
				}
			})
		}
		group.Wait()
		if ids = left; len(ids) == 0 {
			break
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, e.config.Heartbeat)
		case <-ctx.Done():
		}
	}
	e.mu.Lock()
	if e.part.member == member {
		e.part.adopted()
	}
	e.mu.Unlock()
	e.poke()
}

func (e *Engine) isMember(member int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.part.current() == member
}

// lost takes in that a commit was refused because its member is one no more.
func (e *Engine) lost(member int64) {
	e.mu.Lock()
	e.part.lost(member, ErrFenced)
	e.mu.Unlock()
	e.poke()
}

// dropMember ends everything that runs for a member: others go on with it. Attempts here are stopped, those on devices go on for the next owner.
// It waits for the attempts here to have ended, for the grace period at most: what is claimed back starts afresh.
func (e *Engine) dropMember(ctx context.Context, member int64) {
	e.mu.Lock()
	var runs []*run
	for id, r := range e.runs {
		if r.owner == member {
			runs = append(runs, r)
			delete(e.runs, id)
		}
	}
	e.mu.Unlock()
	e.resting.forget(member)
	for _, r := range runs {
		r.abandon()
	}
	ended := make(chan struct{})
	go func() { // ends when the attempts have, for which Run waits
		for _, r := range runs {
			r.flying.Wait()
		}
		close(ended)
	}()
	timer := time.NewTimer(e.config.Grace)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// abandon ends a run that others own now.
func (r *run) abandon() {
	r.close(errNotLive)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, stop := range r.stops {
		stop(ErrClosed)
	}
}

// listen hears of what there is to do before the next beat.
func (e *Engine) listen(ctx context.Context) {
	for ctx.Err() == nil {
		_ = e.shared.Listen(ctx, e.poke) // the next beat brings what is missed
		select {
		case <-time.After(e.config.Heartbeat / 2):
			e.poke()
		case <-ctx.Done():
		}
	}
}

// poke has the next beat come at once, and wakes those who wait for an answer.
func (e *Engine) poke() {
	e.mu.Lock()
	e.part.wake(time.Now())
	if e.stirred != nil {
		close(e.stirred)
		e.stirred = nil
	}
	e.mu.Unlock()
	select {
	case e.poked <- struct{}{}:
	default:
	}
}

// woken returns a channel that is closed when the store has said that something happened.
func (e *Engine) woken() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stirred == nil {
		e.stirred = make(chan struct{})
	}
	return e.stirred
}

// follow looks after executions that somebody here waits for or watches, and that another engine runs.
func (e *Engine) follow(ctx context.Context) {
	ticker := time.NewTicker(min(max(e.config.Heartbeat/4, 20*time.Millisecond), 500*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		var waited []string
		for id := range e.ends {
			if e.runs[id] == nil {
				waited = append(waited, id)
			}
		}
		e.moved.ringIf(func(id string) bool { return e.runs[id] == nil }) // who waits looks for itself
		e.mu.Unlock()
		for _, id := range waited {
			row, err := e.config.Store.Get(ctx, id)
			if err != nil || !row.State.Ended() {
				continue
			}
			x, err := e.load(ctx, id)
			if err != nil {
				continue // the next tick looks again
			}
			e.mu.Lock()
			if end := e.ends[id]; end != nil {
				end.x = x
				close(end.done)
				delete(e.ends, id)
			}
			e.mu.Unlock()
		}
	}
}

// quit tells the others that they need not wait for the lease.
func (e *Engine) quit(ctx context.Context) {
	e.mu.Lock()
	member := e.part.member
	e.part.member = 0
	e.mu.Unlock()
	if member == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := e.shared.Leave(ctx, member); err != nil {
		e.log.Warn("could not leave; the others wait for the lease", "member", member, "error", err)
	}
}

// Leads reports whether this engine is the one that does what is done once for all engines of a store, such as starting flows by
// the clock: of several on a Shared store it is at most one, and the next within a lease when it dies; alone it is this one while it runs. What
// is done so should still be idempotent: a process that is stopped right after asking comes back late.
func (e *Engine) Leads() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || e.draining {
		return false
	}
	return e.shared == nil || e.part.leads(time.Now())
}
