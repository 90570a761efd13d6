package drift

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Brake holds the repairs of one subject in a whole module, because so many of its devices differ alike there that the
// declaration is suspected. It is set and lifted by the reports that come in; a person may release it.
type Brake struct {
	Module   string    `json:"module"`
	Kind     Kind      `json:"kind"`
	Subject  string    `json:"subject"`
	Alike    int       `json:"alike"` // devices that differ, when it was set
	Devices  int       `json:"devices"`
	Percent  int       `json:"percent"` // the limit that was passed
	Since    time.Time `json:"since"`
	Released *Ignored  `json:"released,omitempty"` // by whom, why, and until when it stays so
}

// Reason says why the brake was set.
func (b Brake) Reason() Reason {
	return Reason{"brake", fmt.Sprintf("%d of %d devices of %s differ alike, more than %d%%: the declaration is suspected",
		b.Alike, b.Devices, b.Module, b.Percent)}
}

const (
	brakePrefix = "brake/"
	alikePrefix = "alike/" // alike/MODULE/KIND/HASH/DEVICE: one empty record per device that differs in a subject
)

func brakeKey(module string, key Key) string {
	return brakePrefix + module + "/" + string(key.Kind) + "/" + key.Subject
}

func alikeKey(module string, key Key) string {
	sum := sha256.Sum256([]byte(key.Subject))
	return alikePrefix + module + "/" + string(key.Kind) + "/" + hex.EncodeToString(sum[:8]) + "/"
}

// counts says whether an entry speaks against its declaration.
func (e *Entry) counts() bool {
	if e == nil || !e.Closed.IsZero() || e.Ignored != nil {
		return false
	}
	return e.Finding.Verdict != Deploying && e.Finding.Verdict != Override
}

// countAlike is what a change of an entry does to the counts of devices that differ alike.
func countAlike(device string, c EntryChange) []Op {
	key := c.New.Finding.Key()
	before, after := "", ""
	if c.Old.counts() && c.Old.Module != "" {
		before = alikeKey(c.Old.Module, key) + device
	}
	if c.New.counts() && c.New.Module != "" {
		after = alikeKey(c.New.Module, key) + device
	}
	var ops []Op
	if before != "" && before != after {
		ops = append(ops, remove(before))
	}
	if after != "" && before != after {
		ops = append(ops, put(after, nil))
	}
	return ops
}

// weighedAgain is how many unchanged findings of a report have their brake looked at again, by turns: it makes good
// what a ledger left undone that ended between counting and braking.
const weighedAgain = 8

// brake sets and lifts the brakes of the subjects that a report speaks of.
func (l *Ledger) brake(ctx context.Context, r Report, module string, devices int, changes []EntryChange) error {
	weigh := make(map[string]map[Key]bool)
	add := func(module string, key Key) {
		if weigh[module] == nil {
			weigh[module] = make(map[Key]bool)
		}
		weigh[module][key] = module != ""
	}
	for _, c := range changes {
		if len(countAlike(r.Device, c)) == 0 {
			continue
		}
		add(c.New.Module, c.New.Finding.Key())
		if c.Old != nil {
			add(c.Old.Module, c.New.Finding.Key())
		}
	}
	for i := range min(weighedAgain, len(r.Findings)) {
		add(module, r.Findings[(int(r.At.Unix()/60&0xffff)*weighedAgain+i)%len(r.Findings)].Key())
	}
	for _, name := range slices.Sorted(maps.Keys(weigh)) {
		of := devices
		if name != module {
			of = 0 // the device has left that module: its brake knows how many there were
		}
		for _, key := range slices.SortedFunc(maps.Keys(weigh[name]), Key.compare) {
			if !weigh[name][key] {
				continue
			}
			if err := l.weigh(ctx, name, key, of); err != nil {
				return fmt.Errorf("drift: brake of %s in %s: %w", key, name, err)
			}
		}
	}
	return nil
}

// weigh sets or lifts one brake. devices is how many the module has, or 0 if that is not known: then a brake is only
// lifted.
func (l *Ledger) weigh(ctx context.Context, module string, key Key, devices int) error {
	alike, _, err := l.config.Store.List(ctx, alikeKey(module, key))
	if err != nil {
		return err
	}
	name := brakeKey(module, key)
	record, err := l.one(ctx, name)
	if err != nil {
		return err
	}
	set := record.Revision != 0
	if set && devices == 0 {
		var b Brake
		if err := json.Unmarshal(record.Value, &b); err != nil {
			return fmt.Errorf("drift: read the brake under %q: %w", name, err)
		}
		devices = b.Devices
	}
	share := 100 * len(alike)
	switch {
	case !set && devices > 0 && len(alike) >= l.config.BrakeMin && share > l.config.BrakePercent*devices:
		b := Brake{Module: module, Kind: key.Kind, Subject: key.Subject, Alike: len(alike), Devices: devices,
			Percent: l.config.BrakePercent, Since: l.config.Now()}
		value, err := json.Marshal(b)
		if err != nil {
			return err
		}
		if _, err = l.config.Store.Commit(ctx, put(name, value).IfAbsent()); err != nil && !errors.Is(err, errConflict) {
			return err
		}
		l.config.Logger.Warn("drift: brake set", "module", module, "kind", key.Kind, "subject", key.Subject, "reason", b.Reason().Detail)
	case set && (2*share <= l.config.BrakePercent*devices || len(alike) == 0):
		if _, err = l.config.Store.Commit(ctx, remove(name).At(record.Revision)); err != nil && !errors.Is(err, errConflict) {
			return err
		}
		l.config.Logger.Info("drift: brake lifted", "module", module, "kind", key.Kind, "subject", key.Subject, "alike", len(alike))
	}
	return nil
}

