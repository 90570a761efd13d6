package scale

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Module is what scales: a set of devices that share one load. Name and Capacity are required.
type Module struct {
	Name string `json:"name"`

	// Loss is the share of requests that the module may lose for want of capacity, 0..1. Default 0.001.
	Loss float64 `json:"loss"`

	// Min and Max bound the number of devices. Default 1, and no upper bound.
	Min int `json:"min"`
	Max int `json:"max"`

	// Capacity is how many requests per second one device of a type serves well. A type that is not named is
	// never chosen.
	Capacity map[string]float64 `json:"capacity"`

	// Prefs order the candidates. What it leaves empty is taken from the devices that serve: their city, their
	// site, their types, the most common first.
	Prefs Prefs `json:"prefs"`

	Serving []Device `json:"serving"` // devices in service
	Pending []Device `json:"pending"` // devices on their way in: held by running expansions
	Leaving []string `json:"leaving"` // names of devices in Serving that are on their way out

	Paused bool   `json:"paused"` // nothing is decided but by hand
	Policy Policy `json:"policy"`

	// What was done before. A Controller fills these from its orders.
	LastOut  time.Time `json:"last_out,omitzero"`  // of the last order to grow
	LastIn   time.Time `json:"last_in,omitzero"`   // of the last order to shrink
	LastFail time.Time `json:"last_fail,omitzero"` // end of the last failed order
	Fails    int       `json:"fails,omitempty"`    // failed orders since the last that succeeded
	Spent    int       `json:"spent,omitempty"`    // devices ordered within the last hour
}

// Device is one device of a module.
type Device struct {
	Name  string    `json:"name"`
	Site  string    `json:"site"`
	City  string    `json:"city"`
	Type  string    `json:"type"`
	Since time.Time `json:"since,omitzero"` // when it came into service; the newest leaves first
	Share int       `json:"share"`          // percent of its full weight; below 100 its rollout is not over
}

// Sample is the load of a module in one bucket of time.
type Sample struct {
	At    time.Time `json:"at"`    // where the bucket begins
	Rate  float64   `json:"rate"`  // requests per second that callers wanted served, lost ones included
	Lost  float64   `json:"lost"`  // of these, per second, those lost for want of capacity
	Valid bool      `json:"valid"` // false: the bucket is unknown. That is not zero load

	// AtLeast says that reports are missing: the load was this or more. It counts where the module grows, and keeps it
	// from shrinking.
	AtLeast bool `json:"at_least,omitempty"`
}

// History is a module's load, ascending in time, with buckets of one length. Buckets may be missing: they are
// unknown.
type History []Sample

// Policy tunes decisions. Every zero field means its documented default; the defaults suit production, with
// buckets of 10 s and devices that need minutes to come.
type Policy struct {
	// ReactWithin is the time whose median load counts as the load now: an overload is acted on when it has lasted
	// for half of it, a shorter spike is not. Default 30 s.
	ReactWithin time.Duration `json:"react_within"`

	// StaleAfter is how old the newest bucket may be; with older data nothing is decided. Default three times
	// ReactWithin.
	StaleAfter time.Duration `json:"stale_after"`

	// Target is the share of capacity that load should use after a decision, 0..1. Default: learnt from how much
	// the module's load grew within Lead in the past, and 0.7 until an hour of the past is known.
	Target float64 `json:"target"`

	// High is the share of capacity above which the module grows. Default halfway between Target and 1.
	High float64 `json:"high"`

	// Window is the time over which a trend is measured; it must hold in the last fifth of it too. Default 5 min.
	Window time.Duration `json:"window"`

	// Lead is how long a device takes from order to full weight: a trend is extended so far. Default 3 min.
	Lead time.Duration `json:"lead"`

	// NoForecast turns trends off: only the load that is there counts.
	NoForecast bool `json:"no_forecast"`

	// InAfter is for how long load must have fitted the smaller module before it shrinks. Default 15 min.
	InAfter time.Duration `json:"in_after"`

	// Cooldown is the least time between two orders to grow. Default 15 s: devices on their way count, so that an
	// order follows another only if load has grown further. Falling below Min is exempt.
	Cooldown time.Duration `json:"cooldown"`

	// CooldownIn is the least time between an order of either direction and one to shrink. Default 10 min.
	CooldownIn time.Duration `json:"cooldown_in"`

	// OutStep and InStep bound the devices of one order. Default: as many as there are, at least 4, to grow; a
	// quarter of those there are, at least 1, to shrink.
	OutStep int `json:"out_step"`
	InStep  int `json:"in_step"`

	// PerHour bounds the devices ordered within an hour, both directions together. Default 100.
	PerHour int `json:"per_hour"`

	// Backoff is how long nothing is ordered after an order failed; it doubles with each further failure, up to
	// 32 times. Default 1 min.
	Backoff time.Duration `json:"backoff"`
}

