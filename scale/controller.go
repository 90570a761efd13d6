package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Config is what a Controller needs. The first five fields are required.
type Config struct {
	Store    Store
	Modules  Modules
	Metrics  Metrics
	Devices  Candidates
	Launcher Launcher

	// Interval is the time between two decisions on each module. Default 15 s.
	Interval time.Duration

	// Timeout bounds each call of the interfaces above. Default 5 s.
	Timeout time.Duration

	// Parallel is how many modules are worked on at a time. Default 16.
	Parallel int

	// Grace is how long the devices of an order that is done may take to show in Modules as serving, or as gone;
	// so long they still count as coming or leaving. Default 30 s.
	Grace time.Duration

	// Keep is for how long orders that are over are kept. Default 30 days.
	Keep time.Duration

	// OnEvent is told each decision that differs from the last and each step of an order, after it was stored;
	// from one goroutine of Run, or from the caller of Out, In, Pause and Resume. It must not block.
	OnEvent func(Event)

	Logger   *slog.Logger          // nil: off
	Registry prometheus.Registerer // nil: off
}

// Event is something that happened to a module.
type Event struct {
	At       time.Time `json:"at"`
	Module   string    `json:"module"`
	Kind     Kind      `json:"kind"`
	Reason   Reason    `json:"reason"`
	Decision *Decision `json:"decision,omitempty"` // of Decided
	Order    *Order    `json:"order,omitempty"`    // of Ordered, Launched, Ended
}

// Kind of an event.
type Kind string

const (
	Decided  Kind = "decided" // with another code or another Want than before
	Ordered  Kind = "ordered"
	Launched Kind = "launched"
	Ended    Kind = "ended"
	Paused   Kind = "paused"
	Resumed  Kind = "resumed"
)

