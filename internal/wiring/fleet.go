package wiring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// CMDB is what Fleet reads of the CMDB.
type CMDB interface {
	Modules() []cmdb.Module
	Devices(cmdb.DeviceFilter) []cmdb.Device
	Sites() []cmdb.Site
}

// Fleet shows scale the modules that want scaling, with their devices, and the devices that are free. A module
// whose manifest names no capacity is left alone.
type Fleet struct {
	CMDB  CMDB
	Names interface {
		Instances(service string) []l5server.InstanceStatus
	}
	// Paused says whether automation is stopped for a module.
	Paused func(ctx context.Context, module string) (bool, error)
	// Fault is told, each time the modules are read, what keeps a module from being scaled: nil for a sound one. Optional.
	Fault func(module string, err error)
}

// Modules implements scale.Modules.
func (f Fleet) Modules(ctx context.Context) ([]scale.Module, error) {
	cities := f.cities()
	var modules []scale.Module
	var faults []error
	for _, m := range f.CMDB.Modules() {
		if len(m.Scale.Capacity) == 0 {
			continue
		}
		policy, err := ScalePolicy(m.Scale.Params)
		if f.Fault != nil {
			f.Fault(m.Name, err)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("module %s: %w", m.Name, err))
			continue
		}
		paused, err := f.Paused(ctx, m.Name)
		if err != nil {
			return nil, fmt.Errorf("is module %s paused: %w", m.Name, err)
		}
		shares := f.shares(m)
		out := scale.Module{
			Name: m.Name, Loss: m.Scale.Loss, Min: m.Scale.Min, Max: m.Scale.Max,
			Capacity: m.Scale.Capacity, Paused: paused, Policy: policy,
			Prefs: scale.Prefs{Sites: m.Scale.Sites, Types: m.Scale.Types},
		}
		if m.Scale.City != "" {
			out.Prefs.Cities = []string{m.Scale.City}
		}
		for _, d := range f.CMDB.Devices(cmdb.DeviceFilter{Module: m.Name}) {
			device := scale.Device{Name: d.Name, Site: d.Site, City: cities[d.Site], Type: d.Type, Since: d.Since}
			switch {
			case d.State == cmdb.InService:
				device.Share = 100
				if share, routed := shares[d.Name]; routed {
					device.Share = share
				}
				out.Serving = append(out.Serving, device)
			case d.State == cmdb.Held && d.HeldFrom == cmdb.InService:
				out.Serving = append(out.Serving, device)
				out.Leaving = append(out.Leaving, d.Name)
			case d.State == cmdb.Held:
				out.Pending = append(out.Pending, device)
			}
		}
		modules = append(modules, out)
	}
	// A module with a fault must not stop the others, unless there are no others.
	if len(modules) == 0 {
		return nil, errors.Join(faults...)
	}
	return modules, nil
}

// shares is the least share of each device over the module's services.
func (f Fleet) shares(m cmdb.Module) map[string]int {
	shares := make(map[string]int)
	for _, service := range m.Services {
		for _, status := range f.Names.Instances(service.ID) {
			if least, seen := shares[status.Device]; !seen || status.Share < least {
				shares[status.Device] = status.Share
			}
		}
	}
	return shares
}

func (f Fleet) cities() map[string]string {
	cities := make(map[string]string)
	for _, site := range f.CMDB.Sites() {
		cities[site.Name] = site.City
	}
	return cities
}

// Idle implements scale.Candidates.
func (f Fleet) Idle(context.Context) ([]scale.Candidate, error) {
	cities := f.cities()
	var out []scale.Candidate
	for _, d := range f.CMDB.Devices(cmdb.DeviceFilter{State: cmdb.Idle}) {
		out = append(out, scale.Candidate{Name: d.Name, Site: d.Site, City: cities[d.Site], Type: d.Type})
	}
	return out, nil
}

// ScalePolicy reads the overrides that a module's manifest makes to the decider's policy, as
// {react_within: 3s, in_step: "4"}. The names are those of scale.Policy's JSON form.
func ScalePolicy(params map[string]string) (scale.Policy, error) {
	var p scale.Policy
	durations := map[string]*time.Duration{
		"react_within": &p.ReactWithin, "stale_after": &p.StaleAfter, "window": &p.Window, "lead": &p.Lead,
		"in_after": &p.InAfter, "cooldown": &p.Cooldown, "cooldown_in": &p.CooldownIn, "backoff": &p.Backoff,
	}
	shares := map[string]*float64{"target": &p.Target, "high": &p.High}
	counts := map[string]*int{"out_step": &p.OutStep, "in_step": &p.InStep, "per_hour": &p.PerHour}
	flags := map[string]*bool{"no_forecast": &p.NoForecast}
	return p, overrides{durations, shares, counts, flags}.read("scale.params", params)
}

// overrides is the set of numbers that a policy takes from a manifest.
type overrides struct {
	durations map[string]*time.Duration
	shares    map[string]*float64
	counts    map[string]*int
	flags     map[string]*bool
}

// read sets the named numbers from their texts, and reports all faults at once.
func (p overrides) read(field string, texts map[string]string) error {
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		var err error
		text := texts[name]
		switch {
		case p.durations[name] != nil:
			*p.durations[name], err = time.ParseDuration(text)
		case p.shares[name] != nil:
			*p.shares[name], err = strconv.ParseFloat(text, 64)
		case p.counts[name] != nil:
			*p.counts[name], err = strconv.Atoi(text)
		case p.flags[name] != nil:
			*p.flags[name], err = strconv.ParseBool(text)
		default:
			err = fmt.Errorf("no such parameter; there are %s", strings.Join(p.names(), ", "))
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.%s %q: %w", field, name, text, err))
		}
	}
	return errors.Join(faults...)
}

func (p overrides) names() []string {
	var names []string
	names = slices.AppendSeq(names, maps.Keys(p.durations))
	names = slices.AppendSeq(names, maps.Keys(p.shares))
	names = slices.AppendSeq(names, maps.Keys(p.counts))
	names = slices.AppendSeq(names, maps.Keys(p.flags))
	slices.Sort(names)
	return names
}
