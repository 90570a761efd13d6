package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// registry is a replica of the store's instances: rows by service and by owner. Each commit of the store is applied
// as one step and published as one delta per service that it touches.
//
//	loading --list--> following --commit--> following
//	   ^                  |
//	   +-- compacted -----+
type registry struct {
	store  store.Store
	hub    *hub.Hub
	logger *slog.Logger

	plantedBug string // set by tests alone: a simulation that cannot fail proves nothing

	ready chan struct{} // closed when the first list is in

	mu       sync.Mutex
	epoch    string                     // guarded by mu
	revision int64                      // guarded by mu; applied up to here
	services map[string]map[string]*row // guarded by mu; by service, by address
	owned    map[string]map[id]struct{} // guarded by mu; by owner
	applied  chan struct{}              // guarded by mu; closed and replaced with each step
}

func newRegistry(s store.Store, h *hub.Hub, logger *slog.Logger) *registry {
	return &registry{
		store: s, hub: h, logger: logger, ready: make(chan struct{}), applied: make(chan struct{}),
		services: make(map[string]map[string]*row), owned: make(map[string]map[id]struct{}),
	}
}

// run loads and follows the store until ctx ends.
func (r *registry) run(ctx context.Context) error {
	if err := r.retry(ctx, r.nameEpoch); err != nil {
		return err
	}
	for {
		if err := r.retry(ctx, r.load); err != nil {
			return err
		}
		if err := r.retry(ctx, r.follow); err != nil && !errors.Is(err, store.ErrCompacted) {
			return err
		}
	}
}

// retry calls try until it succeeds, ctx ends or a watcher has fallen behind what the store keeps.
func (r *registry) retry(ctx context.Context, try func(context.Context) error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrCompacted) {
			return errors.Join(ctx.Err(), err)
		}
		r.logger.Warn("l5/server: the store does not answer; routes go on as they are, trying again", "error", err, "wait", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// nameEpoch reads the name of the store's history, or gives it one.
func (r *registry) nameEpoch(ctx context.Context) error {
	records, _, err := r.store.List(ctx, epochKey)
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	var epoch string
	for _, record := range records {
		if record.Key == epochKey {
			epoch = string(record.Value)
		}
	}
	if epoch == "" {
		epoch = uid.New()
		if _, err := r.store.Commit(ctx, store.Put(epochKey, []byte(epoch)).IfAbsent()); err != nil {
			return fmt.Errorf("write the epoch: %w", err)
		}
	}
	r.mu.Lock()
	r.epoch = epoch
	r.mu.Unlock()
	r.hub.SetEpoch(epoch)
	return nil
}

// load replaces the replica by a list of the store.
func (r *registry) load(ctx context.Context) error {
	records, revision, err := r.store.List(ctx, instancePrefix)
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	var gone []id
	listed := make(map[id]struct{}, len(records))
	for _, record := range records {
		if name, ok := parseKey(record.Key); ok {
			listed[name] = struct{}{}
		}
	}
	r.mu.Lock()
	for service, rows := range r.services {
		for addr := range rows {
			if _, ok := listed[id{service, addr}]; !ok && r.plantedBug != "reload keeps what is gone" {
				gone = append(gone, id{service, addr})
			}
		}
	}
	r.mu.Unlock()
	if err := r.apply(revision, records, gone); err != nil {
		return err
	}
	select {
	case <-r.ready:
	default:
		close(r.ready)
	}
	return nil
}

// follow applies commits as they come.
func (r *registry) follow(ctx context.Context) error {
	r.mu.Lock()
	after := r.revision
	r.mu.Unlock()
	for event, err := range r.store.Watch(ctx, instancePrefix, after) {
		if err != nil {
			return fmt.Errorf("watch instances: %w", err)
		}
		var gone []id
		for _, key := range event.Deletes {
			if name, ok := parseKey(key); ok {
				gone = append(gone, name)
			}
		}
		if err := r.apply(event.Revision, event.Puts, gone); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// apply makes one step to revision, and publishes it.
func (r *registry) apply(revision int64, puts []store.Record, gone []id) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision < r.revision {
		return nil
	}
	touched := make(map[string]*l5pb.Delta)
	change := func(service string) *l5pb.Delta {
		d := touched[service]
		if d == nil {
			d = &l5pb.Delta{Service: service, Epoch: r.epoch, Revision: revision}
			if r.plantedBug == "a revision is used twice" && revision%7 == 0 {
				d.Revision--
			}
			touched[service] = d
		}
		return d
	}
	for _, record := range puts {
		next, err := newRow(record)
		if err != nil {
			// One bad record must not take a service down: it is left as it was, and named.
			r.logger.Error("l5/server: a record of the store is left out", "error", err)
			continue
		}
		if old := r.services[next.Service][next.Addr]; old != nil {
			if old.revision == next.revision {
				continue
			}
			r.disown(old)
		}
		r.insert(next)
		d := change(next.Service)
		d.Put = append(d.Put, next.wire)
	}
	for _, name := range gone {
		if old := r.services[name.service][name.addr]; old != nil {
			r.disown(old)
			delete(r.services[name.service], name.addr)
			d := change(name.service)
			d.Remove = append(d.Remove, name.addr)
		}
	}
	r.revision = revision
	for service, d := range touched {
		if err := r.publish(service, d); err != nil {
			return err
		}
	}
	close(r.applied)
	r.applied = make(chan struct{})
	return nil
}

// publish hands a service's new state to the hub. Callers hold mu.
func (r *registry) publish(service string, d *l5pb.Delta) error {
	held, known := r.hub.View(service)
	if !known {
		snapshot := &l5pb.Snapshot{Service: service, Epoch: r.epoch, Revision: d.GetRevision(), Instances: d.GetPut()}
		return r.hub.Publish(view.Of(snapshot), nil)
	}
	d.Previous = held.Revision
	next, err := held.Advance(d)
	if err != nil {
		return err
	}
	if len(r.services[service]) == 0 {
		delete(r.services, service)
	}
	return r.hub.Publish(next, d)
}

func (r *registry) insert(next *row) {
	rows := r.services[next.Service]
	if rows == nil {
		rows = make(map[string]*row)
		r.services[next.Service] = rows
	}
	rows[next.Addr] = next
	if next.Owner == "" {
		return
	}
	if r.owned[next.Owner] == nil {
		r.owned[next.Owner] = make(map[id]struct{})
	}
	r.owned[next.Owner][id{next.Service, next.Addr}] = struct{}{}
}

func (r *registry) disown(old *row) {
	if owned := r.owned[old.Owner]; owned != nil {
		delete(owned, id{old.Service, old.Addr})
		if len(owned) == 0 {
			delete(r.owned, old.Owner)
		}
	}
}

// get returns a row, or nil.
func (r *registry) get(name id) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.services[name.service][name.addr]
}

// list returns a service's rows by address.
func (r *registry) list(service string) []*row {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.services[service]), func(a, b *row) int { return strings.Compare(a.Addr, b.Addr) })
}