// filled returns m with defaults in its zero fields.
func (m Module) filled() Module {
	set(&m.Loss, 0.001)
	set(&m.Min, 1)
	p := &m.Policy
	set(&p.ReactWithin, 30*time.Second)
	set(&p.StaleAfter, 3*p.ReactWithin)
	set(&p.Window, 5*time.Minute)
	set(&p.Lead, 3*time.Minute)
	set(&p.InAfter, 15*time.Minute)
	set(&p.Cooldown, 15*time.Second)
	set(&p.CooldownIn, 10*time.Minute)
	set(&p.PerHour, 100)
	set(&p.Backoff, time.Minute)
	return m
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// faults lists everything that is wrong with a filled module.
func (m Module) faults() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.Name == "" {
		add("Module.Name is empty: name it")
	}
	if len(m.Capacity) == 0 {
		add("Module.Capacity is empty: say how many requests per second a device of each type serves")
	}
	for t, c := range m.Capacity {
		if !(c > 0) || math.IsInf(c, 0) {
			add("Module.Capacity[%q] is %g: give requests per second above 0", t, c)
		}
	}
	if m.Min < 0 || m.Max < 0 || m.Max > 0 && m.Max < m.Min {
		add("Module.Min %d and Max %d: need 0 <= Min <= Max", m.Min, m.Max)
	}
	if !(m.Loss > 0 && m.Loss < 1) {
		add("Module.Loss is %g: give a share between 0 and 1, such as 0.001", m.Loss)
	}
	p := m.Policy
	if p.Target < 0 || p.Target >= 1 {
		add("Policy.Target is %g: give a share between 0 and 1, such as 0.7", p.Target)
	}
	if p.High < 0 || p.High > 0 && p.High < p.Target {
		add("Policy.High is %g: give a share above Target %g", p.High, p.Target)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"ReactWithin", int64(p.ReactWithin)}, {"StaleAfter", int64(p.StaleAfter)}, {"Window", int64(p.Window)},
		{"Lead", int64(p.Lead)}, {"InAfter", int64(p.InAfter)}, {"Cooldown", int64(p.Cooldown)},
		{"CooldownIn", int64(p.CooldownIn)}, {"OutStep", int64(p.OutStep)}, {"InStep", int64(p.InStep)},
		{"PerHour", int64(p.PerHour)}, {"Backoff", int64(p.Backoff)},
	} {
		if f.value < 0 {
			add("Policy.%s is negative: give a positive value, or 0 for the default", f.name)
		}
	}
	return errors.Join(errs...)
}

// staying are the serving devices that are not on their way out.
func (m Module) staying() []Device {
	if len(m.Leaving) == 0 {
		return m.Serving
	}
	return slices.DeleteFunc(slices.Clone(m.Serving), func(d Device) bool { return slices.Contains(m.Leaving, d.Name) })
}

// coming are the pending devices that do not serve yet.
func (m Module) coming() []Device {
	var out []Device
	for _, d := range m.Pending {
		if !slices.ContainsFunc(m.Serving, func(s Device) bool { return s.Name == d.Name }) {
			out = append(out, d)
		}
	}
	return out
}

// unit is the capacity of the device that counts are given in: the mean of those there are, or else the least
// of the types.
func (m Module) unit(devices []Device) float64 {
	total := m.capacity(devices)
	if n := len(devices); n > 0 && total > 0 {
		return total / float64(n)
	}
	least := math.Inf(1)
	for _, c := range m.Capacity {
		least = min(least, c)
	}
	return least
}

func (m Module) capacity(devices []Device) float64 {
	total := 0.0
	for _, d := range devices {
		total += m.Capacity[d.Type]
	}
	return total
}
