package door

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// Names is where a door looks services up; *agent.Agent is one. Lookup returns what caller may know about service, and a
// channel that is closed when to look again. The first call for a service waits for it until ctx ends. Errors match
// l5.ErrDenied, with the channel, or are those of ctx or of Bound, without.
type Names interface {
	Lookup(ctx context.Context, caller, service string) (agent.View, <-chan struct{}, error)
}

var _ Names = (*agent.Agent)(nil)

// ByClient makes Names of a client, whose caller is the only one: the weights are those that the client routes by.
func ByClient(client *l5.Client) Names { return byClient{client} }

type byClient struct{ *l5.Client }

// Lookup implements Names.
func (c byClient) Lookup(ctx context.Context, caller, service string) (agent.View, <-chan struct{}, error) {
	known, changed, err := c.Follow(ctx, service)
	switch {
	case err != nil:
		return agent.View{}, nil, err
	case known.Denied != "":
		return agent.View{Service: service}, changed, &l5.RouteError{Caller: caller, Service: service, Reason: known.Denied, Err: l5.ErrDenied}
	}
	view := agent.View{Service: service, Epoch: known.Epoch, Revision: known.Revision, Panic: known.Panic, Members: make([]agent.Member, len(known.Instances))}
	for i, m := range known.Instances {
		view.Members[i] = agent.Member{Instance: m.Instance, Weight: m.Weight, Health: m.Health, Reason: m.Reason}
	}
	return view, changed, nil
}

// ErrBusy says that a door holds as many names as it may: ask for one of them, or later.
var ErrBusy = errors.New("l5/door: as many services are looked up as the door's bound allows")

// Bound keeps those who can make up names from having the agent subscribe to all of them: at most most services are
// looked up within any span of time linger. Others are ErrBusy.
func Bound(names Names, most int, linger time.Duration) Names {
	return &bound{names: names, most: most, linger: linger, seen: make(map[string]time.Time)}
}

type bound struct {
	names  Names
	most   int
	linger time.Duration

	mu   sync.Mutex
	seen map[string]time.Time // guarded by mu; when a service was last asked for
}

// Lookup implements Names.
func (b *bound) Lookup(ctx context.Context, caller, service string) (agent.View, <-chan struct{}, error) {
	if !b.admit(service, time.Now()) {
		return agent.View{}, nil, fmt.Errorf("look up %q: %w", service, ErrBusy)
	}
	return b.names.Lookup(ctx, caller, service)
}

func (b *bound) admit(service string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.seen[service]; !known && len(b.seen) >= b.most {
		client, _ := b.names.(byClient)
		for other, at := range b.seen {
			if now.Sub(at) >= b.linger && (client.Client == nil || client.Forget(other)) {
				delete(b.seen, other)
			}
		}
		if len(b.seen) >= b.most {
			return false
		}
	}
	b.seen[service] = now
	return true
}
