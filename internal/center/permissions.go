package center

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Permissions is the permission center: which module may call which service.
//
//	            request                    approve, or the service's policy
//	(nothing) ----------> pending -----------------------------------------> active
//	                        |  deny                                            |
//	                        v            request of a new holder               | the last holder lets go
//	                      denied                    ^                          v
//	                                                +---------------------- revoked
//
// A grant has holders: the acts that asked for it, each under its key. It is revoked when the last one lets go, so
// that undoing one expansion does not take the grant from another.
type Permissions struct {
	grants   shelf[Grant]
	policies shelf[Policy]
	approve  Approval
	now      func() time.Time
	view     *grantView
}

// Approval says how requests for a service are answered.
type Approval string

// Ways to answer a request.
const (
	ApproveByHand Approval = "manual" // a person approves
	ApproveAtOnce Approval = "auto"   // a request is active as soon as it is made
)

// Policy is the approval of one service, set by its owner.
type Policy struct {
	Service  string    `json:"service"`
	Approval Approval  `json:"approval"`
	SetBy    string    `json:"set_by"`
	SetAt    time.Time `json:"set_at"`
}

// GrantState is where a grant is in its life.
type GrantState string

// States of a grant.
const (
	GrantPending GrantState = "pending"
	GrantActive  GrantState = "active"
	GrantDenied  GrantState = "denied"
	GrantRevoked GrantState = "revoked"
)

// Grant lets a caller module call a service.
type Grant struct {
	Caller    string            `json:"caller"`
	Service   string            `json:"service"`
	State     GrantState        `json:"state"`
	Holders   map[string]Holder `json:"holders,omitempty"` // by key
	DecidedBy string            `json:"decided_by,omitempty"`
	Reason    string            `json:"reason"` // why it is in its state
	Since     time.Time         `json:"since"`  // it is in its state
}

// Holder is one act that wants the grant.
type Holder struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

func (g Grant) key() string { return g.Caller + "/" + g.Service }

// in moves the grant to a state; the old one is not touched.
func (g Grant) in(state GrantState, by, reason string, now time.Time) Grant {
	g.State, g.DecidedBy, g.Reason, g.Since = state, by, reason, now.UTC()
	return g
}

func checkPair(caller, service string) error {
	return firstOf(checkName("caller", caller), checkName("service", service))
}

// Request asks that caller may call service, for the act that key names. The same key again changes nothing. What
// comes back is pending or active; a denied grant stays denied until somebody approves it.
func (p *Permissions) Request(ctx context.Context, caller, service, key, actor, reason string) (Grant, error) {
	if err := firstOf(checkPair(caller, service), checkKey("key", key), checkActor(actor)); err != nil {
		return Grant{}, err
	}
	approval, err := p.Approval(ctx, service)
	if err != nil {
		return Grant{}, err
	}
	return p.change(ctx, Grant{Caller: caller, Service: service}, func(old Grant, exists bool) (Grant, verdict, error) {
		now := p.now()
		next := old
		next.Holders = maps.Clone(old.Holders)
		if next.Holders == nil {
			next.Holders = make(map[string]Holder)
		}
		_, held := next.Holders[key]
		if !held {
			next.Holders[key] = Holder{Actor: actor, Reason: reason, At: now.UTC()}
		}
		if !exists || old.State == GrantRevoked {
			next = next.in(GrantPending, "", "requested by "+actor, now)
		}
		if next.State == GrantPending && approval == ApproveAtOnce {
			next = next.in(GrantActive, "policy", "service "+service+" approves at once", now)
		}
		if held && next.State == old.State {
			return old, keep, nil
		}
		return next, write, nil
	})
}

// Approve makes a pending, denied or revoked grant active.
func (p *Permissions) Approve(ctx context.Context, caller, service, actor, reason string) (Grant, error) {
	return p.decide(ctx, caller, service, GrantActive, actor, reason)
}

// Deny refuses a grant, also an active one: its caller gets no routes any more.
func (p *Permissions) Deny(ctx context.Context, caller, service, actor, reason string) (Grant, error) {
	return p.decide(ctx, caller, service, GrantDenied, actor, reason)
}

