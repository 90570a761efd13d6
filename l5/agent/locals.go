package agent

import (
	"context"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/lease"
)

// locals knows which of the device's programs registered what, and removes what they leave behind: that a program's
// connection on the same device broke is as good as its own word.
//
//	          put by a stream                stream lost                LocalGrace
//	(none) ------------------> attended ------------------> orphaned ---------------> removed
//	                              ^                            |
//	                              +----- put by a stream ------+
type locals struct {
	keeper *lease.Keeper
	config Config

	mu   sync.Mutex
	held map[local]*holding // guarded by mu
}

type local struct{ service, addr string }

type holding struct {
	stream any       // the one that put it last; nil: none
	since  time.Time // since when there is none
	own    bool      // registered by the agent's own program
	module string    // of the process that put it; empty: not known
}

func newLocals(keeper *lease.Keeper, config Config) *locals {
	return &locals{keeper: keeper, config: config, held: make(map[local]*holding)}
}

// put says that stream attends to an instance.
func (l *locals) put(stream any, service, addr, module string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[local{service, addr}] = &holding{stream: stream, module: module}
}

// theAgent stands for the module of what the agent's own program has registered.
const theAgent = "(the agent itself)"

// module is whose process registered an instance, or fallback if that is not known.
func (l *locals) module(service, addr, fallback string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch h := l.held[local{service, addr}]; {
	case h == nil:
		return fallback
	case h.own:
		return theAgent
	case h.module != "":
		return h.module
	}
	return fallback
}

// own says that the agent's own program attends to an instance.
func (l *locals) own(service, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[local{service, addr}] = &holding{own: true}
}

// orphan says that nobody attends to an instance yet: it was found on disk.
func (l *locals) orphan(service, addr, module string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[local{service, addr}] = &holding{since: now, module: module}
}

// drop forgets an instance that was removed.
func (l *locals) drop(service, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, local{service, addr})
}

// lost says that a stream ended.
func (l *locals) lost(stream any, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.held {
		if h.stream == stream {
			h.stream, h.since = nil, now
		}
	}
}

func (l *locals) run(ctx context.Context) error {
	ticker := time.NewTicker(max(l.config.LocalGrace/20, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			for _, name := range l.due(l.config.now()) {
				l.config.Logger.Info("l5/agent: instance removed: the program that registered it is gone", "service", name.service, "addr", name.addr)
				l.keeper.Withdraw(name.service, name.addr)
			}
		}
	}
}

func (l *locals) due(now time.Time) (gone []local) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, h := range l.held {
		if !h.own && h.stream == nil && now.Sub(h.since) >= l.config.LocalGrace {
			delete(l.held, name)
			gone = append(gone, name)
		}
	}
	return gone
}
