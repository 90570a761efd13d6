package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// chronicle makes that of one controller, and has it run with the house.
func (h *house) chronicle(source string, read func(context.Context, store.Record) ([]told, error), forget func()) {
	c := &chronicle{source: source, store: h.record.store(source), records: h.records, logger: h.config.Logger, read: read, forget: forget,
		deliver: func(ctx context.Context, n center.Notice) error {
			_, err := h.centers.Notify.Deliver(ctx, n)
			return err
		},
	}
	h.run(c.run)
}

// detail encodes what an entry tells in full.
func detail(v any) json.RawMessage {
	content, err := json.Marshal(v)
	if err != nil { // values that were decoded from JSON
		return nil
	}
	return content
}

// rolloutsTold is what the store of gray tells: each transition of a rollout.
func rolloutsTold(_ context.Context, r store.Record) ([]told, error) {
	e, ok, err := gray.EventOf(r)
	if !ok {
		return nil, err
	}
	return []told{{entry: records.Entry{
		Key: fmt.Sprintf("%s/%d", e.Rollout, e.Seq), At: e.At, Actor: "gray", Action: "rollout." + string(e.To), Object: "rollout/" + e.Rollout,
		Reason: fmt.Sprintf("%d %%: %s", e.Percent, e.Reason), Detail: detail(e),
	}}}, nil
}

// scaleTold is what the store of scale tells: each step of an order, and each decision that differs from the last.
type scaleTold struct {
	audit func(ctx context.Context, q records.Query) ([]records.Entry, error)

	mu   sync.Mutex
	last map[string]scale.Decision // guarded by mu; by module, as the audit record has it
}

func newScaleTold(db *records.DB) *scaleTold {
	return &scaleTold{audit: db.AuditLog, last: make(map[string]scale.Decision)}
}

func (s *scaleTold) read(ctx context.Context, r store.Record) ([]told, error) {
	events, err := scale.EventsOf(r)
	var out []told
	for _, e := range events {
		key := ""
		switch {
		case e.Order != nil:
			key = e.Order.Key + "/" + string(e.Kind)
		case e.Decision != nil:
			news, err := s.news(ctx, e)
			if err != nil {
				return nil, err
			}
			if !news {
				continue
			}
			key = fmt.Sprintf("%s/%s/%d", e.Module, e.Kind, e.At.UnixNano())
		}
		if e.At.IsZero() {
			e.At = time.Now()
		}
		out = append(out, told{
			entry: records.Entry{Key: key, At: e.At, Actor: "scale", Action: string(e.Kind), Object: "module/" + e.Module, Reason: e.Reason.String(), Detail: detail(e)},
			notice: &center.Notice{
				ID: noticeID("scale-" + key), Kind: "load", Module: e.Module, Severity: "info", Text: string(e.Kind) + ": " + e.Reason.String(), At: e.At,
			},
		})
	}
	return out, err
}

// forget has the audit record asked again what it has.
func (s *scaleTold) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.last)
}

// noticeID makes a key of the store's out of one of the audit record.
func noticeID(key string) string { return strings.ReplaceAll(key, "/", "-") }

// news says whether a decision differs from the one before, by code or by count.
func (s *scaleTold) news(ctx context.Context, e scale.Event) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.last[e.Module]
	if !known {
		before, err := s.audit(ctx, records.Query{Actor: "scale", Action: string(scale.Decided), Object: "module/" + e.Module, Limit: 1})
		if err != nil {
			return false, err
		}
		if len(before) > 0 {
			var was scale.Event
			if json.Unmarshal(before[0].Detail, &was) == nil && was.Decision != nil {
				last, known = *was.Decision, true
			}
		}
	}
	if known && !e.At.After(last.At) {
		return false, nil // it was told before
	}
	s.last[e.Module] = *e.Decision
	return !known || last.Reason.Code != e.Decision.Reason.Code || last.Want != e.Decision.Want, nil
}

// driftTold is what the store of drift tells: each finding, when it is found and when its status changes.
type driftTold struct {
	audit func(ctx context.Context, q records.Query) ([]records.Entry, error)

	mu   sync.Mutex
	last map[string]drift.Status // guarded by mu; by id, as the audit record has it; of findings that are open
}

func newDriftTold(db *records.DB) *driftTold {
	return &driftTold{audit: db.AuditLog, last: make(map[string]drift.Status)}
}

func (d *driftTold) read(ctx context.Context, r store.Record) ([]told, error) {
	e, ok, err := drift.EntryOf(r)
	if !ok {
		return nil, err
	}
	f := e.Finding
	d.mu.Lock()
	defer d.mu.Unlock()
	last, known := d.last[e.ID]
	if !known {
		before, err := d.audit(ctx, records.Query{Actor: "drift", Object: "finding/" + e.ID, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(before) > 0 {
			last = drift.Status(strings.TrimPrefix(before[0].Action, "finding."))
		}
	}
	if d.last[e.ID] = f.Status; !e.Closed.IsZero() {
		delete(d.last, e.ID)
	}
	if last == f.Status {
		return nil, nil
	}
	key := fmt.Sprintf("%s@%d", e.ID, r.Revision)
	out := told{entry: records.Entry{Key: key, At: e.Updated, Actor: "drift", Action: "finding." + string(f.Status), Object: "finding/" + e.ID, Reason: f.String()}}
	if f.Status == drift.StatusEscalated { // nothing mends it by itself any more
		out.notice = &center.Notice{
			ID: noticeID("drift-" + key), Kind: "drift", Module: e.Module, Device: f.Device,
			Severity: "warning", Text: "repair has given up on " + f.String(), At: e.Updated,
		}
	}
	return []told{out}, nil
}

// forget has the audit record asked again what it has.
func (d *driftTold) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.last)
}

