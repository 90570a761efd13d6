package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

const rulesPrefix = "rules/"

// AnyRevision makes SetRules replace whatever stands.
const AnyRevision = -1

// ErrRulesChanged says that the rules of a service are not those any more that were to be replaced.
var ErrRulesChanged = errors.New("l5/server: the rules were changed in between; read them again")

// rules is a replica of the store's documents of rules. A document is never deleted, only emptied: its revision tells
// subscribers what is newer.
type rules struct {
	server *Server
	ready  chan struct{} // closed when the first list is in

	mu      sync.Mutex
	applied int64               // guarded by mu; the revision up to which instances are isolated as the documents say
	changed chan struct{}       // guarded by mu; closed and replaced with applied
	held    map[string]document // guarded by mu; by service
}

// document is the rules of one service.
type document struct {
	revision int64
	text     []byte
	rules    rule.Rules
}

func newRules(s *Server) *rules {
	return &rules{server: s, ready: make(chan struct{}), changed: make(chan struct{}), held: make(map[string]document)}
}

// run loads and follows the documents until ctx ends.
func (r *rules) run(ctx context.Context) error {
	registry := r.server.registry
	if err := registry.loaded(ctx); err != nil {
		return ctx.Err()
	}
	for {
		if err := registry.retry(ctx, r.load); err != nil {
			return err
		}
		if err := registry.retry(ctx, r.follow); err != nil && !errors.Is(err, store.ErrCompacted) {
			return err
		}
	}
}

func (r *rules) load(ctx context.Context) error {
	records, revision, err := r.server.config.Store.List(ctx, rulesPrefix)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	if err := r.apply(ctx, revision, records); err != nil {
		return err
	}
	select {
	case <-r.ready:
	default:
		close(r.ready)
	}
	return nil
}

