package gray

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
)

// Config is what a Controller needs. Store, Weights and Outcomes are required.
type Config struct {
	Store    Store
	Weights  Weights
	Outcomes Outcomes

	// Interval is the time between two looks at every open rollout; a change of a rollout is looked at at once.
	// Default 1 s.
	Interval time.Duration

	// Timeout bounds each call of Weights and Outcomes. Default 5 s.
	Timeout time.Duration

	// Parallel is how many services are worked on at a time. Default 16.
	Parallel int

	// Keep is for how long finished rollouts and their events are kept. Default 30 days.
	Keep time.Duration

	// Fence gives the fencing number passed to Weights: that of the leadership under which this controller runs.
	// Nil: 0, for programs that run one controller only.
	Fence func() int64

	// Stopped says whether automation is stopped for a service, or for its module, and why. No rollout starts and no gate
	// opens meanwhile; a red gate still rolls back, and so does a person. An error counts as stopped. Nil: never.
	Stopped func(ctx context.Context, service, module string) (why string, stopped bool, err error)

	// OnEvent is told each transition this controller wrote, after it was stored; from several goroutines, but
	// those of one rollout in order. It must not block. A crash can swallow calls, never records: Watch has all.
	OnEvent func(Event)

	Logger  *slog.Logger          // nil: off
	Metrics prometheus.Registerer // nil: off
}

