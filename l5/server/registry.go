package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
)

// registry is a replica of the store's instances: rows by service and by owner. Each commit of the store is applied
// as one step and announced as one delta per service that it touches.
//
//	loading --list--> following --commit--> following
//	   ^                  |
//	   +-- compacted -----+
//
// A service's revision is that of the last commit that wrote one of its rows or removed one, as the store itself has it:
// the same on every server, and after a restart, so that whoever watches resumes anywhere.
type registry struct {
	store  store.Store
	hub    *hub.Hub
	logger *slog.Logger

	share float64 // of a service that may vanish from the store without anybody's asking

	now        func() time.Time
	plantedBug string // set by tests alone: a simulation that cannot fail proves nothing

	ready chan struct{} // closed when the first list is in

	mu       sync.Mutex
	epoch    string              // guarded by mu
	revision int64               // guarded by mu; applied and announced up to here
	services map[string]*service // guarded by mu
	owned    map[string][]id     // guarded by mu; by owner, in order
	fresh    []string            // guarded by mu; owners that were given their first instance, not yet taken
	applied  chan struct{}       // guarded by mu; closed and replaced with each step
}

// service is the instances under one id. Guarded by the registry's mu.
type service struct {
	name     string
	revision int64
	removed  int64    // revision of its record of removals; 0: none
	rows     []packed // by address
}

// find returns where addr stands, or belongs.
func (s *service) find(addr string) (int, bool) {
	return slices.BinarySearchFunc(s.rows, addr, func(p packed, addr string) int { return strings.Compare(p.addr, addr) })
}

func newRegistry(s store.Store, share float64, logger *slog.Logger, now func() time.Time) *registry {
	r := &registry{
		store: s, share: share, logger: logger, now: now, ready: make(chan struct{}), applied: make(chan struct{}),
		services: make(map[string]*service), owned: make(map[string][]id),
	}
	r.hub = hub.Over(r)
	return r
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
	return nil
}

// load makes the replica equal to a list of the store.
func (r *registry) load(ctx context.Context) error {
	records, revision, err := r.store.List(ctx, instancePrefix)
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	r.mu.Lock()
	before := r.revision
	r.mu.Unlock()
	if revision < before {
		if err := r.begin(ctx); err != nil {
			return err
		}
		defer r.hub.Reset()
	}
	r.mu.Lock()
	var gone []id
	if len(r.services) > 0 {
		listed := make(map[id]struct{}, len(records))
		for _, record := range records {
			if name, ok := parseKey(record.Key); ok {
				listed[name] = struct{}{}
			}
		}
		for name, s := range r.services {
			for _, have := range s.rows {
				if _, ok := listed[id{name, have.addr}]; !ok && r.plantedBug != "reload keeps what is gone" {
					gone = append(gone, id{name, have.addr})
				}
			}
		}
	}
	r.mu.Unlock()
	r.apply(revision, records, gone)
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
		r.commit(event)
	}
	return ctx.Err()
}

// commit applies one commit of the store.
func (r *registry) commit(event store.Event) {
	var gone []id
	for _, key := range event.Deletes {
		if name, ok := parseKey(key); ok && name.addr != "" {
			gone = append(gone, name)
		}
	}
	r.apply(event.Revision, event.Puts, gone)
}

// step is what a commit does to one service.
type step struct {
	service  *service
	previous int64
	revision int64
	put      [][]byte
	remove   []string
}

// apply makes one step to revision, and announces it. It is called from one goroutine.
func (r *registry) apply(revision int64, puts []store.Record, gone []id) {
	rows := r.pack(puts)
	r.mu.Lock()
	if revision < r.revision {
		r.mu.Unlock()
		return
	}
	steps := make(map[string]*step)
	touch := func(name string) *step {
		t := steps[name]
		if t == nil {
			s := r.services[name]
			if s == nil {
				s = &service{name: strings.Clone(name)}
				r.services[s.name] = s
			}
			t = &step{service: s, previous: s.revision}
			steps[s.name] = t
		}
		return t
	}
	for i := range rows {
		if rows[i].name.service != "" {
			r.put(touch, rows[i].name, rows[i].packed)
		}
	}
	r.withhold(rows, gone, func(name id) { r.drop(touch, name) })
	epoch := r.epoch
	for _, t := range steps {
		t.revision = max(t.revision, t.service.revision)
		if len(t.remove) > 0 && t.revision <= t.previous {
			t.revision = revision // a removal that left no record of itself is not later than this
		}
		if r.plantedBug == "a revision is used twice" && t.revision%7 == 0 {
			t.revision--
		}
		t.service.revision = t.revision
	}
	r.mu.Unlock()
	for name, t := range steps {
		if t.revision > t.previous {
			r.hub.Announce(name, epoch, t.previous, t.revision, func() []byte {
				return deltaFrame(name, epoch, t.previous, t.revision, t.put, t.remove)
			})
		}
	}
	r.mu.Lock()
	r.revision = revision
	close(r.applied)
	r.applied = make(chan struct{})
	r.mu.Unlock()
}

// named is a row with its name; without one it is left out.
type named struct {
	name id
	packed
}

