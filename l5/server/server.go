package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/internal/inbound"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

var (
	// ErrNotFound says that no such instance is registered.
	ErrNotFound = errors.New("l5/server: no such instance; l5 explain SERVICE lists those there are")
	// ErrFenced says that the shares of a service were set by a later leader.
	ErrFenced = store.ErrFenced
)

// Server is a name service. Its methods are safe for concurrent use.
//
//	       Run: list                     ctx ends
//	new -----------> loading --> serving ---------> stopped (streams are told to go elsewhere)
type Server struct {
	config   Config
	hub      *hub.Hub
	registry *registry
	leases   *leases
	intake   *intake
	rules    *rules
	outages  *outages
	audience *audience
	metrics  *metrics
	stopping context.Context // ends when Run drains
	stop     context.CancelCauseFunc
}

// New returns a server that keeps its registry in config.Store. It reports all faults of config at once. It starts
// nothing: call Run, and serve Handler.
func New(config Config) (*Server, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, audience: newAudience(), outages: newOutages()}
	s.stopping, s.stop = context.WithCancelCause(context.Background())
	s.registry = newRegistry(config.Store, config.ExpiryShare, config.Logger, config.now)
	s.hub = s.registry.hub
	s.leases = newLeases(config, s.registry)
	s.intake = newIntake(config.Sink, s.registry.exists)
	s.rules = newRules(s)
	if s.metrics, err = newMetrics(config.Metrics, s); err != nil {
		return nil, fmt.Errorf("l5/server: register metrics: %w", err)
	}
	s.leases.metrics, s.intake.metrics = s.metrics, s.metrics
	return s, nil
}

// Run loads the registry, follows the store and keeps the leases until ctx ends; then it ends all streams, so that
// their peers connect again elsewhere, and returns nil. It is called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.stop(errStopping)
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return s.registry.run(inner) })
	group.Go(func() error { return s.leases.run(inner) })
	group.Go(func() error { return s.intake.run(inner) })
	group.Go(func() error { return s.rules.run(inner) })
	group.Go(func() error { return s.recheck(inner) })
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// recheck asks who may call what again, for all streams, whenever a grant changes.
func (s *Server) recheck(ctx context.Context) error {
	for {
		next := s.config.Grants.Changed() // before asking again: a change in between is then seen
		s.hub.Recheck()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

// Ready waits until the registry is loaded.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.registry.loaded(ctx); err != nil {
		return err
	}
	return s.rules.loaded(ctx)
}

// Handler returns the path prefix and the handler of the wire protocol, for an http.ServeMux.
func (s *Server) Handler() (string, http.Handler) {
	// Frames are encoded once for all subscribers; compressing them for each would undo that.
	prefix, next := l5pbconnect.NewNameServiceHandler(&handler{server: s}, connect.WithCompression("gzip", nil, nil), connect.WithReadMaxBytes(16<<20))
	return prefix, inbound.Handler(next)
}

// Register puts instances into the registry and returns when every caller's next push holds them. An instance that
// exists keeps its share, whatever the call says: SetShare alone changes it. All faults are reported and nothing is
// written if there is one.
func (s *Server) Register(ctx context.Context, instances []l5.Instance) error {
	_, err := s.register(ctx, instances, nil)
	return err
}

// change is what edit does to one row; wrap, if not nil, decides in front of it.
type change = func(id, *row) (l5.Instance, verb)

