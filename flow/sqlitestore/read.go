package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// ready makes the tables if nobody has.
func (s *Store) ready(ctx context.Context) error {
	if s.prepared.Load() {
		return nil
	}
	return s.locked(ctx, func() error { return nil })
}

// History implements flow.Store. Rows lead backwards only: what is read is the way back from a mark, or from the end, a part at a time.
func (s *Store) History(ctx context.Context, id string, after int64, limit int) ([]flow.Record, error) {
	var out []flow.Record
	for {
		part, more, err := s.part(ctx, id, after, limit-len(out), limit > 0)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
		if !more || limit > 0 && len(out) >= limit {
			if limit > 0 && len(out) > limit {
				out = out[:limit]
			}
			return out, nil
		}
		after = part[len(part)-1].Seq
	}
}

// part reads the records behind after: all, or up to a mark behind which there are more.
func (s *Store) part(ctx context.Context, id string, after int64, want int, bounded bool) (out []flow.Record, more bool, err error) {
	// A record holds at least one event: the mark lies at or before the place where so many records end, unless that is before the first.
	from := "(SELECT last FROM flow_now WHERE n = r.n)"
	args := []any{id, after}
	if bounded {
		from = "coalesce((SELECT min(n) FROM flow_mark WHERE run = r.n AND seq > ?3), " + from + ")"
		args = append(args, after+int64(want))
	}
	err = s.query(ctx, func(rows *sql.Rows) error {
		var r flow.Record
		var at int64
		if err := rows.Scan(&r.Seq, &at, &r.Body, &more); err != nil {
			return err
		}
		r.At, r.Body = time.UnixMicro(at).UTC(), unpack(r.Body)
		out = append(out, r)
		return nil
	}, `WITH RECURSIVE
		ends (n, last) AS (SELECT `+from+`, (SELECT last FROM flow_now WHERE n = r.n) FROM flow_run r WHERE r.id = ?1),
		back (n, prev, seq, at, body) AS (
			SELECT e.n, e.prev, e.seq, e.at, e.body FROM flow_event e JOIN ends USING (n) WHERE e.seq > ?2
			UNION ALL
			SELECT e.n, e.prev, e.seq, e.at, e.body FROM back JOIN flow_event e ON e.n = back.prev WHERE e.seq > ?2
		)
		SELECT seq, at, body, (SELECT n < last FROM ends) FROM back`, args...)
	slices.Reverse(out)
	return out, more && len(out) > 0, err
}

const runColumns = "id, flow, version, key, parent, state, paused, step, wake, wake_at, wake_for, seq, actor, reason, started, updated, ended, error"

func scanRow(rows *sql.Rows) (flow.Row, error) {
	var r flow.Row
	var key, parent, wakeFor, failure sql.NullString
	var wakeAt, ended sql.NullInt64
	var started, updated int64
	err := rows.Scan(&r.ID, &r.Flow, &r.Version, &key, &parent, &r.State, &r.Paused, &r.Step, &r.Wake.Kind, &wakeAt, &wakeFor, &r.Seq,
		&r.Actor, &r.Reason, &started, &updated, &ended, &failure)
	r.Key, r.Parent, r.Wake.For, r.Error = key.String, parent.String, wakeFor.String, failure.String
	r.Started, r.Updated = time.UnixMicro(started).UTC(), time.UnixMicro(updated).UTC()
	if wakeAt.Valid {
		r.Wake.At = time.UnixMicro(wakeAt.Int64).UTC()
	}
	if ended.Valid {
		r.Ended = time.UnixMicro(ended.Int64).UTC()
	}
	return r, err
}

// Get implements flow.Store.
func (s *Store) Get(ctx context.Context, id string) (flow.Row, error) {
	return s.one(ctx, "execution "+id, "WHERE id = ?", id)
}

// ByKey implements flow.Store.
func (s *Store) ByKey(ctx context.Context, name, key string) (flow.Row, error) {
	return s.one(ctx, fmt.Sprintf("execution of %s with key %q", name, key), "WHERE flow = ? AND key = ?", name, key)
}

func (s *Store) one(ctx context.Context, what, where string, args ...any) (flow.Row, error) {
	rows, err := s.rows(ctx, where, args...)
	if err != nil {
		return flow.Row{}, err
	}
	if len(rows) == 0 {
		return flow.Row{}, fmt.Errorf("%w: %s", flow.ErrNotFound, what)
	}
	return rows[0], nil
}

func (s *Store) rows(ctx context.Context, tail string, args ...any) ([]flow.Row, error) {
	var out []flow.Row
	err := s.query(ctx, func(rows *sql.Rows) error {
		r, err := scanRow(rows)
		out = append(out, r)
		return err
	}, "SELECT "+runColumns+" FROM flow_execution "+tail, args...)
	return out, err
}

