package pgstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// query reads on a connection of the pool, once the tables are there.
func query[T any](ctx context.Context, s *Store, scan pgx.RowToFunc[T], sql string, args ...any) (out []T, err error) {
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	err = s.retry(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, scan)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	return out, nil
}

// History implements flow.Store.
func (s *Store) History(ctx context.Context, id string, after int64, limit int) ([]flow.Record, error) {
	return query(ctx, s, func(row pgx.CollectableRow) (flow.Record, error) {
		var r flow.Record
		var body string
		err := row.Scan(&r.Seq, &r.At, &body)
		r.At, r.Body = r.At.UTC(), []byte(body)
		return r, err
	}, "SELECT seq, at, body::text FROM flow_event WHERE id = $1 AND seq > $2 ORDER BY seq LIMIT $3", id, after, bound(limit))
}

// bound is a LIMIT; NULL is none.
func bound(limit int) *int {
	if limit <= 0 {
		return nil
	}
	return &limit
}

// runColumns are those of flow_run r, as scanRow takes them.
const runColumns = "r.id, r.flow, r.version, r.key, r.parent, r.state, r.paused, r.step, r.wake, r.wake_at, r.wake_for, r.seq, r.actor, r.reason, r.started, r.updated, r.ended, r.error, r.owner"

func scanRow(row pgx.CollectableRow) (flow.Row, error) {
	var r flow.Row
	var key, parent, wakeFor, failure *string
	var wakeAt, ended *time.Time
	var owner *int64
	var state, wake string
	err := row.Scan(&r.ID, &r.Flow, &r.Version, &key, &parent, &state, &r.Paused, &r.Step, &wake, &wakeAt, &wakeFor, &r.Seq,
		&r.Actor, &r.Reason, &r.Started, &r.Updated, &ended, &failure, &owner)
	r.State, r.Wake.Kind = flow.State(state), flow.WakeKind(wake)
	r.Key, r.Parent, r.Wake.For, r.Error, r.Owner = value(key), value(parent), value(wakeFor), value(failure), value(owner)
	r.Started, r.Updated, r.Wake.At, r.Ended = r.Started.UTC(), r.Updated.UTC(), value(wakeAt).UTC(), value(ended).UTC()
	return r, err
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Get implements flow.Store.
func (s *Store) Get(ctx context.Context, id string) (flow.Row, error) {
	return s.one(ctx, "execution "+id, "id = $1", id)
}

// ByKey implements flow.Store.
func (s *Store) ByKey(ctx context.Context, name, key string) (flow.Row, error) {
	return s.one(ctx, fmt.Sprintf("execution of %s with key %q", name, key), "flow = $1 AND key = $2", name, key)
}

func (s *Store) one(ctx context.Context, what, where string, args ...any) (flow.Row, error) {
	rows, err := query(ctx, s, scanRow, "SELECT "+runColumns+" FROM flow_run r WHERE "+where, args...)
	if err != nil {
		return flow.Row{}, err
	}
	if len(rows) == 0 {
		return flow.Row{}, fmt.Errorf("%w: %s", flow.ErrNotFound, what)
	}
	return rows[0], nil
}

// List implements flow.Store.
func (s *Store) List(ctx context.Context, f flow.Filter) ([]flow.Row, error) {
	conditions := []string{"true"}
	var args []any
	add := func(condition string, values ...any) {
		at := make([]any, len(values))
		for i, value := range values {
			args = append(args, value)
			at[i] = len(args)
		}
		conditions = append(conditions, fmt.Sprintf(condition, at...))
	}
	if f.Open {
		conditions = append(conditions, "open")
	}
	for _, one := range []struct{ column, value string }{
		{"flow", f.Flow}, {"actor", f.Actor}, {"key", f.Key}, {"parent", f.Parent}, {"step", f.Step},
	} {
		if one.value != "" {
			add(one.column+" = $%d", one.value)
		}
	}
	if f.Version != 0 {
		add("version = $%d", f.Version)
	}
	if len(f.States) > 0 {
		add("state = ANY($%d)", texts(f.States))
	}
	if len(f.Wakes) > 0 {
		add("wake = ANY($%d)", texts(f.Wakes))
	}
	if !f.Since.IsZero() {
		add("started >= $%d", f.Since)
	}
	if !f.Until.IsZero() {
		add("started < $%d", f.Until)
	}
	if !f.EndedBefore.IsZero() {
		add("NOT open AND ended < $%d", f.EndedBefore)
	}
	if f.Text != "" {
		add("(position($%d in error) > 0 OR position($%d in wake_for) > 0)", f.Text, f.Text)
	}
	for _, tag := range f.Tags() {
		add("id IN (SELECT id FROM flow_tag WHERE name = $%d AND value = $%d)", tag.Name, tag.Value)
	}
	than, order := "<", "DESC"
	if f.Oldest {
		than, order = ">", "ASC"
	}
	if f.After != "" {
		add("id "+than+" $%d", f.After)
	}
	args = append(args, bound(f.Limit))
	return query(ctx, s, scanRow, fmt.Sprintf("SELECT %s FROM flow_run r WHERE %s ORDER BY id %s LIMIT $%d", runColumns, strings.Join(conditions, " AND "), order, len(args)), args...)
}

func texts[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, value := range values {
		out[i] = string(value)
	}
	return out
}

func scanDefinition(row pgx.CollectableRow) (flow.DefinitionRecord, error) {
	var r flow.DefinitionRecord
	err := row.Scan(&r.Name, &r.Version, &r.Digest, &r.Source, &r.SavedAt)
	r.SavedAt = r.SavedAt.UTC()
	return r, err
}

// Definition implements flow.Store.
func (s *Store) Definition(ctx context.Context, name string, version int) (flow.DefinitionRecord, error) {
	found, err := query(ctx, s, scanDefinition, `SELECT name, version, digest, source, saved_at FROM flow_definition
		WHERE name = $1 AND ($2::int = 0 OR version = $2) ORDER BY version DESC LIMIT 1`, name, version)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: flow %s version %d", flow.ErrNotFound, name, version)
	}
	if err != nil {
		return flow.DefinitionRecord{}, err
	}
	return found[0], nil
}

// Definitions implements flow.Store.
func (s *Store) Definitions(ctx context.Context) ([]flow.DefinitionRecord, error) {
	return query(ctx, s, scanDefinition, `SELECT DISTINCT ON (name COLLATE "C") name, version, digest, source, saved_at FROM flow_definition
		ORDER BY name COLLATE "C", version DESC`)
}

// Notices implements flow.Store.
func (s *Store) Notices(ctx context.Context, limit int) ([]flow.Notice, error) {
	return query(ctx, s, func(row pgx.CollectableRow) (flow.Notice, error) {
		var notice flow.Notice
		var body []byte
		if err := row.Scan(&body); err != nil {
			return notice, err
		}
		return notice, json.Unmarshal(body, &notice)
	}, "SELECT body FROM flow_notice ORDER BY n LIMIT $1", limit)
}
