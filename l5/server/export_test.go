package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
)

// Replica is a registry that is moved step by step.
type Replica struct {
	Hub      *hub.Hub
	registry *registry
}

// NewReplica returns a replica of s with a planted bug; empty: none.
func NewReplica(s store.Store, plant string) *Replica {
	h := hub.New(true)
	r := newRegistry(s, h, slog.New(slog.DiscardHandler))
	r.plantedBug = plant
	return &Replica{Hub: h, registry: r}
}

// Load lists the store.
func (r *Replica) Load(ctx context.Context) error {
	if err := r.registry.nameEpoch(ctx); err != nil {
		return err
	}
	return r.registry.load(ctx)
}

// Apply applies a commit.
func (r *Replica) Apply(e store.Event) error {
	var gone []id
	for _, key := range e.Deletes {
		if name, ok := parseKey(key); ok {
			gone = append(gone, name)
		}
	}
	return r.registry.apply(e.Revision, e.Puts, gone)
}

// Key and Encode are how an instance is kept.
func Key(service, addr string) string               { return id{service, addr}.key() }
func Encode(instance l5.Instance) (store.Op, error) { return encode(instance) }

// Expiry is the decision what may expire.
type Expiry struct{ expiry expiry }

// NewExpiry returns one with its bounds.
func NewExpiry(perMinute int, share float64) *Expiry {
	return &Expiry{expiry{perMinute: perMinute, share: share}}
}

// Decide takes addresses of one service and its size.
func (e *Expiry) Decide(now time.Time, service string, addrs []string, size int) (expire []string, held map[string]string) {
	due := make([]id, len(addrs))
	for i, addr := range addrs {
		due[i] = id{service, addr}
	}
	out, why := e.expiry.decide(now, due, func(string) int { return size })
	for _, name := range out {
		expire = append(expire, name.addr)
	}
	held = make(map[string]string)
	for name, reason := range why {
		held[name.addr] = reason
	}
	return expire, held
}
