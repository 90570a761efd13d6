package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Report implements Reporter: it brings the ledger in line with what a device's agent says. A finding that the report
// has no more is closed, unless the report could not know: its kind is not covered, or there was no room for all.
// The same report twice changes nothing.
func (l *Ledger) Report(ctx context.Context, r Report) error {
	if r.Device == "" || strings.Contains(r.Device, "/") {
		return fmt.Errorf("drift: a report of device %q: %w", r.Device, &ConfigError{"Report.Device", "must be a name without a slash"})
	}
	var module string
	var devices int
	if l.config.Fleet != nil {
		var err error
		if module, devices, err = l.config.Fleet.Module(ctx, r.Device); err != nil {
			return fmt.Errorf("drift: report of %s: find its module: %w", r.Device, err)
		}
	}
	var err error
	for range conflictTries {
		var changes []EntryChange
		changes, err = l.record(ctx, r, module)
		for _, change := range changes {
			l.tell(change)
		}
		if err == nil {
			return l.brake(ctx, r, module, devices, changes)
		}
		if !errors.Is(err, errConflict) {
			break
		}
	}
	return fmt.Errorf("drift: report of %s: %w", r.Device, err)
}

// commitSize bounds the operations of one commit; etcd takes 128 by default.
const commitSize = 100

// record stores what a report changes, and returns what was stored, even with an error.
func (l *Ledger) record(ctx context.Context, r Report, module string) ([]EntryChange, error) {
	records, _, err := l.config.Store.List(ctx, findingPrefix+r.Device+"/")
	if err != nil {
		return nil, err
	}
	have := make(map[Key]Entry, len(records))
	for _, record := range records {
		e, err := decodeEntry(record)
		if err != nil {
			return nil, err
		}
		have[e.Finding.Key()] = e
	}
	last, status, err := l.lastReport(ctx, r, module)
	if err != nil {
		return nil, err
	}
	if status == nil {
		return nil, nil // a newer report came before
	}
	changes, gone := merge(l.config.Now(), l.config.Keep, have, r, module)
	var done []EntryChange
	for chunk := range slices.Chunk(changes, commitSize/3) {
		ops := make([]Op, 0, commitSize)
		for _, c := range chunk {
			ops = append(ops, countAlike(r.Device, c)...)
			value, err := json.Marshal(c.New)
			if err != nil {
				return done, err
			}
			var at int64
			if c.Old != nil {
				at = c.Old.Revision
			}
			ops = append(ops, put(findingPrefix+c.ID, value).At(at))
		}
		revision, err := l.config.Store.Commit(ctx, ops...)
		if err != nil {
			return done, err
		}
		for _, c := range chunk {
			c.Revision, c.New.Revision = revision, revision
			done = append(done, c)
		}
	}
	for chunk := range slices.Chunk(gone, commitSize) {
		ops := make([]Op, 0, len(chunk))
		for _, e := range chunk {
			ops = append(ops, remove(findingPrefix+e.ID).At(e.Revision))
		}
		if _, err := l.config.Store.Commit(ctx, ops...); err != nil {
			return done, err
		}
	}
	value, err := json.Marshal(status)
	if err != nil {
		return done, err
	}
	if sameStatus(last.Value, *status) {
		return done, nil
	}
	_, err = l.config.Store.Commit(ctx, put(devicePrefix+r.Device, value).At(last.Revision))
	return done, err
}

// lateReport is how much older than the last one a report may be and still be taken for one that was overtaken. A
// device whose clock was set back further is believed.
const lateReport = time.Minute

// lastReport returns the stored status of the device, and the one that r makes; nil if r was overtaken.
func (l *Ledger) lastReport(ctx context.Context, r Report, module string) (Record, *DeviceStatus, error) {
	record, err := l.one(ctx, devicePrefix+r.Device)
	if err != nil {
		return Record{}, nil, err
	}
	if record.Revision != 0 {
		var last DeviceStatus
		if err := json.Unmarshal(record.Value, &last); err != nil {
			return Record{}, nil, fmt.Errorf("drift: read the status of device %q: %w", r.Device, err)
		}
		if r.At.Before(last.At) && last.At.Sub(r.At) < lateReport {
			return record, nil, nil
		}
	}
	return record, &DeviceStatus{Device: r.Device, Module: module, Generation: r.Generation, At: r.At,
		Open: len(r.Findings) + r.More, More: r.More, Coverage: r.Coverage}, nil
}

