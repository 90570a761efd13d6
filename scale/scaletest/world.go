// Package scaletest has a stand-in for everything that package scale asks of its surroundings: modules, their
// load, idle devices and a launcher whose orders take their time. It injects faults on order. It is for tests
// of programs that embed scale.
package scaletest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
)

// ErrDown is what a World returns where it was told to fail.
var ErrDown = errors.New("scaletest: down")

// World implements scale.Modules, scale.Metrics, scale.Candidates and scale.Launcher over devices in memory. It
// goes by the clock of the process, so that in a synctest bubble it runs on virtual time. All methods are safe
// for concurrent use.
type World struct {
	// Delay is how long an order takes from launch to its end. Set it before use. Zero: orders end at once.
	Delay time.Duration
	// Bucket is the length of the samples of load. Set it before use. Zero: 1 s.
	Bucket time.Duration

	mu      sync.Mutex
	modules map[string]scale.Module                   // guarded by mu; without their devices
	devices map[string]*device                        // guarded by mu
	load    map[string]func(time.Time) (rate float64) // guarded by mu
	gaps    func(time.Time) bool                      // guarded by mu; true: the bucket at that time is lost
	orders  map[string]*order                         // guarded by mu; by key
	launch  func(scale.Order) error                   // guarded by mu
	down    map[string]bool                           // guarded by mu; by interface
	twice   []string                                  // guarded by mu; faults of the controller seen here
}

type device struct {
	scale.Candidate
	module string // whom it serves; empty: idle
	held   string // key of the order that holds it; empty: none
	faulty bool
	since  time.Time
}

type order struct {
	scale.Order
	ends time.Time
	fail bool
	over bool
	done scale.Progress
}

// NewWorld returns a world without modules and devices.
func NewWorld() *World {
	return &World{
		modules: make(map[string]scale.Module),
		devices: make(map[string]*device),
		load:    make(map[string]func(time.Time) float64),
		orders:  make(map[string]*order),
		down:    make(map[string]bool),
	}
}

// AddModule adds a module with its load, in requests per second by time.
func (w *World) AddModule(m scale.Module, load func(time.Time) float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.modules[m.Name] = m
	w.load[m.Name] = load
}

// AddDevices adds devices that serve module, or are idle if it is empty.
func (w *World) AddDevices(module string, devices ...scale.Candidate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range devices {
		w.devices[c.Name] = &device{Candidate: c, module: module}
	}
}

// Kill makes a device faulty: it serves no more and never becomes idle.
func (w *World) Kill(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices[name].faulty = true
}

// Gaps says which buckets of load are lost; nil: none.
func (w *World) Gaps(lost func(time.Time) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gaps = lost
}

// Down makes an interface fail with ErrDown, or no more: "modules", "metrics", "devices", "launch" or "state".
func (w *World) Down(name string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[name] = down
}

// OnLaunch is called by each Launch before it begins anything; an error is returned from Launch. Nil: none.
func (w *World) OnLaunch(hook func(scale.Order) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.launch = hook
}

// FailOrder makes the running order with that ID fail when its time is over.
func (w *World) FailOrder(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders[id].fail = true
}

// Serving is how many devices serve a module.
func (w *World) Serving(module string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	n := 0
	for _, d := range w.devices {
		if d.module == module && !d.faulty {
			n++
		}
	}
	return n
}

// Orders are the orders that were launched, by creation.
func (w *World) Orders() []scale.Order {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []scale.Order
	for _, o := range w.orders {
		out = append(out, o.Order)
	}
	slices.SortFunc(out, func(a, b scale.Order) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Key, b.Key)) })
	return out
}

// Conflicts lists orders that named a device which was not free for them: none, if deciders behave.
func (w *World) Conflicts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.twice)
}