// List implements flow.Store.
func (s *Store) List(ctx context.Context, f flow.Filter) ([]flow.Row, error) {
	conditions := []string{"1"}
	var args []any
	add := func(condition string, values ...any) {
		conditions = append(conditions, condition)
		args = append(args, values...)
	}
	if f.Open {
		add("ended IS NULL")
	}
	for _, one := range []struct{ column, value string }{
		{"flow", f.Flow}, {"actor", f.Actor}, {"key", f.Key}, {"parent", f.Parent}, {"step", f.Step},
	} {
		if one.value != "" {
			add(one.column+" = ?", one.value)
		}
	}
	if f.Version != 0 {
		add("version = ?", f.Version)
	}
	among := func(column string, values []any) {
		if len(values) > 0 {
			add(column+" IN (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
		}
	}
	among("state", texts(f.States))
	if len(f.States) > 0 && !slices.ContainsFunc(f.States, flow.State.Ended) {
		add("ended IS NULL") // which has an index
	}
	if len(f.Wakes) == 1 && f.Wakes[0] == flow.WakeRunnable {
		add("n IN (SELECT n FROM flow_now WHERE wake = 'runnable')") // so does this
	} else {
		among("wake", texts(f.Wakes))
	}
	if !f.Since.IsZero() {
		add("started >= ?", f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		add("started < ?", f.Until.UnixMicro())
	}
	if !f.EndedBefore.IsZero() {
		add("ended < ?", f.EndedBefore.UnixMicro())
	}
	if f.Text != "" {
		add("(instr(error, ?) > 0 OR instr(wake_for, ?) > 0)", f.Text, f.Text)
	}
	for _, tag := range f.Tags() {
		add("id IN (SELECT id FROM flow_tag WHERE name = ? AND value = ?)", tag.Name, tag.Value)
	}
	than, order := "<", "DESC"
	if f.Oldest {
		than, order = ">", "ASC"
	}
	if f.After != "" {
		add("id "+than+" ?", f.After)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	return s.rows(ctx, "WHERE "+strings.Join(conditions, " AND ")+" ORDER BY id "+order+" LIMIT ?", append(args, limit)...)
}

func texts[T ~string](values []T) []any {
	out := make([]any, len(values))
	for i, value := range values {
		out[i] = string(value)
	}
	return out
}

// Remove implements flow.Store.
func (s *Store) Remove(ctx context.Context, ids []string) (removed int, err error) {
	err = s.locked(ctx, func() error {
		return s.change(func() error {
			removed, err = s.remove(ids)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("sqlitestore: remove: %w", err)
	}
	return removed, nil
}

// PutDefinition implements flow.Store.
func (s *Store) PutDefinition(ctx context.Context, r flow.DefinitionRecord) error {
	made := int64(0)
	err := s.locked(ctx, func() error {
		return s.change(func() error {
			result, err := s.conn.ExecContext(ctx, "INSERT INTO flow_definition (name, version, digest, source, saved_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
				r.Name, r.Version, r.Digest, r.Source, r.SavedAt.UnixMicro())
			if err != nil {
				return err
			}
			made, err = result.RowsAffected()
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("sqlitestore: put definition %s: %w", r.Name, err)
	}
	if made == 0 {
		return flow.ErrExists
	}
	return nil
}

func scanDefinition(rows *sql.Rows) (flow.DefinitionRecord, error) {
	var r flow.DefinitionRecord
	var saved int64
	err := rows.Scan(&r.Name, &r.Version, &r.Digest, &r.Source, &saved)
	r.SavedAt = time.UnixMicro(saved).UTC()
	return r, err
}

// Definition implements flow.Store.
func (s *Store) Definition(ctx context.Context, name string, version int) (flow.DefinitionRecord, error) {
	var found []flow.DefinitionRecord
	err := s.query(ctx, func(rows *sql.Rows) error {
		r, err := scanDefinition(rows)
		found = append(found, r)
		return err
	}, "SELECT name, version, digest, source, saved_at FROM flow_definition WHERE name = ?1 AND (?2 = 0 OR version = ?2) ORDER BY version DESC LIMIT 1", name, version)
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
	var out []flow.DefinitionRecord
	err := s.query(ctx, func(rows *sql.Rows) error {
		r, err := scanDefinition(rows)
		out = append(out, r)
		return err
	}, `SELECT name, version, digest, source, saved_at FROM flow_definition d
		WHERE version = (SELECT max(version) FROM flow_definition WHERE name = d.name) ORDER BY name`)
	return out, err
}

// Notices implements flow.Store.
func (s *Store) Notices(ctx context.Context, limit int) ([]flow.Notice, error) {
	var out []flow.Notice
	err := s.query(ctx, func(rows *sql.Rows) error {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var notice flow.Notice
		if err := json.Unmarshal(body, &notice); err != nil {
			return err
		}
		out = append(out, notice)
		return nil
	}, "SELECT body FROM flow_notice ORDER BY n LIMIT ?", limit)
	return out, err
}

// Delivered implements flow.Store.
func (s *Store) Delivered(ctx context.Context, id string) error {
	err := s.locked(ctx, func() error {
		return s.change(func() error {
			_, err := s.conn.ExecContext(ctx, "DELETE FROM flow_notice WHERE id = ?", id)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("sqlitestore: delivered %s: %w", id, err)
	}
	return nil
}

// query reads on a connection other than the writer's.
func (s *Store) query(ctx context.Context, each func(*sql.Rows) error, query string, args ...any) error {
	if err := s.ready(ctx); err != nil {
		return fmt.Errorf("sqlitestore: %w", err)
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("sqlitestore: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return fmt.Errorf("sqlitestore: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("sqlitestore: %w", err)
	}
	return nil
}
