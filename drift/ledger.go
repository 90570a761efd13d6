package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Ledger keeps the findings of all devices, for people, and tells agents what those people and the rest of the fleet
// have to say: holds, orders, and the brake. It holds no truth in memory: any number of ledgers may work on one store.
// Make it with NewLedger. It is a Reporter, and safe for concurrent use.
type Ledger struct{ config LedgerConfig }

// LedgerConfig sets up a Ledger. A zero field means the default that is named.
type LedgerConfig struct {
	Store Store // required
	Fleet Fleet // default: none, and so no brake and no modules

	// BrakePercent is the share of a module's devices that may differ alike. When more do, not the devices but the
	// declaration is suspected, and repairs of that subject are held in the whole module, until no more than half
	// that share differ. Default 30.
	BrakePercent int
	BrakeMin     int           // devices that must differ alike before the share counts; default 3
	Keep         time.Duration // how long closed findings stay; default 24h

	OnChange func(EntryChange) // called after each stored change of an entry; must not block
	Now      func() time.Time  // default time.Now
	Logger   *slog.Logger      // default: none
}

// Fleet knows which module a device serves.
type Fleet interface {
	// Module returns the device's module and how many devices serve it; an empty name for a device without one.
	Module(ctx context.Context, device string) (name string, devices int, err error)
}

// Entry is a finding in the ledger.
type Entry struct {
	ID      string    `json:"id"` // "device/kind/subject"
	Module  string    `json:"module,omitempty"`
	Finding Finding   `json:"finding"`
	Updated time.Time `json:"updated"`
	Closed  time.Time `json:"closed,omitzero"` // zero while it is open
	Ignored *Ignored  `json:"ignored,omitempty"`
	Order   *Order    `json:"order,omitempty"` // a repair that was asked for and is not done

	Revision int64 `json:"-"` // of the store
}

// Ignored says who let a finding be, and until when.
type Ignored struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is reopened
}

// EntryChange is one change of an entry. Old is nil for a new entry, New for one that was forgotten.
type EntryChange struct {
	Revision int64
	Old      *Entry // not known, and nil, in what Watch yields
	New      *Entry
	ID       string
}

// DeviceStatus is what the ledger knows of a device beside its findings.
type DeviceStatus struct {
	Device     string     `json:"device"`
	Module     string     `json:"module,omitempty"`
	Generation string     `json:"generation"`
	At         time.Time  `json:"at"` // of the last report that told something new, by the device's clock
	Open       int        `json:"open"`
	More       int        `json:"more,omitempty"` // open findings that the reports had no room for
	Coverage   []Coverage `json:"coverage"`
}

// Errors of a Ledger.
var (
	ErrNotFound = errors.New("drift: no such entry; list the entries for their ids")
	ErrClosed   = errors.New("drift: the finding is closed; there is nothing to do about it")
)

// NewLedger returns a ledger. All faults of config are reported at once; each is a *ConfigError.
func NewLedger(config LedgerConfig) (*Ledger, error) {
	var faults []error
	fault := func(field, text string) { faults = append(faults, &ConfigError{"LedgerConfig." + field, text}) }
	if config.Store == nil {
		fault("Store", "is nil; give one, such as memstore.New() or etcdstore.New(client, prefix)")
	}
	switch {
	case config.BrakePercent < 0 || config.BrakePercent > 100:
		fault("BrakePercent", fmt.Sprintf("is %d; give 1 to 100, or 0 for 30", config.BrakePercent))
	case config.BrakePercent == 0:
		config.BrakePercent = 30
	}
	switch {
	case config.BrakeMin < 0:
		fault("BrakeMin", fmt.Sprintf("is %d; give a positive number, or 0 for 3", config.BrakeMin))
	case config.BrakeMin == 0:
		config.BrakeMin = 3
	}
	switch {
	case config.Keep < 0:
		fault("Keep", fmt.Sprintf("is %v; give a positive duration, or 0 for 24h", config.Keep))
	case config.Keep == 0:
		config.Keep = 24 * time.Hour
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Ledger{config}, errors.Join(faults...)
}

const (
	findingPrefix = "finding/"
	devicePrefix  = "device/"
)

func entryID(device string, key Key) string {
	return device + "/" + string(key.Kind) + "/" + key.Subject
}

// Filter chooses entries. All the fields that are set must fit.
type Filter struct {
	Device, Module string
	Kind           Kind
	Status         []Status // empty: every status that is not closed
	Limit          int      // default 1000
	After          string   // the next that the last List returned
}

func (f Filter) fits(e Entry) bool {
	if f.Device != "" && e.Finding.Device != f.Device || f.Module != "" && e.Module != f.Module || f.Kind != "" && e.Finding.Kind != f.Kind {
		return false
	}
	if len(f.Status) == 0 {
		return e.Closed.IsZero()
	}
	return slices.Contains(f.Status, e.Finding.Status)
}

// List returns the entries that fit, in the order of their ids, and where to go on if there are more.
func (l *Ledger) List(ctx context.Context, f Filter) (entries []Entry, next string, err error) {
	if f.Limit <= 0 {
		f.Limit = 1000
	}
	prefix := findingPrefix
	if f.Device != "" {
		prefix += f.Device + "/"
	}
	records, _, err := l.config.Store.List(ctx, prefix)
	if err != nil {
		return nil, "", fmt.Errorf("drift: list findings: %w", err)
	}
	for _, r := range records {
		if strings.TrimPrefix(r.Key, findingPrefix) <= f.After && f.After != "" {
			continue
		}
		e, err := decodeEntry(r)
		if err != nil {
			return nil, "", err
		}
		if !f.fits(l.lapse(e)) {
			continue
		}
		if len(entries) == f.Limit {
			return entries, entries[len(entries)-1].ID, nil
		}
		entries = append(entries, l.lapse(e))
	}
	return entries, "", nil
}

// lapse shows an entry whose ignoring has run out as open.
func (l *Ledger) lapse(e Entry) Entry {
	if e.Ignored != nil && !e.Ignored.Until.IsZero() && !l.config.Now().Before(e.Ignored.Until) {
		e.Ignored = nil
		if e.Finding.Status == StatusIgnored {
			e.Finding.Status = StatusOpen
		}
	}
	return e
}

func decodeEntry(r Record) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return Entry{}, fmt.Errorf("drift: read the finding under %q: %w", r.Key, err)
	}
	e.Revision = r.Revision
	return e, nil
}

