package cmdb

import (
	"context"
	"time"
)

// expire returns expired holds until ctx ends. Any number of DBs on one store may do so: the first one wins.
func (db *DB) expire(ctx context.Context) {
	ticker := time.NewTicker(db.expireEvery)
	defer ticker.Stop()
	if db.Ready(ctx) != nil {
		return
	}
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := db.hooks.now()
		db.expireDue(ctx, now)
		if now.Sub(swept) >= time.Minute {
			swept = now
			if err := db.forget(ctx, now); err != nil && ctx.Err() == nil {
				db.logger.Warn("cmdb: old acquisitions could not be dropped; it will be tried again", "error", err)
			}
		}
	}
}

// expireDue returns what has expired by now.
func (db *DB) expireDue(ctx context.Context, now time.Time) {
	for _, name := range db.expired(now) {
		if err := db.expireOne(ctx, name); err != nil && ctx.Err() == nil {
			db.logger.Warn("cmdb: an expired hold could not be returned; it will be tried again", "device", name, "error", err)
		}
	}
}

func (db *DB) expired(now time.Time) []string {
	var names []string
	for d := range db.view().inState(Held) {
		if !now.Before(d.HeldUntil) {
			names = append(names, d.Name)
		}
	}
	return names
}

func (db *DB) expireOne(ctx context.Context, name string) error {
	s := db.stamp(By("cmdb"), Because("the hold expired"))
	_, err := db.update(ctx, s, func(t *tx) error {
		d, ok := device(t, name)
		if !ok || d.State != Held || s.at.Before(d.HeldUntil) {
			return nil // somebody was first
		}
		return t.move(name, move{verb: verbExpire})
	})
	return err
}

// forget drops acquisitions that no device belongs to any more and whose time is over.
func (db *DB) forget(ctx context.Context, now time.Time) error {
	for _, name := range db.forgettable(now) {
		_, err := db.update(ctx, db.stamp(By("cmdb")), func(t *tx) error {
			t.remove(Ref{KindAcquisition, name})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) forgettable(now time.Time) []string {
	v := db.view()
	var names []string
	for object := range v.all(KindAcquisition) {
		a, ok := object.(*Acquisition)
		if !ok || now.Sub(a.Meta.At) < db.remember || a.held(v) {
			continue
		}
		names = append(names, a.Name)
	}
	return names
}

func (a *Acquisition) held(v view) bool {
	for _, name := range a.Devices {
		if d, ok := device(v, name); ok && d.Acquisition == a.Name {
			return true
		}
	}
	return false
}