func (r *rules) follow(ctx context.Context) error {
	r.mu.Lock()
	after := r.applied
	r.mu.Unlock()
	for event, err := range r.server.config.Store.Watch(ctx, rulesPrefix, after) {
		if err != nil {
			return fmt.Errorf("watch rules: %w", err)
		}
		if err := r.apply(ctx, event.Revision, event.Puts); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// apply takes documents, hands them to subscribers, and isolates instances as they say.
func (r *rules) apply(ctx context.Context, revision int64, puts []store.Record) error {
	s := r.server
	s.registry.mu.Lock()
	epoch := s.registry.epoch
	s.registry.mu.Unlock()
	for _, record := range puts {
		service := strings.TrimPrefix(record.Key, rulesPrefix)
		loaded, faults := rule.Read(record.Value)
		for _, fault := range faults {
			s.config.Logger.Error("l5/server: a part of the rules is left out", "service", service, "revision", record.Revision, "error", fault)
		}
		r.mu.Lock()
		known := r.held[service].revision >= record.Revision
		if !known {
			r.held[service] = document{record.Revision, record.Value, loaded}
		}
		r.mu.Unlock()
		if known {
			continue
		}
		if err := s.hub.SetSettings(&l5pb.Settings{Service: service, Epoch: epoch, Revision: record.Revision, Document: record.Value}); err != nil {
			return err
		}
		if err := r.isolate(ctx, service); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied = max(r.applied, revision)
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// isolate makes the registered instances of a service carry what the document says about them. Each server of a store
// does it: the first to write wins, and the others find nothing left to do.
func (r *rules) isolate(ctx context.Context, service string) error {
	var names []id
	for _, have := range r.server.registry.list(service) {
		if have.Isolated != r.isolated(id{service, have.Addr}) {
			names = append(names, id{service, have.Addr})
		}
	}
	if len(names) == 0 {
		return nil
	}
	_, err := r.server.registry.edit(ctx, names, func(name id, have *row) (l5.Instance, verb) {
		if have == nil {
			return l5.Instance{}, leave
		}
		next := have.Instance
		if next.Isolated = r.isolated(name); next.Isolated == have.Isolated {
			return next, leave
		}
		return next, put
	})
	return err
}

// recheck isolates those of names whose rows do not say what the documents say.
func (r *rules) recheck(ctx context.Context, names []id) error {
	for _, name := range names {
		if have := r.server.registry.get(name); have != nil && have.Isolated != r.isolated(name) {
			return r.isolate(ctx, name.service)
		}
	}
	return nil
}

// isolated returns why an instance takes no calls; empty: it does.
func (r *rules) isolated(name id) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[name.service].rules.Isolate[name.addr]
}

// loaded waits until the first list is in.
func (r *rules) loaded(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("l5/server: the rules are not loaded yet; is Run running and the store reachable? %w", context.Cause(ctx))
	}
}

// await waits until revision is applied: subscribers' next push holds it.
func (r *rules) await(ctx context.Context, revision int64) error {
	for {
		r.mu.Lock()
		have, changed := r.applied, r.changed
		r.mu.Unlock()
		if have >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("l5/server: rules are written at revision %d, not yet in force at %d: %w", revision, have, context.Cause(ctx))
		}
	}
}

// Rules returns the document of a service's rules and its revision; nil and 0 if there never were any.
func (s *Server) Rules(service string) (text []byte, revision int64) {
	s.rules.mu.Lock()
	defer s.rules.mu.Unlock()
	held := s.rules.held[service]
	return slices.Clone(held.text), held.revision
}

// SetRules replaces the rules of a service by a document of package l5/rule, and returns its revision when every caller's
// next push holds it. At is the revision of the document that it replaces, 0 for none, or AnyRevision; if that is not the
// one in force the error is ErrRulesChanged. A document with any fault is refused, and the error names all of them.
// An empty document ends all rules.
func (s *Server) SetRules(ctx context.Context, service string, text []byte, at int64) (int64, error) {
	if err := l5.CheckService(service); err != nil {
		return 0, err
	}
	if len(text) == 0 {
		text = []byte("{}")
	}
	parsed, err := rule.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("rules of %s: %w", service, err)
	}
	text, err = json.Marshal(parsed)
	if err != nil {
		return 0, fmt.Errorf("rules of %s: %w", service, err)
	}
	if err := s.rules.loaded(ctx); err != nil {
		return 0, err
	}
	op := store.Put(rulesPrefix+service, text)
	if at != AnyRevision {
		op = op.At(at)
	}
	revision, err := s.config.Store.Commit(ctx, op)
	if errors.Is(err, store.ErrConflict) {
		return 0, fmt.Errorf("rules of %s at revision %d: %w", service, at, ErrRulesChanged)
	}
	if err != nil {
		return 0, fmt.Errorf("l5/server: write the rules of %s: %w", service, err)
	}
	return revision, s.rules.await(ctx, revision)
}

// Isolate takes all calls from an instance, which stays registered, and says why; an empty reason gives them back. It is
// part of the service's rules, so that it outlives the instance's registration: one that registers again at the same
// address is isolated, too. It returns when every caller's next push holds it.
func (s *Server) Isolate(ctx context.Context, service, addr, reason string) error {
	if err := s.rules.loaded(ctx); err != nil {
		return err
	}
	for {
		text, revision := s.Rules(service)
		have, faults := rule.Read(text)
		switch {
		case len(faults) > 0:
			return fmt.Errorf("isolate %s of %s: the rules were written by a newer version: %w", addr, service, errors.Join(faults...))
		case have.Isolate[addr] == reason:
			return nil
		case reason != "" && s.registry.get(id{service, addr}) == nil:
			return fmt.Errorf("isolate %s of %s: %w", addr, service, ErrNotFound)
		}
		have.Isolate = maps.Clone(have.Isolate)
		if reason == "" {
			delete(have.Isolate, addr)
		} else {
			if have.Isolate == nil {
				have.Isolate = make(map[string]string)
			}
			have.Isolate[addr] = reason
		}
		text, err := json.Marshal(have)
		if err != nil {
			return fmt.Errorf("isolate %s of %s: %w", addr, service, err)
		}
		_, err = s.SetRules(ctx, service, text, revision)
		if !errors.Is(err, ErrRulesChanged) {
			return err
		}
		if err := s.rules.await(ctx, revision+1); err != nil {
			return err
		}
	}
}