// EntryOf reads the entry that a record of the ledger's Store holds; false for a record of another kind. Who follows the Store
// (list, then watch) sees each change as it was committed.
func EntryOf(record Record) (Entry, bool, error) {
	if !strings.HasPrefix(record.Key, findingPrefix) {
		return Entry{}, false, nil
	}
	e, err := decodeEntry(record)
	return e, err == nil, err
}

// one reads the record under exactly key; its revision is 0 if there is none.
func (l *Ledger) one(ctx context.Context, key string) (Record, error) {
	records, _, err := l.config.Store.List(ctx, key)
	if err != nil {
		return Record{}, fmt.Errorf("drift: read %q: %w", key, err)
	}
	if len(records) > 0 && records[0].Key == key {
		return records[0], nil
	}
	return Record{Key: key}, nil
}

// Get returns one entry, or ErrNotFound.
func (l *Ledger) Get(ctx context.Context, id string) (Entry, error) {
	r, err := l.one(ctx, findingPrefix+id)
	if err != nil {
		return Entry{}, err
	}
	if r.Revision == 0 {
		return Entry{}, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	e, err := decodeEntry(r)
	return l.lapse(e), err
}

// Watch yields the changes of entries after a revision, in order; 0 means from the first that the store keeps. It ends
// when ctx does, or with an error: after ErrCompacted, list and watch anew.
func (l *Ledger) Watch(ctx context.Context, after int64) iter.Seq2[EntryChange, error] {
	return func(yield func(EntryChange, error) bool) {
		for event, err := range l.config.Store.Watch(ctx, findingPrefix, after) {
			if err != nil {
				yield(EntryChange{}, err)
				return
			}
			for _, r := range event.Puts {
				e, err := decodeEntry(r)
				if !yield(EntryChange{Revision: event.Revision, New: &e, ID: e.ID}, err) || err != nil {
					return
				}
			}
			for _, key := range event.Deletes {
				if !yield(EntryChange{Revision: event.Revision, ID: strings.TrimPrefix(key, findingPrefix)}, nil) {
					return
				}
			}
		}
	}
}

// Repair asks the device's agent to repair a finding, whatever its mode. The agent gets to know with the next
// Directives. An order that is not done yet stays as it is.
func (l *Ledger) Repair(ctx context.Context, id, actor, reason string) error {
	return l.update(ctx, id, func(e *Entry) error {
		if !e.Closed.IsZero() {
			return fmt.Errorf("%w: %q", ErrClosed, id)
		}
		if e.Order == nil {
			now := l.config.Now()
			e.Order = &Order{ID: fmt.Sprintf("%s@%d", id, now.UnixNano()), Kind: e.Finding.Kind, Subject: e.Finding.Subject, By: actor, Reason: reason}
		}
		return nil
	})
}

// Ignore lets a finding be until a time, or until Reopen if that is zero: it is not repaired meanwhile.
func (l *Ledger) Ignore(ctx context.Context, id, actor, reason string, until time.Time) error {
	return l.update(ctx, id, func(e *Entry) error {
		if !e.Closed.IsZero() {
			return fmt.Errorf("%w: %q", ErrClosed, id)
		}
		e.Ignored = &Ignored{By: actor, Reason: reason, Until: until}
		e.Order = nil
		e.Finding.Status = StatusIgnored
		return nil
	})
}

// Reopen ends what Ignore began, and has the device's agent try anew where repair had given up, if it repairs at all.
func (l *Ledger) Reopen(ctx context.Context, id, actor, reason string) error {
	return l.update(ctx, id, func(e *Entry) error {
		if !e.Closed.IsZero() {
			return fmt.Errorf("%w: %q", ErrClosed, id)
		}
		e.Ignored = nil
		switch e.Finding.Status {
		case StatusIgnored:
			e.Finding.Status = StatusOpen
		case StatusEscalated:
			if e.Order == nil {
				now := l.config.Now()
				e.Order = &Order{ID: fmt.Sprintf("%s@%d", id, now.UnixNano()), Kind: e.Finding.Kind, Subject: e.Finding.Subject, By: actor, Reason: reason, Anew: true}
			}
		}
		return nil
	})
}

// conflictTries is how often a change is tried again that somebody else's has overtaken.
const conflictTries = 10

func (l *Ledger) update(ctx context.Context, id string, change func(*Entry) error) error {
	var err error
	for range conflictTries {
		var old Entry
		if old, err = l.Get(ctx, id); err != nil {
			return err
		}
		e := old
		if err = change(&e); err != nil {
			return err
		}
		e.Updated = l.config.Now()
		var value []byte
		if value, err = json.Marshal(e); err != nil {
			return fmt.Errorf("drift: write the finding %q: %w", id, err)
		}
		made := EntryChange{Old: &old, New: &e, ID: id}
		ops := append(countAlike(e.Finding.Device, made), put(findingPrefix+id, value).At(old.Revision))
		if made.Revision, err = l.config.Store.Commit(ctx, ops...); err == nil {
			e.Revision = made.Revision
			l.tell(made)
			if len(ops) > 1 {
				err = l.weigh(ctx, e.Module, e.Finding.Key(), 0)
			}
			return err
		}
		if !errors.Is(err, errConflict) {
			return fmt.Errorf("drift: write the finding %q: %w", id, err)
		}
	}
	return fmt.Errorf("drift: write the finding %q: %w", id, err)
}

// Forget drops all that is known of a device, for one that is retired.
func (l *Ledger) Forget(ctx context.Context, device string) error {
	records, _, err := l.config.Store.List(ctx, findingPrefix+device+"/")
	if err != nil {
		return fmt.Errorf("drift: forget %s: %w", device, err)
	}
	for chunk := range slices.Chunk(records, commitSize/2) {
		var ops []Op
		var gone []EntryChange
		for _, r := range chunk {
			e, err := decodeEntry(r)
			if err != nil {
				return err
			}
			if e.counts() && e.Module != "" {
				ops = append(ops, remove(alikeKey(e.Module, e.Finding.Key())+device))
			}
			ops = append(ops, remove(r.Key))
			gone = append(gone, EntryChange{Old: &e, ID: e.ID})
		}
		revision, err := l.config.Store.Commit(ctx, ops...)
		if err != nil {
			return fmt.Errorf("drift: forget %s: %w", device, err)
		}
		for _, c := range gone {
			c.Revision = revision
			l.tell(c)
			if err := l.weigh(ctx, c.Old.Module, c.Old.Finding.Key(), 0); err != nil {
				return fmt.Errorf("drift: forget %s: %w", device, err)
			}
		}
	}
	if _, err := l.config.Store.Commit(ctx, remove(devicePrefix+device)); err != nil {
		return fmt.Errorf("drift: forget %s: %w", device, err)
	}
	return nil
}

func (l *Ledger) tell(change EntryChange) {
	if l.config.OnChange != nil {
		l.config.OnChange(change)
	}
}

// Device returns what is known of a device, or ErrNotFound if it never reported.
func (l *Ledger) Device(ctx context.Context, name string) (DeviceStatus, error) {
	r, err := l.one(ctx, devicePrefix+name)
	if err != nil {
		return DeviceStatus{}, err
	}
	if r.Revision == 0 {
		return DeviceStatus{}, fmt.Errorf("%w: device %q has not reported", ErrNotFound, name)
	}
	var d DeviceStatus
	if err := json.Unmarshal(r.Value, &d); err != nil {
		return DeviceStatus{}, fmt.Errorf("drift: read the status of device %q: %w", name, err)
	}
	return d, nil
}