// pack makes rows of records, many of them on all processors.
func (r *registry) pack(records []store.Record) []named {
	rows := make([]named, len(records))
	part := func(from, to int) {
		for i := from; i < to; i++ {
			name, ok := parseKey(records[i].Key)
			if !ok {
				continue
			}
			if name.addr == "" {
				rows[i] = named{name, packed{wire: records[i].Value, revision: records[i].Revision}}
				continue
			}
			p, err := pack(name, records[i])
			if err != nil {
				// One bad record must not take a service down: it is left as it was, and named.
				r.logger.Error("l5/server: a record of the store is left out", "error", err)
				continue
			}
			name.addr = p.addr
			rows[i] = named{name, p}
		}
	}
	const chunk = 4096
	if len(records) <= chunk {
		part(0, len(records))
		return rows
	}
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(records); from += chunk {
		group.Go(func() error {
			part(from, min(from+chunk, len(records)))
			return nil
		})
	}
	_ = group.Wait() // part does not fail
	return rows
}

// put takes a row, or a service's record of removals. Callers hold mu.
func (r *registry) put(touch func(string) *step, name id, next packed) {
	if s := r.services[name.service]; s != nil {
		at, ok := s.find(name.addr)
		if name.addr == "" && s.removed == next.revision || ok && s.rows[at].revision == next.revision && s.rows[at].kept.IsZero() {
			return
		}
	}
	if name.addr == "" && r.plantedBug == "a removal leaves no revision" {
		return
	}
	t := touch(name.service)
	t.revision = max(t.revision, next.revision)
	s := t.service
	if name.addr == "" {
		s.removed = next.revision
		return
	}
	at, replaces := s.find(name.addr)
	owner := field(next.wire, ownerField)
	switch {
	case !replaces:
		s.rows = slices.Insert(s.rows, at, next)
		r.own(string(owner), id{s.name, next.addr})
	case string(field(s.rows[at].wire, ownerField)) != string(owner):
		r.disown(s.rows[at].owner(), id{s.name, next.addr})
		r.own(string(owner), id{s.name, next.addr})
		s.rows[at] = next
	default:
		s.rows[at] = next
	}
	t.put = append(t.put, next.wire)
}

// drop takes a row out. Callers hold mu.
func (r *registry) drop(touch func(string) *step, name id) {
	s := r.services[name.service]
	if s == nil {
		return
	}
	at, ok := s.find(name.addr)
	if !ok {
		return
	}
	t := touch(name.service)
	r.disown(s.rows[at].owner(), id{s.name, name.addr})
	s.rows = slices.Delete(s.rows, at, at+1)
	t.remove = append(t.remove, name.addr)
}

func (r *registry) own(owner string, name id) {
	if owner == "" {
		return
	}
	names := r.owned[owner]
	if len(names) == 0 {
		r.fresh = append(r.fresh, owner)
	}
	if at, ok := slices.BinarySearchFunc(names, name, compareID); !ok {
		r.owned[owner] = slices.Insert(names, at, name)
	}
}

func (r *registry) disown(owner string, name id) {
	names := r.owned[owner]
	at, ok := slices.BinarySearchFunc(names, name, compareID)
	if !ok {
		return
	}
	if len(names) == 1 {
		delete(r.owned, owner)
		return
	}
	r.owned[owner] = slices.Delete(slices.Clone(names), at, at+1)
}

// State implements hub.Source.
func (r *registry) State(name string) (string, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.services[name]; s != nil {
		return r.epoch, s.revision
	}
	return r.epoch, 0
}

// Snapshot implements hub.Source.
func (r *registry) Snapshot(name string) ([]byte, string, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[name]
	if s == nil {
		s = &service{}
	}
	return snapshotFrame(name, r.epoch, s.revision, s.rows), r.epoch, s.revision
}

// get returns a row, or nil.
func (r *registry) get(name id) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[name.service]
	if s == nil {
		return nil
	}
	at, ok := s.find(name.addr)
	if !ok {
		return nil
	}
	return s.rows[at].unpack(s.name)
}

// exists reports whether there is a service, and an instance of it.
func (r *registry) exists(service, addr string) (ofService, ofInstance bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[service]
	if s == nil || len(s.rows) == 0 {
		return false, false
	}
	_, ofInstance = s.find(addr)
	return true, ofInstance
}

// list returns a service's rows by address.
func (r *registry) list(name string) []*row {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[name]
	if s == nil {
		return nil
	}
	out := make([]*row, len(s.rows))
	for i, p := range s.rows {
		out[i] = p.unpack(s.name)
	}
	return out
}

// names returns the services that have instances, in order.
func (r *registry) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, 0, len(r.services))
	for name, s := range r.services {
		if len(s.rows) > 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// size returns how many instances a service has.
func (r *registry) size(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.services[name]; s != nil {
		return len(s.rows)
	}
	return 0
}

// ownedBy returns the instances of an owner, in order.
func (r *registry) ownedBy(owner string) []id {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.owned[owner])
}

// newcomers returns who was given a first instance since the last call.
func (r *registry) newcomers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := r.fresh
	r.fresh = nil
	return fresh
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
