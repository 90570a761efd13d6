package flow

import (
	"context"
	"fmt"
	"sync"
)

// maxBatch bounds how many transitions one commit carries.
const maxBatch = 512

// committer turns all transitions that arrive while a commit is in flight into the next one. It has no goroutine: whoever comes to an idle
// committer leads, commits what has gathered until its own transition is through, and hands the lead to one that waits.
type committer struct {
	store   Store
	context func() context.Context // of a commit: ends when nobody waits for the store any more
	failed  func(error)            // called once, when the store has failed

	spare sync.Pool // of pendings: every step needs one for the time of a commit

	mu    sync.Mutex // guards what follows
	queue []*pending
	busy  bool
	err   error
}

type pending struct {
	transition Transition
	fate       error
	wake       chan bool // true: lead; false: your fate is there
}

// commit returns once the transition is durable or refused.
func (c *committer) commit(t Transition) error {
	p, _ := c.spare.Get().(*pending)
	if p == nil {
		p = &pending{wake: make(chan bool, 1)}
	}
	p.transition = t
	defer func() {
		p.transition, p.fate = Transition{}, nil
		c.spare.Put(p)
	}()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.queue = append(c.queue, p)
	if c.busy {
		c.mu.Unlock()
		if lead := <-p.wake; !lead {
			return p.fate
		}
		c.mu.Lock()
	}
	c.busy = true
	batch := c.queue
	if len(batch) > maxBatch {
		batch = batch[:maxBatch:maxBatch]
	}
	c.queue = append([]*pending(nil), c.queue[len(batch):]...)
	c.mu.Unlock()

	c.write(batch)
	c.mu.Lock()
	switch {
	case len(c.queue) > 0:
		c.queue[0].wake <- true // before the others wake, so that the disk does not wait for them
	default:
		c.busy = false
	}
	c.mu.Unlock()
	for _, one := range batch {
		if one != p {
			one.wake <- false
		}
	}
	return p.fate
}

// write commits a batch. Its leader is the first of it.
func (c *committer) write(batch []*pending) {
	transitions := make([]Transition, len(batch))
	for i, one := range batch {
		transitions[i] = one.transition
	}
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