func (cfg Config) filled() (Config, error) {
	var errs []error
	for _, f := range []struct {
		missing bool
		text    string
	}{
		{cfg.Store == nil, "Store is nil: hand in memstore.New() or etcdstore.New(...)"},
		{cfg.Modules == nil, "Modules is nil: hand in what knows the modules and their devices"},
		{cfg.Metrics == nil, "Metrics is nil: hand in the source of load"},
		{cfg.Devices == nil, "Devices is nil: hand in what knows the idle devices"},
		{cfg.Launcher == nil, "Launcher is nil: hand in what carries out orders"},
		{cfg.Interval < 0, "Interval is negative: give a positive value, or 0 for the default"},
		{cfg.Timeout < 0, "Timeout is negative: give a positive value, or 0 for the default"},
		{cfg.Parallel < 0, "Parallel is negative: give a positive value, or 0 for the default"},
		{cfg.Grace < 0, "Grace is negative: give a positive value, or 0 for the default"},
		{cfg.Keep < 0, "Keep is negative: give a positive value, or 0 for the default"},
	} {
		if f.missing {
			errs = append(errs, errors.New(f.text))
		}
	}
	if len(errs) > 0 {
		return cfg, fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	set(&cfg.Interval, 15*time.Second)
	set(&cfg.Timeout, 5*time.Second)
	set(&cfg.Parallel, 16)
	set(&cfg.Grace, 30*time.Second)
	set(&cfg.Keep, 30*24*time.Hour)
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Controller keeps modules at the size that their load asks for. It holds no truth in memory: orders are stored
// before they are launched, and its replacement goes on from the Store. All methods are safe for concurrent use,
// also on controllers that do not Run: those read and take orders, and the one that runs carries them out.
type Controller struct {
	cfg     Config
	metrics *metrics
	loop    *reconcile.Loop
	bug     string // planted by tests of this package

	mu   sync.Mutex
	live map[string]Decision // guarded by mu; the last of each module, fresher than what is stored
}

// New returns a Controller that does nothing until Run. All faults of cfg are reported at once, in an error
// that wraps ErrConfig.
func New(cfg Config) (*Controller, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registry)
	if err != nil {
		return nil, fmt.Errorf("scale: register metrics: %w", err)
	}
	c := &Controller{cfg: cfg, metrics: m, live: make(map[string]Decision)}
	c.loop, err = reconcile.New(reconcile.Config{
		Name: "scale", Interval: cfg.Interval, Pass: c.pass, Sweep: c.prune,
		Store: cfg.Store, Prefix: openPrefix, // orders given by hand are launched at once
		Wakes:   func(event store.Event) bool { return len(event.Puts) > 0 },
		OnError: func(error) { m.errors.Inc() }, Logger: cfg.Logger,
	})
	return c, err
}

// now is the present without its monotonic part, which would not survive the store.
func now() time.Time { return time.Now().UTC().Round(0) }

// Status is what is known of a module.
type Status struct {
	Module   string    `json:"module"`
	Decision Decision  `json:"decision"` // the last
	Orders   []Order   `json:"orders"`   // planned or under way, oldest first
	Paused   bool      `json:"paused"`   // by Pause
	PausedBy Reason    `json:"paused_by,omitzero"`
	LastOut  time.Time `json:"last_out,omitzero"`
	LastIn   time.Time `json:"last_in,omitzero"`
	LastFail time.Time `json:"last_fail,omitzero"`
	Fails    int       `json:"fails,omitempty"` // failed orders since the last that succeeded
}

// Status returns what is known of a module; ErrNotFound if nothing was ever decided about it.
func (c *Controller) Status(ctx context.Context, module string) (Status, error) {
	all, err := c.statuses(ctx, stateKey(module))
	if err != nil {
		return Status{}, err
	}
	for _, s := range all {
		if s.Module == module {
			return s, nil
		}
	}
	return Status{}, fmt.Errorf("%w: %q", ErrNotFound, module)
}

// List returns what is known of all modules, by name.
func (c *Controller) List(ctx context.Context) ([]Status, error) { return c.statuses(ctx, statePrefix) }

func (c *Controller) statuses(ctx context.Context, prefix string) ([]Status, error) {
	memories, err := c.memories(ctx, prefix)
	if err != nil {
		return nil, err
	}
	open, err := c.orders(ctx, openPrefix)
	if err != nil {
		return nil, err
	}
	out := make([]Status, 0, len(memories))
	for _, m := range memories {
		s := Status{Module: m.Module, Decision: m.Decision, Paused: m.Paused, PausedBy: m.PausedBy,
			LastOut: m.LastOut, LastIn: m.LastIn, LastFail: m.LastFail, Fails: m.Fails}
		c.mu.Lock()
		if d, ok := c.live[m.Module]; ok && d.At.After(s.Decision.At) {
			s.Decision = d
		}
		c.mu.Unlock()
		for _, o := range open {
			if o.Module == m.Module && o.State != Done {
				s.Orders = append(s.Orders, o.Order)
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Module, b.Module) })
	return out, nil
}

// Orders returns the orders of a module that are kept, oldest first; of all modules if module is empty.
func (c *Controller) Orders(ctx context.Context, module string) ([]Order, error) {
	var out []Order
	for _, prefix := range []string{pastPrefix, openPrefix} {
		part, err := c.orders(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, o := range part {
			if module == "" || o.Module == module {
				out = append(out, o.Order)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Order) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// Pause stops decisions on a module; orders under way go on. Orders by hand are still taken.
func (c *Controller) Pause(ctx context.Context, module, actor, why string) error {
	return c.pause(ctx, module, true, Reason{Code: CodePaused, Actor: actor, Text: why})
}

// Resume lets a module be decided on again.
func (c *Controller) Resume(ctx context.Context, module, actor, why string) error {
	return c.pause(ctx, module, false, Reason{Code: "resumed", Actor: actor, Text: why})
}

func (c *Controller) pause(ctx context.Context, module string, paused bool, reason Reason) error {
	if _, err := c.module(ctx, module); err != nil {
		return err
	}
	err := c.edit(ctx, module, func(m *memory) []Op {
		m.Paused, m.PausedBy = paused, reason
		if !paused {
			m.PausedBy = Reason{}
		}
		return nil
	})
	if err == nil {
		kind := Resumed
		if paused {
			kind = Paused
		}
		c.tell(Event{Module: module, Kind: kind, Reason: reason})
	}
	return err
}

// Err is what went wrong in the last pass over the modules, nil if nothing did.
func (c *Controller) Err() error { return c.loop.Err() }

// tell passes an event on once what it tells of is stored.
func (c *Controller) tell(e Event) {
	e.At = now()
	args := []any{"module", e.Module, "reason", e.Reason.String()}
	if e.Decision != nil {
		args = append(args, "have", e.Decision.Have, "want", e.Decision.Want)
	}
	if e.Order != nil {
		args = append(args, "order", e.Order.Key, "direction", e.Order.Direction, "devices", e.Order.Names(), "state", e.Order.State)
	}
	c.cfg.Logger.Info("scale: "+string(e.Kind), args...)
	c.cfg.OnEvent(e)
}
