package cmdb

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// AcquireRequest asks for idle devices. Owner, Key and either Count or Names are required.
type AcquireRequest struct {
	Owner string // who holds them, such as an execution's id
	Key   string // of this request: the same owner and key again gets the same devices
	Count int    // 0: all of Names
	// Names are the only devices taken, first ones first. None: any that matches.
	Names  []string
	Module string        // they are for; kept with them
	City   string        // only in this city
	Site   string        // only at this site
	Types  []string      // only of these types, first ones first
	TTL    time.Duration // until they go back by themselves. Default 1h
	Actor  string        // as By
}

const defaultTTL = time.Hour

func (r AcquireRequest) fingerprint() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %q %q %q %q", r.Count, r.Names, r.Module, r.City, r.Site, r.Types))
	return hex.EncodeToString(sum[:8])
}

// words is the request's filter for an error message.
func (r AcquireRequest) words() string {
	var parts []string
	add := func(what, value string) {
		if value != "" {
			parts = append(parts, what+" "+value)
		}
	}
	add("in city", r.City)
	add("at site", r.Site)
	add("of types", strings.Join(r.Types, ", "))
	add("named", strings.Join(r.Names, ", "))
	if len(parts) == 0 {
		return "of any kind"
	}
	return strings.Join(parts, " ")
}

func (r *AcquireRequest) check() error {
	switch {
	case r.Owner == "":
		return fmt.Errorf("%w: Owner is empty; name who holds the devices", ErrRequest)
	case r.Key == "":
		return fmt.Errorf("%w: Key is empty; give a key that is the same when the request is repeated", ErrRequest)
	case r.Count < 0:
		return fmt.Errorf("%w: Count is %d; give a number above 0", ErrRequest, r.Count)
	case r.Count == 0 && len(r.Names) == 0:
		return fmt.Errorf("%w: Count is 0 and there are no Names; give one of them", ErrRequest)
	case len(r.Names) > 0 && r.Count > len(r.Names):
		return fmt.Errorf("%w: Count is %d, more than the %d Names; give as many names", ErrRequest, r.Count, len(r.Names))
	case r.TTL < 0:
		return fmt.Errorf("%w: TTL is %s; give a duration above 0, or leave it out for %s", ErrRequest, r.TTL, defaultTTL)
	}
	seen := map[string]bool{}
	for _, name := range r.Names {
		if seen[name] {
			return fmt.Errorf("%w: Names has %q twice; name each device once", ErrRequest, name)
		}
		seen[name] = true
	}
	defaultTo(&r.TTL, defaultTTL)
	defaultTo(&r.Count, len(r.Names))
	return nil
}