func (s *Server) register(ctx context.Context, instances []l5.Instance, wrap func(change) change) (int64, error) {
	var errs []error
	wanted := make(map[id]l5.Instance, len(instances))
	for _, instance := range instances {
		errs = append(errs, instance.Check())
		wanted[id{instance.Service, instance.Addr}] = instance
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	names := make([]id, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	slices.SortFunc(names, compareID)
	write := func(name id, have *row) (l5.Instance, verb) {
		want := wanted[name]
		want.Suspect = false
		if want.Weight == 0 {
			want.Weight = l5.DefaultWeight
		}
		want.Isolated = s.rules.isolated(name)
		if want.Site == "" && want.City == "" && s.config.Place != nil {
			want.Site, want.City = s.config.Place(want.Device)
		}
		s.leases.expect(want.Owner, s.config.now())
		want.Down = ""
		if have == nil {
			want.Down = s.outages.down(want, s.registry.others)
			return want, put
		}
		want.Share = have.Share
		if want.Owner == have.Owner {
			want.Down = have.Down
		}
		want.Down = s.outages.down(want, s.registry.others)
		if sameInstance(have.Instance, want) && have.kept.IsZero() {
			return want, leave
		}
		return want, put
	}
	if wrap != nil {
		write = wrap(write)
	}
	revision, err := s.registry.edit(ctx, names, write)
	if err != nil {
		return revision, err
	}
	// Rules that came into force in between did not see what was written here.
	return revision, s.rules.recheck(ctx, names)
}

// Deregister removes an instance. One that is not there is no error.
func (s *Server) Deregister(ctx context.Context, service, addr string) error {
	_, err := s.registry.edit(ctx, []id{{service, addr}}, removeAll)
	return err
}

func removeAll(_ id, have *row) (l5.Instance, verb) {
	if have == nil {
		return l5.Instance{}, leave
	}
	return l5.Instance{}, remove
}

// Drain takes new calls away from an instance; those it has go on. ErrNotFound says that there is none.
func (s *Server) Drain(ctx context.Context, service, addr string) error {
	found := false
	_, err := s.registry.edit(ctx, []id{{service, addr}}, func(name id, have *row) (l5.Instance, verb) {
		found = have != nil
		return draining(have)
	})
	if err == nil && !found {
		return fmt.Errorf("drain %s of %s: %w", addr, service, ErrNotFound)
	}
	return err
}

func draining(have *row) (l5.Instance, verb) {
	if have == nil || have.State == l5.StateDraining {
		return l5.Instance{}, leave
	}
	next := have.Instance
	next.State = l5.StateDraining
	return next, put
}

// ShareOption changes how SetShare writes.
type ShareOption func(*shareOptions)

type shareOptions struct {
	fence int64
}

// Fence refuses the write with ErrFenced if shares of the service were set under a higher number before: the numbers
// are those of leaders' terms.
func Fence(number int64) ShareOption { return func(o *shareOptions) { o.fence = number } }

// SetShare sets the percentage of their full weight that instances of a service get, by address: 0..100. It returns
// when every caller's next push holds it. One address that is not registered is ErrNotFound, and none is written.
func (s *Server) SetShare(ctx context.Context, service string, shares map[string]int, options ...ShareOption) error {
	var o shareOptions
	for _, option := range options {
		option(&o)
	}
	if err := s.registry.loaded(ctx); err != nil {
		return err
	}
	var errs []error
	names := make([]id, 0, len(shares))
	for addr, share := range shares {
		name := id{service, addr}
		if share < 0 || share > 100 {
			errs = append(errs, fmt.Errorf("l5/server: share %d of %s: want a percentage, 0 to 100", share, addr))
		}
		if s.registry.get(name) == nil {
			errs = append(errs, fmt.Errorf("set the share of %s of %s: %w", addr, service, ErrNotFound))
		}
		names = append(names, name)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.SortFunc(names, compareID)
	guard, err := s.fence(ctx, service, o.fence)
	if err != nil {
		return err
	}
	_, err = s.registry.edit(ctx, names, func(name id, have *row) (l5.Instance, verb) {
		if have == nil || have.Share == shares[name.addr] {
			return l5.Instance{}, leave
		}
		next := have.Instance
		next.Share = shares[name.addr]
		return next, put
	}, guard...)
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("set shares of %s under fence %d: %w", service, o.fence, ErrFenced)
	}
	return err
}

// fence raises the service's fence to number, and returns the condition that it still stands there.
func (s *Server) fence(ctx context.Context, service string, number int64) ([]store.Op, error) {
	if number == 0 {
		return nil, nil
	}
	key := fencePrefix + service
	for {
		records, _, err := s.config.Store.List(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("l5/server: read the fence of %s: %w", service, err)
		}
		var have, revision int64
		for _, record := range records {
			if record.Key == key {
				revision = record.Revision
				if have, err = strconv.ParseInt(string(record.Value), 10, 64); err != nil {
					return nil, fmt.Errorf("l5/server: record %q: %w", key, err)
				}
			}
		}
		switch {
		case have > number:
			return nil, fmt.Errorf("set shares of %s under fence %d, now at %d: %w", service, number, have, ErrFenced)
		case have == number:
			return []store.Op{store.Check(key, revision)}, nil
		}
		_, err = s.config.Store.Commit(ctx, store.Put(key, strconv.AppendInt(nil, number, 10)).At(revision))
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("l5/server: raise the fence of %s: %w", service, err)
		}
	}
}

// Services returns the service ids that have instances, in order.
func (s *Server) Services() []string { return s.registry.names() }

// Owners returns those whose streams are open, to this server or another over the same store, in order: the live holders
// of leases.
func (s *Server) Owners() []string { return s.leases.live() }

// Streams returns those whose streams are open to this server, in order.
func (s *Server) Streams() []string { return s.leases.own() }

// sameInstance reports whether writing b over a would change nothing.
func sameInstance(a, b l5.Instance) bool {
	if len(a.Labels) != len(b.Labels) {
		return false
	}
	for k, v := range a.Labels {
		if w, ok := b.Labels[k]; !ok || v != w {
			return false
		}
	}
	a.Labels, b.Labels = nil, nil
	return a.Service == b.Service && a.Addr == b.Addr && a.Device == b.Device && a.Module == b.Module && a.Weight == b.Weight &&
		a.Share == b.Share && a.State == b.State && a.Owner == b.Owner && a.Suspect == b.Suspect &&
		a.Site == b.Site && a.City == b.City && a.Isolated == b.Isolated && a.Down == b.Down
}