func (p *Permissions) decide(ctx context.Context, caller, service string, state GrantState, actor, reason string) (Grant, error) {
	if err := firstOf(checkPair(caller, service), checkActor(actor)); err != nil {
		return Grant{}, err
	}
	return p.change(ctx, Grant{Caller: caller, Service: service}, func(old Grant, exists bool) (Grant, verdict, error) {
		switch {
		case !exists:
			return old, keep, fmt.Errorf("%w: nobody asked that %s may call %s; request it first", ErrNotFound, caller, service)
		case old.State == state:
			return old, keep, nil
		}
		return old.in(state, actor, reason, p.now()), write, nil
	})
}

// Release lets go of a grant for the act that key names, and revokes it if no other holds it. Nothing happens if
// the act holds nothing.
func (p *Permissions) Release(ctx context.Context, caller, service, key, actor, reason string) (Grant, error) {
	if err := firstOf(checkPair(caller, service), checkKey("key", key), checkActor(actor)); err != nil {
		return Grant{}, err
	}
	return p.change(ctx, Grant{Caller: caller, Service: service}, func(old Grant, exists bool) (Grant, verdict, error) {
		if _, held := old.Holders[key]; !exists || !held {
			return old, keep, nil
		}
		next := old
		next.Holders = maps.Clone(old.Holders)
		delete(next.Holders, key)
		if len(next.Holders) == 0 && old.State != GrantDenied {
			next = next.in(GrantRevoked, actor, reason, p.now())
		}
		return next, write, nil
	})
}

// Revoke ends a grant whoever holds it. Nothing happens if there is none.
func (p *Permissions) Revoke(ctx context.Context, caller, service, actor, reason string) (Grant, error) {
	if err := firstOf(checkPair(caller, service), checkActor(actor)); err != nil {
		return Grant{}, err
	}
	return p.change(ctx, Grant{Caller: caller, Service: service}, func(old Grant, exists bool) (Grant, verdict, error) {
		if !exists || old.State == GrantRevoked {
			return old, keep, nil
		}
		next := old.in(GrantRevoked, actor, reason, p.now())
		next.Holders = nil
		return next, write, nil
	})
}

func (p *Permissions) change(ctx context.Context, grant Grant, decide func(Grant, bool) (Grant, verdict, error)) (Grant, error) {
	done, changed, err := p.grants.change(ctx, grant.key(), func(old Grant, exists bool) (Grant, verdict, error) {
		if !exists {
			old = grant
		}
		return decide(old, exists)
	})
	if err != nil {
		return Grant{}, err
	}
	if changed {
		p.view.learn(done)
	}
	if done.value.State == "" { // nothing was there and nothing was written
		return Grant{Caller: grant.Caller, Service: grant.Service, State: GrantRevoked, Reason: "never requested"}, nil
	}
	return done.value, nil
}

// Check returns the grant as it stands in the store; without one, State is revoked.
func (p *Permissions) Check(ctx context.Context, caller, service string) (Grant, error) {
	if err := checkPair(caller, service); err != nil {
		return Grant{}, err
	}
	one, exists, err := p.grants.get(ctx, caller+"/"+service)
	if err == nil && !exists {
		one.value = Grant{Caller: caller, Service: service, State: GrantRevoked, Reason: "never requested"}
	}
	return one.value, err
}

// GrantFilter picks grants; empty fields match all.
type GrantFilter struct {
	Caller  string
	Service string
	State   GrantState
}

// List returns the matching grants in order of caller and service.
func (p *Permissions) List(ctx context.Context, filter GrantFilter, page Page) ([]Grant, string, error) {
	sub := ""
	if filter.Caller != "" {
		if err := checkName("caller", filter.Caller); err != nil {
			return nil, "", err
		}
		sub = filter.Caller + "/"
	}
	all, err := p.grants.list(ctx, sub)
	if err != nil {
		return nil, "", err
	}
	return cut(all, page, func(g Grant) bool {
		return (filter.Service == "" || g.Service == filter.Service) && (filter.State == "" || g.State == filter.State)
	})
}