func (cfg Config) filled() (Config, error) {
	var errs []error
	if cfg.Store == nil {
		errs = append(errs, errors.New("Store is nil: hand in memstore.New() or etcdstore.New(...)"))
	}
	if cfg.Weights == nil {
		errs = append(errs, errors.New("Weights is nil: hand in the load balancer whose weights are to change"))
	}
	if cfg.Outcomes == nil {
		errs = append(errs, errors.New("Outcomes is nil: hand in the source of the callers' reports"))
	}
	for _, f := range []struct {
		name  string
		value int64
	}{{"Interval", int64(cfg.Interval)}, {"Timeout", int64(cfg.Timeout)}, {"Parallel", int64(cfg.Parallel)}, {"Keep", int64(cfg.Keep)}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: give a positive value, or 0 for the default", f.name))
		}
	}
	if len(errs) > 0 {
		return cfg, fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	set(&cfg.Interval, time.Second)
	set(&cfg.Timeout, 5*time.Second)
	set(&cfg.Parallel, 16)
	set(&cfg.Keep, 30*24*time.Hour)
	if cfg.Fence == nil {
		cfg.Fence = func() int64 { return 0 }
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Controller takes rollouts through their stages. It holds no truth in memory: what it knows is in the Store,
// and its replacement goes on from there. All methods are safe for concurrent use, also on controllers that do
// not Run: those read and take orders, and the one that runs carries them out.
type Controller struct {
	cfg     Config
	metrics *metrics
	loop    *reconcile.Loop
	bug     string // planted by tests of this package
}

// New returns a Controller that does nothing until Run. All faults of cfg are reported at once, in an error
// that wraps ErrConfig.
func New(cfg Config) (*Controller, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("gray: register metrics: %w", err)
	}
	c := &Controller{cfg: cfg, metrics: m}
	c.loop, err = reconcile.New(reconcile.Config{
		Name: "gray", Interval: cfg.Interval, Pass: c.pass, Sweep: c.prune,
		Store: cfg.Store, Prefix: openPrefix, // orders are carried out at once
		OnError: func(error) { m.errors.Inc() }, Logger: cfg.Logger,
	})
	return c, err
}

// now is the present without its monotonic part, which would not survive the store.
func now() time.Time { return time.Now().UTC().Round(0) }

// Start stores a new rollout; the running controller takes it up when no other rollout of the service is under
// way. Faults of r are reported at once, in an error that wraps ErrInvalid. With the ID of a rollout that
// exists Start changes nothing: it returns that rollout if it asks for the same, else ErrExists.
func (c *Controller) Start(ctx context.Context, r Rollout) (Rollout, error) {
	r = r.filled()
	if err := r.faults(); err != nil {
		return Rollout{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.ID == "" {
		r.ID = strings.ToLower(rand.Text()[:16])
	}
	r.Status = Status{Created: now()}
	s := stepper{now: r.Status.Created, r: r}
	s.look(hold(CodeWeightsPending))
	s.to(Queued, Reason{Code: CodeCreated, Actor: r.Actor, Text: r.Because})
	old, err := c.get(ctx, r.ID)
	if err == nil {
		return sameSpec(old.Rollout, r)
	}
	if !errors.Is(err, ErrNotFound) {
		return Rollout{}, err
	}
	created, err := c.commit(ctx, saved{}, s.r, s.out.Events)
	if errors.Is(err, ErrConflict) { // somebody else was faster
		if old, err = c.get(ctx, r.ID); err == nil {
			return sameSpec(old.Rollout, r)
		}
	}
	if err != nil {
		return Rollout{}, err
	}
	c.tell(created, s.out.Events)
	return created.Rollout, nil
}

func sameSpec(have, want Rollout) (Rollout, error) {
	if have.Service != want.Service || have.MinCores != want.MinCores || !slices.Equal(have.New, want.New) ||
		!reflect.DeepEqual(have.Policy, want.Policy) {
		return Rollout{}, fmt.Errorf("%w: %q is a rollout of %q that began at %s", ErrExists, have.ID, have.Service,
			have.Status.Created.Format(time.RFC3339))
	}
	return have, nil
}

// Get returns a rollout; ErrNotFound if there is none of that ID.
func (c *Controller) Get(ctx context.Context, id string) (Rollout, error) {
	s, err := c.get(ctx, id)
	return s.Rollout, err
}

// List returns all rollouts that are kept: the open ones first, each part oldest first.
func (c *Controller) List(ctx context.Context) ([]Rollout, error) {
	var out []Rollout
	for _, prefix := range []string{openPrefix, donePrefix} {
		part, err := c.list(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, s := range part {
			out = append(out, s.Rollout)
		}
	}
	return out, nil
}

// Abort rolls a rollout back, whatever its state: all its members go to 0. It returns once the order is stored;
// the running controller sets the weights, again and again until they read back 0, and only then is the rollout
// Aborted. A finished rollout can be rolled back as long as no later one works on its members.
func (c *Controller) Abort(ctx context.Context, id, actor, why string) (Rollout, error) {
	return c.order(ctx, id, abortCommand(actor, why))
}

// Promote ends the stage a rollout is in without its gate: the next stage begins, or after the last, as soon
// as full weight is in force, the rollout is done. It is a person's decision, recorded as such.
func (c *Controller) Promote(ctx context.Context, id, actor, why string) (Rollout, error) {
	return c.order(ctx, id, promoteCommand(actor, why))
}

// Pause keeps a rollout in its stage. A red gate still rolls it back.
func (c *Controller) Pause(ctx context.Context, id, actor, why string) (Rollout, error) {
	return c.order(ctx, id, pauseCommand(actor, why))
}

// Resume lets a paused rollout go on; its MaxStage counts anew.
func (c *Controller) Resume(ctx context.Context, id, actor, why string) (Rollout, error) {
	return c.order(ctx, id, resumeCommand(actor, why))
}

// order applies a person's command to what is stored, again if the record moved meanwhile.
func (c *Controller) order(ctx context.Context, id string, do command) (Rollout, error) {
	for {
		old, err := c.get(ctx, id)
		if err != nil {
			return Rollout{}, err
		}
		next, out, err := apply(now(), old.Rollout, do)
		if err != nil || len(out.Events) == 0 {
			return old.Rollout, err
		}
		if old.Status.State.Final() {
			if err := c.superseded(ctx, old.Rollout); err != nil {
				return Rollout{}, err
			}
		}
		done, err := c.commit(ctx, old, next, out.Events)
		if errors.Is(err, ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return Rollout{}, err
		}
		c.tell(done, out.Events)
		return done.Rollout, nil
	}
}

// superseded reports whether a rollout that began later works, or worked, on one of r's members.
func (c *Controller) superseded(ctx context.Context, r Rollout) error {
	all, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Service != r.Service || other.ID == r.ID || other.Status.Created.Before(r.Status.Created) {
			continue
		}
		for _, m := range other.New {
			if slices.ContainsFunc(r.New, func(own Member) bool { return own.ID == m.ID }) {
				return fmt.Errorf("%w: rollout %q has member %q of %q", ErrSuperseded, other.ID, m.ID, r.ID)
			}
		}
	}
	return nil
}

// Err is what went wrong in the last pass over the open rollouts, nil if nothing did. A service whose weights or
// outcomes cannot be read holds and says so in its verdict; it is not an error here.
func (c *Controller) Err() error { return c.loop.Err() }
