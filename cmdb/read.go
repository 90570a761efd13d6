package cmdb

import (
	"context"
	"fmt"
	"iter"
)

// What is handed out shares its lists and maps with the DB: read it, never change it.

// Get returns one object of any kind, or ErrNotFound.
func (db *DB) Get(kind Kind, name string) (Object, error) {
	if err := readable(kind); err != nil {
		return nil, err
	}
	object, ok := db.view().get(Ref{kind, name})
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, Ref{kind, name})
	}
	return object, nil
}

func get[T any](db *DB, kind Kind, name string) (T, error) {
	var zero T
	object, err := db.Get(kind, name)
	if err != nil {
		return zero, err
	}
	value, ok := any(object).(*T)
	if !ok {
		return zero, fmt.Errorf("%w: %s holds another type", ErrKind, kind)
	}
	return *value, nil
}

// Device returns one device, or ErrNotFound.
func (db *DB) Device(name string) (Device, error) { return get[Device](db, KindDevice, name) }

// Module returns one module, or ErrNotFound.
func (db *DB) Module(name string) (Module, error) { return get[Module](db, KindModule, name) }

// Site returns one site, or ErrNotFound.
func (db *DB) Site(name string) (Site, error) { return get[Site](db, KindSite, name) }

// DeviceType returns one device type, or ErrNotFound.
func (db *DB) DeviceType(name string) (DeviceType, error) {
	return get[DeviceType](db, KindDeviceType, name)
}

// Modules returns all modules in name order.
func (db *DB) Modules() []Module { return all[Module](db, KindModule) }

// Sites returns all sites in name order.
func (db *DB) Sites() []Site { return all[Site](db, KindSite) }

// DeviceTypes returns all device types in name order.
func (db *DB) DeviceTypes() []DeviceType { return all[DeviceType](db, KindDeviceType) }

func all[T any](db *DB, kind Kind) []T {
	var out []T
	for object := range db.view().all(kind) {
		if p, ok := any(object).(*T); ok {
			out = append(out, *p)
		}
	}
	return out
}

// DeviceFilter chooses devices; every field that is not empty must match.
type DeviceFilter struct {
	State  State
	Module string
	Site   string
	City   string
	Type   string
	Holder string
}

// Devices returns the devices that match, in name order.
func (db *DB) Devices(filter DeviceFilter) []Device {
	v := db.view()
	var out []Device
	for d := range narrow(v, filter) {
		if matches(v, filter, d) {
			out = append(out, *d)
		}
	}
	return out
}

// narrow yields a superset of what matches, from the index that is likely to be the smallest.
func narrow(v view, f DeviceFilter) iter.Seq[*Device] {
	from := func(objects iter.Seq[Object]) iter.Seq[*Device] {
		return func(yield func(*Device) bool) {
			for object := range objects {
				if d, ok := object.(*Device); ok && !yield(d) {
					return
				}
			}
		}
	}
	switch {
	case f.Module != "":
		return from(v.referring(Ref{KindModule, f.Module}))
	case f.Holder != "":
		return v.inState(Held)
	case f.State != "" && f.State != InService:
		return v.inState(f.State)
	case f.Site != "":
		return from(v.referring(Ref{KindSite, f.Site}))
	case f.State != "":
		return v.inState(f.State)
	case f.Type != "":
		return from(v.referring(Ref{KindDeviceType, f.Type}))
	}
	return from(v.all(KindDevice))
}

func matches(v view, f DeviceFilter, d *Device) bool {
	if f.State != "" && d.State != f.State || f.Module != "" && d.Module != f.Module || f.Site != "" && d.Site != f.Site ||
		f.Type != "" && d.Type != f.Type || f.Holder != "" && d.Holder != f.Holder {
		return false
	}
	if f.City == "" {
		return true
	}
	site, ok := find[*Site](v, Ref{KindSite, d.Site})
	return ok && site.City == f.City
}

// named returns devices in the order of names.
func (db *DB) named(names []string) []Device {
	v := db.view()
	out := make([]Device, 0, len(names))
	for _, name := range names {
		if d, ok := device(v, name); ok {
			out = append(out, *d)
		}
	}
	return out
}

// Counts tells how many devices are in each of the five states.
func (db *DB) Counts() map[State]int {
	v := db.view()
	counts := make(map[State]int, 5)
	for _, state := range States() {
		counts[state] = 0
		for range v.inState(state) {
			counts[state]++
		}
	}
	return counts
}

// Provider returns the module that provides a service id, or ErrNotFound.
func (db *DB) Provider(service string) (Module, error) {
	for object := range db.view().providing(Ref{kindService, service}) {
		if m, ok := object.(*Module); ok {
			return *m, nil
		}
	}
	return Module{}, fmt.Errorf("%w: no module provides service %s", ErrNotFound, service)
}

// Callers returns the names of the modules that call a service id, sorted.
func (db *DB) Callers(service string) []string {
	var names []string
	for object := range db.view().referring(Ref{kindService, service}) {
		names = append(names, object.Ref().Name)
	}
	return names
}

// Revision is the revision of the store that reads show at least.
func (db *DB) Revision() int64 { return db.state.Snapshot().Revision() }

// Sync waits until reads show every change that was acknowledged to anybody before the call.
func (db *DB) Sync(ctx context.Context) error { return db.state.Sync(ctx) }

func (db *DB) view() snapshot { return snapshot{db.state.Snapshot()} }
