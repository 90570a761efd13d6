package flow

import "sync"

// bells tell those who wait that something has come of an execution. There is one for each execution that somebody waits for, and no other.
type bells struct {
	mu sync.Mutex // guards what follows
	of map[string]*bell
}

// bell is what those share who wait for the same execution.
type bell struct {
	rung    chan struct{} // closed with the next thing that comes
	waiting int           // guarded by bells.mu
}

// wait joins those who wait for the next thing of an execution, and leaves the bell that was waited for before; nil is none.
func (b *bells) wait(id string, before *bell) *bell {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(id, before)
	one := b.of[id]
	if one == nil {
		one = &bell{rung: make(chan struct{})}
		if b.of == nil {
			b.of = map[string]*bell{}
		}
		b.of[id] = one
	}
	one.waiting++
	return one
}

// leave is the reverse of wait.
func (b *bells) leave(id string, one *bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(id, one)
}

// drop is leave for who holds the mutex.
func (b *bells) drop(id string, one *bell) {
	if one == nil {
		return
	}
	if one.waiting--; one.waiting == 0 && b.of[id] == one {
		delete(b.of, id)
	}
}

// waited reports whether somebody waits for the next thing of an execution.
func (b *bells) waited(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.of[id] != nil
}

// ring tells those who wait for an execution.
func (b *bells) ring(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one := b.of[id]; one != nil {
		close(one.rung)
		delete(b.of, id)
	}
}

// ringIf tells those who wait for executions of which which says so.
func (b *bells) ringIf(which func(id string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, one := range b.of {
		if which(id) {
			close(one.rung)
			delete(b.of, id)
		}
	}
}
