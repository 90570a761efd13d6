package trigger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// Engine is what starts flows: a *flow.Engine.
type Engine interface {
	Start(ctx context.Context, name string, params map[string]any, options ...flow.StartOption) (string, error)
	RehearseStart(ctx context.Context, name string, params map[string]any, options ...flow.StartOption) (flow.Rehearsal, error)
	Definition(ctx context.Context, name string, version int) (flow.Definition, error)
	Get(ctx context.Context, id string) (flow.Execution, error)
}

// Config says what a Controller works with.
type Config struct {
	// Store keeps the triggers. Required.
	Store Store
	// Engine starts the flows. Required.
	Engine Engine
	// Logger gets a line for each start, and for what fails. Default: none.
	Logger *slog.Logger
	// Metrics registers zhiyun_trigger_... Default: none.
	Metrics prometheus.Registerer
}

// Controller keeps triggers and acts on them. All methods are safe for concurrent use.
type Controller struct {
	config Config
	log    *slog.Logger
	fired  *prometheus.CounterVec // nil: off

	mu     sync.RWMutex // guards what follows
	known  map[string]*hook
	synced bool
}

// hook is a webhook as calls see it.
type hook struct {
	*compiled
	paused *Paused
}

// New checks the configuration. It starts nothing.
func New(config Config) (*Controller, error) {
	var faults []error
	if config.Store == nil {
		faults = append(faults, errors.New("flow/trigger: Config.Store is nil: hand in one, as trigger.NewMemory() in tests"))
	}
	if config.Engine == nil {
		faults = append(faults, errors.New("flow/trigger: Config.Engine is nil: hand in the flow.Engine that is to start flows"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	c := &Controller{config: config, log: config.Logger, known: map[string]*hook{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if config.Metrics != nil {
		c.fired = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zhiyun_trigger_firings_total", Help: "Times and calls of triggers, by what became of them; refused: calls without a good signature.",
		}, []string{"outcome"})
		if err := config.Metrics.Register(c.fired); err != nil {
			return nil, fmt.Errorf("flow/trigger: Config.Metrics: %w", err)
		}
	}
	return c, nil
}

func (c *Controller) count(outcome Outcome) {
	if c.fired != nil {
		c.fired.WithLabelValues(string(outcome)).Inc()
	}
}

// Status is a trigger with what it has come to. Its secret is not shown.
type Status struct {
	Trigger
	State State     `json:"state"`
	Next  time.Time `json:"next,omitzero"` // of a schedule that is not paused
	Fault string    `json:"fault,omitempty"`
}

func (r *record) status() Status {
	s := Status{Trigger: r.Trigger.shown(), State: r.State}
	c, err := r.Trigger.compile()
	if err != nil {
		s.Fault = err.Error()
		return s
	}
	if c.cron != nil && r.State.Paused == nil {
		if at, ok := c.cron.next(r.State.Through); ok {
			s.Next = c.moment(at)
		}
	}
	return s
}

// List returns all triggers, by name.
func (c *Controller) List(ctx context.Context) ([]Status, error) {
	found, _, err := c.config.Store.List(ctx, "trigger/")
	if err != nil {
		return nil, fmt.Errorf("flow/trigger: list: %w", err)
	}
	out := make([]Status, 0, len(found))
	for _, one := range found {
		r, err := read(one)
		if err != nil {
			return nil, err
		}
		out = append(out, r.status())
	}
	return out, nil
}

// Get returns one trigger, or ErrNotFound.
func (c *Controller) Get(ctx context.Context, name string) (Status, error) {
	r, err := c.load(ctx, name)
	if err != nil {
		return Status{}, err
	}
	return r.status(), nil
}

// Apply checks a trigger against the flow that it starts, and stores it. A schedule that is new, or has another cron or zone than before, begins
// with the next time from now on. A secret of Hidden keeps the one that is there.
func (c *Controller) Apply(ctx context.Context, t Trigger) (Status, error) {
	if err := c.checkFlow(ctx, t); err != nil {
		return Status{}, err
	}
	r, err := c.change(ctx, t.Name, func(r *record) ([]Firing, error) {
		next := t
		if t.Webhook != nil && t.Webhook.Secret == Hidden {
			w := *t.Webhook
			if r.Trigger.Webhook == nil {
				return nil, fmt.Errorf("%w: webhook.secret is %s, and there is none yet: give it", ErrInvalid, Hidden)
			}
			w.Secret = r.Trigger.Webhook.Secret
			next.Webhook = &w
		}
		if s, was := t.Schedule, r.Trigger.Schedule; s != nil && (was == nil || was.Cron != s.Cron || was.Zone != s.Zone) {
			r.State.Through, r.State.Waits = time.Now().UTC(), time.Time{}
		}
		r.Trigger = next
		return nil, nil
	})
	return r.status(), err
}

// checkFlow checks a trigger, and that the flow takes what it hands in.
func (c *Controller) checkFlow(ctx context.Context, t Trigger) error {
	ready, err := t.compile()
	if err != nil {
		return err
	}
	d, err := c.config.Engine.Definition(ctx, t.Flow, 0)
	if err != nil {
		return fmt.Errorf("%w: flow %q: %w", ErrInvalid, t.Flow, err)
	}
	if t.Schedule != nil {
		params, err := ready.params(nil)
		if err == nil {
			_, err = c.config.Engine.RehearseStart(ctx, t.Flow, params, ready.by()...)
		}
		if err != nil {
			return fmt.Errorf("%w: it could not start: %w", ErrInvalid, err)
		}
		return nil
	}
	var faults []error
	if who := "trigger:" + t.Name; d.Start != nil && len(d.Start.By) > 0 && !slices.Contains(d.Start.By, who) {
		faults = append(faults, fmt.Errorf("flow %s does not let it: add %s to its start.by", t.Flow, who))
	}
	names := make([]string, len(d.Params))
	for i, p := range d.Params {
		names[i] = p.Name
		if given := ready.with.object[p.Name]; given != nil {
			if err := given.suits(&p); err != nil {
				faults = append(faults, fmt.Errorf("params.%s: %w", p.Name, err))
			}
		}
		if _, given := t.Params[p.Name]; p.Required && !given {
			faults = append(faults, fmt.Errorf("params.%s is missing; flow %s requires it", p.Name, t.Flow))
		}
	}
	for _, given := range slices.Sorted(maps.Keys(t.Params)) {
		if !slices.Contains(names, given) {
			faults = append(faults, fmt.Errorf("params.%s: flow %s has no such parameter", given, t.Flow))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Rehearse returns what Apply would store, and stores nothing.
func (c *Controller) Rehearse(ctx context.Context, t Trigger) (Status, error) {
	if err := c.checkFlow(ctx, t); err != nil {
		return Status{}, err
	}
	r, err := c.load(ctx, t.Name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Status{}, err
	}
	r.Trigger = t
	if r.State.Through.IsZero() {
		r.State.Through = time.Now().UTC()
	}
	return r.status(), nil
}

// Pause keeps a trigger from starting anything until Resume. Pausing again changes nothing: the first reason stands.
func (c *Controller) Pause(ctx context.Context, name, actor, reason string) (Status, error) {
	return c.steer(ctx, name, func(r *record) {
		if r.State.Paused == nil {
			r.State.Paused = &Paused{Actor: actor, Reason: reason, At: time.Now().UTC()}
		}
	})
}

// Resume lets a paused trigger go on. What was missed meanwhile is dealt with as its schedule says.
func (c *Controller) Resume(ctx context.Context, name string) (Status, error) {
	return c.steer(ctx, name, func(r *record) { r.State.Paused = nil })
}

func (c *Controller) steer(ctx context.Context, name string, do func(*record)) (Status, error) {
	r, err := c.change(ctx, name, func(r *record) ([]Firing, error) {
		if r.revision == 0 {
			return nil, fmt.Errorf("%w: trigger %q", ErrNotFound, name)
		}
		do(r)
		return nil, nil
	})
	if err != nil {
		return Status{}, err
	}
	return r.status(), nil
}

// Delete removes a trigger with its history. What it has started goes on.
func (c *Controller) Delete(ctx context.Context, name string) error { return c.remove(ctx, name) }

// Order is what a person fires a trigger with.
type Order struct {
	Actor, Reason string
	As            []string // who the person is, as was proved
	Body          []byte   // of a webhook: the JSON object that a call would bring
}

// Fire starts a trigger's flow now, paused or not, and returns the execution's ID.
func (c *Controller) Fire(ctx context.Context, name string, o Order) (string, error) {
	r, err := c.load(ctx, name)
	if err != nil {
		return "", err
	}
	ready, err := r.Trigger.compile()
	if err != nil {
		return "", err
	}
	var body any
	if ready.Webhook != nil {
		if body, err = decodeBody(o.Body); err != nil {
			return "", err
		}
	}
	params, err := ready.params(body)
	if err != nil {
		return "", fmt.Errorf("%w: params: %w", ErrInvalid, err)
	}
	reason := o.Reason
	if reason == "" {
		reason = "trigger " + name + " fired by " + o.Actor
	}
	id, err := c.config.Engine.Start(ctx, ready.Flow, params, flow.Key("trigger/"+name+"/"+uid.New()), flow.By(o.Actor), flow.As(o.As...), flow.Because(reason))
	if err != nil {
		return "", err
	}
	c.told(ctx, name, Firing{At: time.Now().UTC(), Outcome: Started, Execution: id, Reason: o.Reason, By: o.Actor})
	return id, nil
}

// told adds to a trigger's history what has happened already. That it cannot be stored does not undo it.
func (c *Controller) told(ctx context.Context, name string, f Firing) {
	c.count(f.Outcome)
	c.log.Info("trigger", "trigger", name, "outcome", f.Outcome, "execution", f.Execution, "reason", f.Reason)
	_, err := c.change(ctx, name, func(r *record) ([]Firing, error) {
		if r.revision == 0 {
			return nil, ErrNotFound
		}
		if f.Outcome == Started {
			r.State.Last, r.State.Execution = f.At, f.Execution
		}
		return []Firing{f}, nil
	})
	if err != nil {
		c.log.Warn("a trigger's history lacks an entry", "trigger", name, "error", err)
	}
}

// params are those that the flow is started with.
func (c *compiled) params(body any) (map[string]any, error) {
	got, err := c.with.eval(map[string]any{"body": body})
	if err != nil {
		return nil, err
	}
	params, _ := got.(map[string]any)
	return params, nil
}

// by says who starts the flow.
func (c *compiled) by() []flow.StartOption {
	return []flow.StartOption{flow.By("trigger:" + c.Name), flow.As("trigger:" + c.Name)}
}
