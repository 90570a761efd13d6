package flow

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// maxBatch bounds how many transitions one commit carries.
const maxBatch = 512

// committer turns all transitions that arrive while a commit is in flight into the next one. Whoever comes to an idle committer commits for itself; what has gathered
// meanwhile is committed by a goroutine that goes on until nothing has, so that the disk waits for nobody who has other things to do. Those whose
// transitions it carries wait for it.
type committer struct {
	store   Store
	context func() context.Context // of a commit: ends when nobody waits for the store any more
	failed  func(error)            // called once, when the store has failed

	spare sync.Pool    // of pendings: every step needs one for the time of a commit
	batch []Transition // of whoever is busy: room for those of a commit

	mu    sync.Mutex // guards what follows
	queue []*pending
	busy  bool
	err   error
}

type pending struct {
	transition Transition
	fate       error
	done       chan struct{} // the fate is there
}

// commit returns once the transition is durable or refused.
func (c *committer) commit(t Transition) error {
	p, _ := c.spare.Get().(*pending)
	if p == nil {
		p = &pending{done: make(chan struct{}, 1)}
	}
	p.transition = t
	defer func() {
		p.transition, p.fate = Transition{}, nil
		c.spare.Put(p)
	}()
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	if c.busy {
		c.queue = append(c.queue, p)
		c.mu.Unlock()
		<-p.done
		return p.fate
	}
	c.busy = true
	c.mu.Unlock()
	c.write([]*pending{p})
	if batch := c.next(); batch != nil {
		go c.lead(batch) // ends when nobody waits for it any more
	}
	return p.fate
}

// lead commits a batch, and what has gathered by then, until nothing has.
func (c *committer) lead(batch []*pending) {
	for ; batch != nil; batch = c.next() {
		c.write(batch)
		for _, one := range batch {
			one.done <- struct{}{}
		}
		// Those who can run go first: what they commit rides in the next write instead of the one after, and so there are fewer, larger ones. A start that was
		// written also returns before others have overtaken it.
		runtime.Gosched()
	}
}

// next takes what has gathered; nil, and the committer is idle, if nothing has.
func (c *committer) next() []*pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxBatch)
	if n == 0 {
		c.busy = false
		return nil
	}
	batch := c.queue[:n:n]
	c.queue = append([]*pending(nil), c.queue[n:]...)
	return batch
}

// write commits a batch, and sets its fates.
func (c *committer) write(batch []*pending) {
	transitions := c.batch[:0]
	for _, one := range batch {
		transitions = append(transitions, one.transition)
	}
	defer func() {
		clear(transitions)
		c.batch = transitions
	}()
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	var fates []error
	if err == nil {
		if fates, err = c.store.Commit(c.context(), transitions); err != nil {
			err = fmt.Errorf("flow: the store failed, mend it and start the engine again: %w", err)
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			c.failed(err)
		}
	}
	for i, one := range batch {
		one.fate = err
		if err == nil && i < len(fates) {
			one.fate = fates[i]
		}
	}
}
