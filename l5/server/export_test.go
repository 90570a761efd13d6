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
	r := newRegistry(s, 0.3, slog.New(slog.DiscardHandler), time.Now)
	r.plantedBug = plant
	return &Replica{Hub: r.hub, registry: r}
}

// Load lists the store.
func (r *Replica) Load(ctx context.Context) error {
	if err := r.registry.nameEpoch(ctx); err != nil {
		return err
	}
	return r.registry.load(ctx)
}

// Apply applies a commit.
func (r *Replica) Apply(e store.Event) {
	r.registry.commit(e)
}

// Key and Encode are how an instance is kept.
func Key(service, addr string) string               { return id{service, addr}.key() }
func Encode(instance l5.Instance) (store.Op, error) { return encode(instance) }

// Removed is the operation that goes with the removal of instances.
func Removed(service string, addrs ...string) store.Op { return removed(service, addrs...) }

// Decode is the reverse of Encode; false for a record that is no instance.
func Decode(record store.Record) (l5.Instance, bool) {
	name, ok := parseKey(record.Key)
	if !ok || name.addr == "" {
		return l5.Instance{}, false
	}
	p, err := pack(name, record)
	if err != nil {
		return l5.Instance{}, false
	}
	return p.unpack(name.service).Instance, true
}

// SetClock has a server that is made of c tell the time by now.
func SetClock(c *Config, now func() time.Time) { c.now = now }

// Expiry is the decision what may expire.
type Expiry struct {
	expiry  expiry
	history []expired
}

// NewExpiry returns one with its bounds.
func NewExpiry(perMinute int, share float64) *Expiry {
	return &Expiry{expiry: expiry{perMinute: perMinute, share: share}}
}

// Decide takes addresses of one service and its size.
func (e *Expiry) Decide(now time.Time, service string, addrs []string, size int) (expire []string, held map[string]string) {
	due := make([]id, len(addrs))
	for i, addr := range addrs {
		due[i] = id{service, addr}
	}
	out, why, history := e.expiry.decide(now, since(now, decodeHistory(encodeHistory(now, e.history)), false), due, func(string) int { return size })
	e.history = history
	for _, name := range out {
		expire = append(expire, name.addr)
	}
	held = make(map[string]string)
	for name, reason := range why {
		held[name.addr] = reason
	}
	return expire, held
}

// Wire returns what subscribers are given of a record; false: nothing.
func Wire(record store.Record) ([]byte, bool) {
	name, ok := parseKey(record.Key)
	if !ok {
		return nil, false
	}
	p, err := pack(name, record)
	return p.wire, err == nil
}

// Intake is what reports go to, for tests.
type Intake struct{ in *intake }

// NewIntake returns one of which service "a" has instances at 127.0.0.1:1 and :2, and "b" one at 127.0.0.1:1.
func NewIntake() Intake {
	return Intake{newIntake(nil, func(service, addr string) (bool, bool) {
		return service == "a" || service == "b", addr == "127.0.0.1:1" || service == "a" && addr == "127.0.0.1:2"
	})}
}

// Held returns how many services and instances are remembered.
func (i Intake) Held() (services, instances int) {
	i.in.mu.Lock()
	defer i.in.mu.Unlock()
	instances = len(i.in.busy)
	for _, r := range i.in.reporters {
		services, instances = services+len(r.services), instances+len(r.busy)
	}
	return services, instances
}

// Hear notes what a reporter tells of one instance.
func (i Intake) Hear(now time.Time, reporterID, service, addr string, requests, inFlight int64) {
	i.in.mu.Lock()
	defer i.in.mu.Unlock()
	r := i.in.reporters[reporterID]
	if r == nil {
		r = &reporter{}
		i.in.reporters[reporterID] = r
	}
	r.seen = now
	i.in.hear(r, service, addr, requests, inFlight, now)
}

func (i Intake) Leaving(now time.Time, service, addr string, since time.Time) Leaving {
	return i.in.leaving(now, service, addr, since)
}

func (i Intake) Forget(now time.Time) { i.in.forget(now) }