// Approval returns how requests for a service are answered.
func (p *Permissions) Approval(ctx context.Context, service string) (Approval, error) {
	one, exists, err := p.policies.get(ctx, service)
	if err != nil || !exists {
		return p.approve, err
	}
	return one.value.Approval, nil
}

// SetApproval says how requests for a service are answered from now on; grants that stand are not touched.
func (p *Permissions) SetApproval(ctx context.Context, service string, approval Approval, actor string) (Policy, error) {
	if err := firstOf(checkName("service", service), checkApproval(approval), checkActor(actor)); err != nil {
		return Policy{}, err
	}
	done, _, err := p.policies.change(ctx, service, func(old Policy, exists bool) (Policy, verdict, error) {
		if exists && old.Approval == approval {
			return old, keep, nil
		}
		return Policy{Service: service, Approval: approval, SetBy: actor, SetAt: p.now().UTC()}, write, nil
	})
	return done.value, err
}

func checkApproval(approval Approval) error {
	if approval != ApproveByHand && approval != ApproveAtOnce {
		return fault("approval", approval, "give manual or auto")
	}
	return nil
}

// MayCall says whether caller may call service, from memory: it is asked for every subscription. It knows what
// this process wrote at once, and what others wrote within the delay of one watch, while Run runs.
func (p *Permissions) MayCall(caller, service string) bool { return p.view.may(caller + "/" + service) }

// Changed returns a channel that is closed at the next change of a grant.
func (p *Permissions) Changed() <-chan struct{} {
	p.view.mu.Lock()
	defer p.view.mu.Unlock()
	return p.view.changed
}

// grantView is what MayCall reads.
type grantView struct {
	mu      sync.Mutex
	grants  map[string]seenGrant // guarded by mu; by caller/service
	changed chan struct{}        // guarded by mu; closed and replaced by each change
}

type seenGrant struct {
	active   bool
	revision int64
}

func (v *grantView) may(key string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.grants[key].active
}

// learn takes grants in, each if it is newer than what is known of it.
func (v *grantView) learn(grants ...kept[Grant]) {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := false
	for _, one := range grants {
		if old := v.grants[one.key]; old.revision < one.revision {
			active := one.value.State == GrantActive
			v.grants[one.key] = seenGrant{active, one.revision}
			news = news || active != old.active
		}
	}
	if news {
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

// follow keeps the view current until ctx ends or the store fails; ready is called once it is.
func (p *Permissions) follow(ctx context.Context, ready func()) error {
	records, revision, err := p.grants.store.List(ctx, p.grants.prefix)
	if err != nil {
		return fmt.Errorf("center: list grants: %w", err)
	}
	known := make([]kept[Grant], 0, len(records))
	for _, record := range records {
		one, err := p.grants.decode(record)
		if err != nil {
			return err
		}
		known = append(known, one)
	}
	p.view.learn(known...)
	p.view.forget(revision, known)
	ready()
	for event, err := range p.grants.store.Watch(ctx, p.grants.prefix, revision) {
		if err != nil {
			return err
		}
		for _, record := range event.Puts {
			one, err := p.grants.decode(record)
			if err != nil {
				return err
			}
			p.view.learn(one)
		}
		for _, key := range event.Deletes { // by hand, in the store: nothing here deletes grants
			p.view.learn(kept[Grant]{key: strings.TrimPrefix(key, p.grants.prefix), revision: event.Revision})
		}
	}
	return ctx.Err()
}

// forget drops what a listing at revision no longer holds.
func (v *grantView) forget(revision int64, known []kept[Grant]) {
	listed := make(map[string]bool, len(known))
	for _, one := range known {
		listed[one.key] = true
	}
	v.mu.Lock()
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(v.grants)), func(key string) bool {
		return listed[key] || v.grants[key].revision > revision
	})
	v.mu.Unlock()
	for _, key := range gone {
		v.learn(kept[Grant]{key: key, revision: revision})
	}
}