// settle ends the orders whose time is over.
func (w *World) settle() {
	now := time.Now()
	for _, key := range slices.Sorted(maps.Keys(w.orders)) {
		o := w.orders[key]
		if o.over || now.Before(o.ends) {
			continue
		}
		o.over, o.done = true, scale.Done
		if o.fail {
			o.done = scale.Failed
		}
		for _, named := range o.Devices {
			d := w.devices[named.Name]
			d.held = ""
			switch {
			case o.fail:
			case o.Direction == scale.Out:
				d.module, d.since = o.Module, o.ends
			default:
				d.module = ""
			}
		}
	}
}

// Modules implements scale.Modules.
func (w *World) Modules(ctx context.Context) ([]scale.Module, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(ctx, "modules"); err != nil {
		return nil, err
	}
	var out []scale.Module
	for _, name := range slices.Sorted(maps.Keys(w.modules)) {
		m := w.modules[name]
		for _, id := range slices.Sorted(maps.Keys(w.devices)) {
			if d := w.devices[id]; d.module == name && !d.faulty {
				m.Serving = append(m.Serving, scale.Device{Name: d.Name, Site: d.Site, City: d.City, Type: d.Type, Since: d.since, Share: 100})
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// Load implements scale.Metrics.
func (w *World) Load(ctx context.Context, module string, from, to time.Time) ([]scale.Sample, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(ctx, "metrics"); err != nil {
		return nil, err
	}
	bucket := w.Bucket
	if bucket == 0 {
		bucket = time.Second
	}
	var out []scale.Sample
	for at := from.Truncate(bucket); !at.Add(bucket).After(to); at = at.Add(bucket) {
		if w.gaps != nil && w.gaps(at) {
			out = append(out, scale.Sample{At: at})
			continue
		}
		out = append(out, scale.Sample{At: at, Rate: w.load[module](at), Valid: true})
	}
	return out, nil
}

// Idle implements scale.Candidates.
func (w *World) Idle(ctx context.Context) ([]scale.Candidate, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(ctx, "devices"); err != nil {
		return nil, err
	}
	var out []scale.Candidate
	for _, id := range slices.Sorted(maps.Keys(w.devices)) {
		if d := w.devices[id]; d.module == "" && d.held == "" && !d.faulty {
			out = append(out, d.Candidate)
		}
	}
	return out, nil
}

// Launch implements scale.Launcher: the same key twice begins one order.
func (w *World) Launch(ctx context.Context, o scale.Order) (string, error) {
	w.mu.Lock()
	hook := w.launch
	w.mu.Unlock()
	if hook != nil {
		if err := hook(o); err != nil {
			return "", err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(ctx, "launch"); err != nil {
		return "", err
	}
	if _, ok := w.orders[o.Key]; ok {
		return o.Key, nil
	}
	w.orders[o.Key] = &order{Order: o, ends: time.Now().Add(w.Delay)}
	for _, named := range o.Devices {
		d, ok := w.devices[named.Name]
		if !ok {
			return "", fmt.Errorf("%w: no device %q", scale.ErrRejected, named.Name)
		}
		if d.held != "" || o.Direction == scale.Out && d.module != "" || o.Direction == scale.In && d.module != o.Module {
			w.twice = append(w.twice, fmt.Sprintf("%s names %s, held by %q, serving %q", o.Key, d.Name, d.held, d.module))
		}
		d.held = o.Key
	}
	return o.Key, nil
}

// State implements scale.Launcher.
func (w *World) State(ctx context.Context, id string) (scale.Progress, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(ctx, "state"); err != nil {
		return "", err
	}
	o, ok := w.orders[id]
	switch {
	case !ok:
		return "", fmt.Errorf("scaletest: no order %q", id)
	case o.over:
		return o.done, nil
	}
	return scale.Underway, nil
}

// usable fails where it was told to, and brings the world to the present.
func (w *World) usable(ctx context.Context, name string) error {
	if w.down[name] {
		return fmt.Errorf("%w: %s", ErrDown, name)
	}
	w.settle()
	return ctx.Err()
}
