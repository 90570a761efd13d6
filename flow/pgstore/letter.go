package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// wake has the members look at once for what there is to do.
func (s *Store) wake(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SELECT pg_notify($1, '')", s.channel.Load())
	return err
}

// Listen implements flow.Shared.
func (s *Store) Listen(ctx context.Context, woken func()) error {
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("pgstore: listen: %w", err)
	}
	pooled, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("pgstore: listen: %w", err)
	}
	conn := pooled.Hijack() // nobody else shall get a connection that listens
	defer conn.Close(context.WithoutCancel(ctx))
	channel, _ := s.channel.Load().(string)
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("pgstore: listen: %w", err)
	}
	woken() // what came before
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("pgstore: listen: %w", err)
		}
		woken()
	}
}

// Send implements flow.Shared.
func (s *Store) Send(ctx context.Context, execution string, body []byte) (letter int64, err error) {
	if err := s.prepare(ctx); err != nil {
		return 0, fmt.Errorf("pgstore: send: %w", err)
	}
	// Not tried again: a letter whose answer was lost may be there, and acted on.
	err = s.once(ctx, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, "INSERT INTO flow_letter (execution, body) SELECT id, $2 FROM flow_run WHERE id = $1 RETURNING id", execution, string(body)).Scan(&letter)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: execution %s", flow.ErrNotFound, execution)
		}
		if err != nil {
			return err
		}
		return s.wake(ctx, conn)
	})
	if err != nil {
		return 0, fmt.Errorf("pgstore: send: %w", err)
	}
	return letter, nil
}

// Answer implements flow.Shared.
func (s *Store) Answer(ctx context.Context, a flow.Answer) error {
	err := s.retry(ctx, func(conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, "UPDATE flow_letter SET answer = $2 WHERE id = $1 AND answer IS NULL", a.Letter, a.Text)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return s.wake(ctx, conn)
	})
	if err != nil {
		return fmt.Errorf("pgstore: answer letter %d: %w", a.Letter, err)
	}
	return nil
}

// Collect implements flow.Shared.
func (s *Store) Collect(ctx context.Context, letter int64, withdraw bool) (text string, answered bool, err error) {
	var answer *string
	err = s.retry(ctx, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, "SELECT answer FROM flow_letter WHERE id = $1", letter).Scan(&answer)
		if err == nil && (answer != nil || withdraw) {
			// What the row says when it goes counts: it may have been answered just now.
			err = conn.QueryRow(ctx, "DELETE FROM flow_letter WHERE id = $1 RETURNING answer", letter).Scan(&answer)
		}
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: letter %d", flow.ErrNotFound, letter)
		}
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("pgstore: collect: %w", err)
	}
	return value(answer), answer != nil, nil
}