// Acquire holds devices for an owner, all that were asked for or none: idle -> held. No two callers ever get the
// same device. The same owner and key get the same devices again, in the state that they are in by then;
// ErrEnded if one has gone back since. *NoDeviceError says how many there were.
func (db *DB) Acquire(ctx context.Context, request AcquireRequest, opts ...Option) ([]Device, error) {
	asked := request.fingerprint()
	if err := request.check(); err != nil {
		return nil, err
	}
	s := db.stamp(append([]Option{By(cmp.Or(request.Actor, request.Owner)), During(request.Owner)}, opts...)...)
	var names []string
	_, err := db.update(ctx, s, func(t *tx) error {
		name := acquisitionName(request.Owner, request.Key)
		if have, ok := find[*Acquisition](t, Ref{KindAcquisition, name}); ok {
			names = have.Devices
			switch {
			case !have.Ended.IsZero():
				return fmt.Errorf("%w: owner %q, key %q, ended %s", ErrEnded, request.Owner, request.Key, have.Ended.Format(time.RFC3339))
			case have.Asked != asked:
				return fmt.Errorf("%w: owner %q, key %q", ErrKeyReused, request.Owner, request.Key)
			}
			return nil
		}
		picked, err := pick(t.view, request)
		if err != nil {
			return err
		}
		if err := t.useModule(request.Module); err != nil {
			return err
		}
		names = nil
		for _, d := range picked {
			if err := t.move(d.Name, move{verb: verbAcquire, owner: request.Owner, until: s.at.Add(request.TTL), module: request.Module, acquisition: name}); err != nil {
				return err
			}
			names = append(names, d.Name)
		}
		t.write(&Acquisition{Name: name, Owner: request.Owner, Key: request.Key, Asked: asked, Devices: names, At: s.at})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return db.named(names), nil
}

// pick chooses the devices of a request.
func pick(v view, r AcquireRequest) ([]*Device, error) {
	fits := func(d *Device) bool {
		if r.Site != "" && d.Site != r.Site || len(r.Types) > 0 && !slices.Contains(r.Types, d.Type) {
			return false
		}
		site, ok := find[*Site](v, Ref{KindSite, d.Site})
		return r.City == "" || ok && site.City == r.City
	}
	lack := &NoDeviceError{Want: r.Count, Filter: r.words()}
	var found []*Device
	if len(r.Names) > 0 {
		for _, name := range r.Names {
			d, ok := device(v, name)
			if !ok {
				return nil, fmt.Errorf("%w: device/%s; name one that is declared", ErrNotFound, name)
			}
			if d.State != Idle {
				lack.Taken = append(lack.Taken, name)
			} else if fits(d) {
				found = append(found, d)
			}
		}
		for range v.inState(Idle) {
			lack.IdleTotal++
		}
	} else {
		for d := range v.inState(Idle) {
			lack.IdleTotal++
			if fits(d) {
				found = append(found, d)
			}
		}
		if len(r.Types) > 0 {
			slices.SortStableFunc(found, func(a, b *Device) int {
				return slices.Index(r.Types, a.Type) - slices.Index(r.Types, b.Type)
			})
		}
	}
	if lack.Idle = len(found); lack.Idle < r.Count {
		return nil, lack
	}
	return found[:r.Count], nil
}

// useModule makes sure that a module is there when the change is committed.
func (t *tx) useModule(name string) error {
	if name == "" {
		return nil
	}
	if _, ok := module(t.view, name); !ok {
		return fmt.Errorf("%w: module/%s; declare it first", ErrNotFound, name)
	}
	t.bump(guardModule(name))
	return nil
}

// move takes a device through the life cycle.
func (t *tx) move(name string, m move) error {
	d, ok := device(t, name)
	if !ok {
		return fmt.Errorf("%w: device/%s", ErrNotFound, name)
	}
	next, err := step(t.stamp.at, d, m)
	if err != nil {
		return err
	}
	t.put(next, string(m.verb))
	if next.State == Idle && d.Acquisition != "" {
		if a, ok := find[*Acquisition](t, Ref{KindAcquisition, d.Acquisition}); ok && a.Ended.IsZero() {
			ended := *a
			ended.Ended = t.stamp.at
			t.write(&ended)
		}
	}
	return nil
}

// Release gives devices back that owner holds: held -> idle. Devices that owner does not hold (any more) are left
// alone, so that it can be repeated and can undo what was never done. It returns those it gave back.
func (db *DB) Release(ctx context.Context, owner string, names []string, opts ...Option) ([]string, error) {
	var released []string
	_, err := db.update(ctx, db.stamp(append([]Option{By(owner), During(owner)}, opts...)...), func(t *tx) error {
		released = nil
		for _, name := range names {
			if d, ok := device(t, name); !ok || d.State != Held || d.Holder != owner {
				continue
			}
			if err := t.move(name, move{verb: verbRelease, owner: owner}); err != nil {
				return err
			}
			released = append(released, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return released, nil
}

// ReleaseAcquired gives back what Acquire took under a key and owner still holds: for undoing an acquisition whose
// answer was lost. It can be repeated, and it ends the key even if nothing was acquired under it: an Acquire that
// comes late is ErrEnded. It returns the devices that it gave back.
func (db *DB) ReleaseAcquired(ctx context.Context, owner, key string, opts ...Option) ([]string, error) {
	if owner == "" || key == "" {
		return nil, fmt.Errorf("%w: owner is %q and key %q; give both, as they were given to Acquire", ErrRequest, owner, key)
	}
	var released []string
	s := db.stamp(append([]Option{By(owner), During(owner)}, opts...)...)
	_, err := db.update(ctx, s, func(t *tx) error {
		released = nil
		name := acquisitionName(owner, key)
		have, ok := find[*Acquisition](t, Ref{KindAcquisition, name})
		if !ok {
			t.write(&Acquisition{Name: name, Owner: owner, Key: key, At: s.at, Ended: s.at})
			return nil
		}
		for _, device := range have.Devices {
			d, ok := find[*Device](t, Ref{KindDevice, device})
			if !ok || d.State != Held || d.Holder != owner || d.Acquisition != name {
				continue
			}
			if err := t.move(device, move{verb: verbRelease, owner: owner}); err != nil {
				return err
			}
			released = append(released, device)
		}
		if have.Ended.IsZero() {
			ended := *have
			ended.Ended = s.at
			t.write(&ended)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return released, nil
}

// Renew makes owner's holds last until ttl from now. All or none.
func (db *DB) Renew(ctx context.Context, owner string, names []string, ttl time.Duration, opts ...Option) error {
	if ttl <= 0 {
		return fmt.Errorf("%w: ttl is %s; give a duration above 0", ErrRequest, ttl)
	}
	s := db.stamp(append([]Option{By(owner), During(owner)}, opts...)...)
	_, err := db.update(ctx, s, func(t *tx) error {
		for _, name := range names {
			if err := t.move(name, move{verb: verbRenew, owner: owner, until: s.at.Add(ttl)}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Serve puts a device that owner holds into service of a module: held -> in_service. An empty module is the one
// that it was acquired for. A device that is in service of the module already is left as it is.
func (db *DB) Serve(ctx context.Context, owner, name, module string, opts ...Option) error {
	_, err := db.update(ctx, db.stamp(append([]Option{By(owner), During(owner)}, opts...)...), func(t *tx) error {
		d, ok := device(t, name)
		if !ok {
			return fmt.Errorf("%w: device/%s", ErrNotFound, name)
		}
		to := cmp.Or(module, d.Module)
		switch {
		case to == "":
			return fmt.Errorf("%w: device %s was acquired for no module; name the module that it serves", ErrRequest, name)
		case d.State == InService && d.Module == to:
			return nil
		}
		if err := t.useModule(to); err != nil {
			return err
		}
		return t.move(name, move{verb: verbServe, owner: owner, module: to})
	})
	return err
}

// Hold takes devices out of service for an owner that is about to empty them: in_service -> held. Then Release
// makes them idle, Serve puts them back, and so does expiry after ttl (0: 1h). All or none; devices that
// owner holds already are left as they are.
func (db *DB) Hold(ctx context.Context, owner string, names []string, ttl time.Duration, opts ...Option) ([]Device, error) {
	if owner == "" || ttl < 0 {
		return nil, fmt.Errorf("%w: owner is %q and ttl %s; name who holds the devices, and give a duration", ErrRequest, owner, ttl)
	}
	defaultTo(&ttl, defaultTTL)
	s := db.stamp(append([]Option{By(owner), During(owner)}, opts...)...)
	_, err := db.update(ctx, s, func(t *tx) error {
		for _, name := range names {
			if d, ok := device(t, name); ok && d.State == Held && d.Holder == owner {
				continue
			}
			if err := t.move(name, move{verb: verbHold, owner: owner, until: s.at.Add(ttl)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return db.named(names), nil
}

// MarkFaulty takes a device out of use, whoever holds it: idle, held, in_service -> faulty. A faulty device is left
// as it is.
func (db *DB) MarkFaulty(ctx context.Context, name, reason string, opts ...Option) error {
	return db.moveOne(ctx, name, move{verb: verbFault, fault: reason}, Faulty, append([]Option{Because(reason)}, opts...))
}

// Forfeit takes a device out of use that owner holds and is not going to give back: held -> faulty. One that owner holds no
// more is left to whoever has it, which is a *StateError.
func (db *DB) Forfeit(ctx context.Context, owner, name, reason string, opts ...Option) error {
	_, err := db.update(ctx, db.stamp(append([]Option{Because(reason)}, opts...)...), func(t *tx) error {
		return t.move(name, move{verb: verbForfeit, owner: owner, fault: reason})
	})
	return err
}

// Repair makes a faulty device idle. An idle device is left as it is.
func (db *DB) Repair(ctx context.Context, name string, opts ...Option) error {
	return db.moveOne(ctx, name, move{verb: verbRepair}, Idle, opts)
}

// Retire ends an idle or faulty device's use for good. A retired device is left as it is.
func (db *DB) Retire(ctx context.Context, name string, opts ...Option) error {
	return db.moveOne(ctx, name, move{verb: verbRetire}, Retired, opts)
}

func (db *DB) moveOne(ctx context.Context, name string, m move, done State, opts []Option) error {
	_, err := db.update(ctx, db.stamp(opts...), func(t *tx) error {
		if d, ok := device(t, name); ok && d.State == done {
			return nil
		}
		return t.move(name, m)
	})
	return err
}