// flowEntry is what an event of an execution tells: its turns, not its every attempt.
func flowEntry(e flow.Event) (records.Entry, bool) {
	switch e.Kind {
	case flow.EventStarted, flow.EventCompensating, flow.EventStuck, flow.EventPaused, flow.EventResumed, flow.EventRetried,
		flow.EventSettled, flow.EventDone, flow.EventFailed, flow.EventCancelled, flow.EventStepDone, flow.EventStepFailed:
	default:
		return records.Entry{}, false
	}
	entry := records.Entry{
		Key: fmt.Sprintf("flow/%s/%d", e.Execution, e.Seq), At: e.At, Actor: e.Actor, Action: string(e.Kind),
		Object: "execution/" + e.Execution, Reason: e.Reason, Execution: e.Execution,
	}
	if entry.Actor == "" {
		entry.Actor = "flow"
	}
	if e.Step != "" {
		entry.Object += "/" + e.Step
	}
	if e.Error != nil {
		entry.Reason = e.Error.Error()
	}
	return entry, true
}

// toldUpTo is up to where the audit record is known to have what executions did: all of those that began before At and are not
// among Open had ended by then, and were looked at.
type toldUpTo struct {
	At   time.Time `json:"at"`
	Open []string  `json:"open,omitempty"`
}

const (
	toldKey = "audit/told"
	// toldSlack is how far clocks of servers may be apart.
	toldSlack = time.Hour
	// mostOpen bounds the position; with more executions under way it stays where it was.
	mostOpen = 10_000
)

// catchUp writes what executions did and a process that was killed did not live to tell: those whose end is not in the audit
// record. It begins where the last one was done, so that it costs what happened since and not all that ever happened. It runs
// when the server starts; from then on the engine tells.
func (h *house) catchUp(ctx context.Context) error {
	from, err := h.toldUpTo(ctx)
	if err != nil {
		return err
	}
	next := toldUpTo{At: time.Now()}
	seen := make(map[string]struct{})
	look := func(x flow.Execution) error {
		seen[x.ID] = struct{}{}
		if !x.State.Ended() {
			next.Open = append(next.Open, x.ID)
		}
		return h.catchUpOne(ctx, x)
	}
	filter := flow.Filter{Limit: 100}
	if !from.At.IsZero() {
		filter.Since = from.At.Add(-toldSlack)
	}
	for {
		page, after, err := h.flow.List(ctx, filter)
		if err != nil {
			return fmt.Errorf("list executions: %w", err)
		}
		for _, x := range page {
			if err := look(x); err != nil {
				return err
			}
		}
		if after == "" {
			break
		}
		filter.After = after
	}
	for _, id := range from.Open {
		if _, ok := seen[id]; ok {
			continue
		}
		x, err := h.flow.Get(ctx, id)
		if errors.Is(err, flow.ErrNotFound) {
			continue // kept no more
		}
		if err == nil {
			err = look(x)
		}
		if err != nil {
			return fmt.Errorf("execution %s: %w", id, err)
		}
	}
	if len(next.Open) > mostOpen {
		return nil
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	_, err = h.record.store("server").Commit(ctx, store.Put(toldKey, value))
	return err
}

// toldUpTo reads the position; its zero value, if there is none or it cannot be read, means everything.
func (h *house) toldUpTo(ctx context.Context) (from toldUpTo, err error) {
	found, _, err := h.record.store("server").List(ctx, toldKey)
	for _, record := range found {
		if record.Key == toldKey && json.Unmarshal(record.Value, &from) != nil {
			from = toldUpTo{}
		}
	}
	return from, err
}

func (h *house) catchUpOne(ctx context.Context, x flow.Execution) error {
	row, err := h.steps.Get(ctx, x.ID)
	if err != nil {
		return fmt.Errorf("read execution %s: %w", x.ID, err)
	}
	if x.State.Ended() { // then its last event is an entry
		have, err := h.records.AuditLog(ctx, records.Query{Object: "execution/" + x.ID, Limit: 1})
		if err != nil || len(have) > 0 && have[0].Key == fmt.Sprintf("flow/%s/%d", x.ID, row.Seq) {
			return err
		}
	}
	var entries []records.Entry
	for event, err := range h.flow.Watch(ctx, x.ID) {
		if err != nil {
			return err
		}
		if entry, ok := flowEntry(event); ok {
			entries = append(entries, entry)
		}
		if event.Seq >= row.Seq { // what comes is told
			break
		}
	}
	return h.records.AuditOf(ctx, "flow", x.ID, entries)
}