// Brakes lists the brakes of a module, or of all for "".
func (l *Ledger) Brakes(ctx context.Context, module string) ([]Brake, error) {
	prefix := brakePrefix
	if module != "" {
		prefix += module + "/"
	}
	records, _, err := l.config.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("drift: list brakes: %w", err)
	}
	var out []Brake
	for _, r := range records {
		var b Brake
		if err := json.Unmarshal(r.Value, &b); err != nil {
			return nil, fmt.Errorf("drift: read the brake under %q: %w", r.Key, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// Release lets repairs go on although a brake is set, until a time, or until the brake is lifted if that is zero.
// ErrNotFound says that there is none.
func (l *Ledger) Release(ctx context.Context, module string, key Key, actor, reason string, until time.Time) error {
	var err error
	for range conflictTries {
		var r Record
		if r, err = l.one(ctx, brakeKey(module, key)); err != nil {
			return err
		}
		if r.Revision == 0 {
			return fmt.Errorf("%w: no brake of %s in %s", ErrNotFound, key, module)
		}
		var b Brake
		if err = json.Unmarshal(r.Value, &b); err != nil {
			return fmt.Errorf("drift: read the brake of %s in %s: %w", key, module, err)
		}
		b.Released = &Ignored{By: actor, Reason: reason, Until: until}
		var value []byte
		if value, err = json.Marshal(b); err != nil {
			return fmt.Errorf("drift: release the brake of %s in %s: %w", key, module, err)
		}
		if _, err = l.config.Store.Commit(ctx, put(r.Key, value).At(r.Revision)); !errors.Is(err, errConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("drift: release the brake of %s in %s: %w", key, module, err)
	}
	return nil
}

// Directives are what a ledger has to say to the agent of one device, for its declared state.
type Directives struct {
	Holds  []Hold  `json:"holds,omitempty"`
	Orders []Order `json:"orders,omitempty"`
}

// Directives returns those for a device: holds for what is ignored and for brakes of its module, and orders.
func (l *Ledger) Directives(ctx context.Context, device string) (Directives, error) {
	var d Directives
	entries, _, err := l.List(ctx, Filter{Device: device, Limit: 1 << 30})
	if err != nil {
		return d, err
	}
	for _, e := range entries {
		if e.Order != nil {
			d.Orders = append(d.Orders, *e.Order)
		}
		if e.Ignored != nil {
			d.Holds = append(d.Holds, Hold{Kind: e.Finding.Kind, Subject: e.Finding.Subject, Verdict: Override,
				Reason: e.Ignored.Reason, By: e.Ignored.By, Until: e.Ignored.Until})
		}
	}
	if l.config.Fleet == nil {
		return d, nil
	}
	module, _, err := l.config.Fleet.Module(ctx, device)
	if err != nil || module == "" {
		return d, err
	}
	brakes, err := l.Brakes(ctx, module)
	if err != nil {
		return d, err
	}
	now := l.config.Now()
	for _, b := range brakes {
		if r := b.Released; r != nil && (r.Until.IsZero() || now.Before(r.Until)) {
			continue
		}
		d.Holds = append(d.Holds, Hold{Kind: b.Kind, Subject: b.Subject, Verdict: Suspect, Reason: b.Reason().Detail, By: "brake"})
	}
	return d, nil
}

// Into adds the directives to a declared state and its generation. Neither argument is changed.
func (d Directives) Into(state State, generation string) (State, string) {
	if len(d.Holds) == 0 && len(d.Orders) == 0 {
		return state, generation
	}
	state.Holds = slices.Concat(state.Holds, d.Holds)
	state.Orders = slices.Concat(state.Orders, d.Orders)
	text, err := json.Marshal(d)
	if err != nil { // times out of JSON's range; the pointers tell two apart no worse
		text = fmt.Appendf(nil, "%+v", d)
	}
	sum := sha256.Sum256(text)
	return state, generation + "+" + hex.EncodeToString(sum[:6])
}