// names returns the services that have instances, in order.
func (r *registry) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.services))
}

// size returns how many instances a service has.
func (r *registry) size(service string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.services[service])
}

// ownedBy returns the instances of an owner, in order.
func (r *registry) ownedBy(owner string) []id {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.owned[owner]), compareID)
}

// owners returns everyone who owns an instance, in order.
func (r *registry) owners() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.owned))
}

func compareID(a, b id) int {
	if c := strings.Compare(a.service, b.service); c != 0 {
		return c
	}
	return strings.Compare(a.addr, b.addr)
}

// await waits until the replica has applied revision: a writer reads its own writes, and so does everyone after it.
func (r *registry) await(ctx context.Context, revision int64) error {
	for {
		r.mu.Lock()
		have, applied := r.revision, r.applied
		r.mu.Unlock()
		if have >= revision {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return fmt.Errorf("l5/server: written at revision %d, not yet visible at %d: %w", revision, have, context.Cause(ctx))
		}
	}
}

// loaded waits until the first list is in.
func (r *registry) loaded(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("l5/server: the registry is not loaded yet; is Run running and the store reachable? %w", context.Cause(ctx))
	}
}

// maxOps is how many operations one commit carries: etcd's default limit is 128.
const maxOps = 100

// edit changes instances: for each name, change is called with the row in force (nil if absent) and returns the
// instance to write, or whether to delete or leave it. Lost races are run again on what won.
func (r *registry) edit(ctx context.Context, names []id, change func(name id, have *row) (l5.Instance, verb), guard ...store.Op) (int64, error) {
	if err := r.loaded(ctx); err != nil {
		return 0, err
	}
	var revision int64
	for batch := range slices.Chunk(names, maxOps-len(guard)) {
		got, err := r.editBatch(ctx, batch, change, guard)
		if err != nil {
			return revision, err
		}
		revision = max(revision, got)
	}
	return revision, r.await(ctx, revision)
}

type verb uint8

const (
	leave verb = iota
	put
	remove
)

func (r *registry) editBatch(ctx context.Context, names []id, change func(id, *row) (l5.Instance, verb), guard []store.Op) (int64, error) {
	for {
		ops := slices.Clone(guard)
		for _, name := range names {
			have := r.get(name)
			at := int64(0)
			if have != nil {
				at = have.revision
			}
			instance, do := change(name, have)
			switch do {
			case put:
				op, err := encode(instance)
				if err != nil {
					return 0, err
				}
				ops = append(ops, op.At(at))
			case remove:
				ops = append(ops, store.Delete(name.key()).At(at))
			}
		}
		if len(ops) == len(guard) {
			return 0, nil
		}
		revision, err := r.store.Commit(ctx, ops...)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) && strings.HasPrefix(conflict.Key, instancePrefix) {
			if err := r.catchUp(ctx, conflict); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("l5/server: write the registry: %w", err)
		}
		return revision, nil
	}
}

// catchUp waits until the replica has moved on from the row that lost the race.
func (r *registry) catchUp(ctx context.Context, lost *store.ConflictError) error {
	name, ok := parseKey(lost.Key)
	if !ok {
		return lost
	}
	for {
		r.mu.Lock()
		have, applied := int64(0), r.applied
		if current := r.services[name.service][name.addr]; current != nil {
			have = current.revision
		}
		r.mu.Unlock()
		if have != lost.Want {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return fmt.Errorf("l5/server: wait for the change that came first to %s: %w", lost.Key, context.Cause(ctx))
		}
	}
}