// sameStatus says whether a stored status tells the same but for times.
func sameStatus(stored []byte, status DeviceStatus) bool {
	var last DeviceStatus
	if len(stored) == 0 || json.Unmarshal(stored, &last) != nil {
		return false
	}
	timeless := func(d DeviceStatus) DeviceStatus {
		d.At = time.Time{}
		d.Coverage = slices.Clone(d.Coverage)
		for i := range d.Coverage {
			d.Coverage[i].At = time.Time{}
			d.Coverage[i].Gaps = slices.Clone(d.Coverage[i].Gaps)
			for k := range d.Coverage[i].Gaps {
				d.Coverage[i].Gaps[k].Since = time.Time{}
			}
			if len(d.Coverage[i].Gaps) == 0 {
				d.Coverage[i].Gaps = nil
			}
		}
		if len(d.Coverage) == 0 {
			d.Coverage = nil
		}
		return d
	}
	return reflect.DeepEqual(timeless(last), timeless(status))
}

// merge says what a report changes in the entries that there are, and which of them are too old to keep. It is pure.
func merge(now time.Time, keep time.Duration, have map[Key]Entry, r Report, module string) (changes []EntryChange, gone []Entry) {
	reported := make(map[Key]bool, len(r.Findings))
	change := func(old *Entry, e Entry) {
		if e.Module = module; module == "" && old != nil {
			e.Module = old.Module // it was found while the device served there
		}
		if old != nil && sameEntry(*old, e) {
			return
		}
		e.Updated = now
		changes = append(changes, EntryChange{Old: old, New: &e, ID: e.ID})
	}
	for _, f := range r.Findings {
		key := f.Key()
		f.Device = r.Device
		reported[key] = true
		e := Entry{ID: entryID(r.Device, key), Finding: f}
		old, known := have[key]
		if !known {
			change(nil, e)
			continue
		}
		e.Revision = old.Revision
		if old.Closed.IsZero() {
			e.Order = old.Order
			if old.Finding.same(f) && old.Finding.FirstSeen.Before(f.FirstSeen) {
				e.Finding.FirstSeen = old.Finding.FirstSeen // the agent was started anew since
			}
		}
		if e.Ignored = old.Ignored; e.Ignored != nil {
			if until := e.Ignored.Until; !until.IsZero() && !now.Before(until) {
				e.Ignored = nil
			} else {
				e.Finding.Status = StatusIgnored
			}
		}
		if e.Order != nil && (f.Status == StatusRepairing || f.Status == StatusEscalated) && f.Repairs > old.Finding.Repairs {
			e.Order = nil // it was served
		}
		if e.Order != nil && e.Order.Anew && f.Status != StatusEscalated {
			e.Order = nil // likewise; if repair gives up again at once, the order goes with the finding
		}
		change(&old, e)
	}
	closed := make(map[Key]Finding, len(r.Closed))
	for _, f := range r.Closed {
		f.Device = r.Device
		closed[f.Key()] = f
	}
	sees := sightOf(State{Coverage: r.Coverage})
	for key, old := range have {
		if reported[key] {
			continue
		}
		if !old.Closed.IsZero() {
			if now.Sub(old.Closed) > keep {
				gone = append(gone, old)
			}
			continue
		}
		f, told := closed[key]
		if !told {
			if r.More > 0 || r.Generation == "" || !sees.kinds[key.Kind] {
				continue // the report cannot know
			}
			f = old.Finding
			f.Status, f.Reason = StatusGone, Reason{}
		}
		change(&old, Entry{ID: old.ID, Finding: f, Closed: now, Revision: old.Revision})
	}
	for key, f := range closed { // opened and closed since the last report
		if _, known := have[key]; !known && !reported[key] {
			change(nil, Entry{ID: entryID(r.Device, key), Finding: f, Closed: now})
		} else if known && !reported[key] && !have[key].Closed.IsZero() && !f.FirstSeen.Equal(have[key].Finding.FirstSeen) {
			old := have[key]
			change(&old, Entry{ID: old.ID, Finding: f, Closed: now, Revision: old.Revision})
		}
	}
	slices.SortFunc(changes, func(a, b EntryChange) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(gone, func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	return changes, gone
}

func sameEntry(a, b Entry) bool {
	a.Updated, b.Updated = time.Time{}, time.Time{}
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
