package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// chronicle keeps the audit record of one controller. It is told nothing: it follows the controller's own store, in which each
// act is committed together with what tells of it, and writes the entries with a cursor in one transaction of the
// audit record. Killed anywhere, the next one goes on from the cursor; what it reads twice has the same key and is written once.
//
//	no cursor ---list---> at a revision ---watch: entries and cursor, one commit per event---> at the next
//	                           ^                                |
//	                           +---list: revision compacted <---+
type chronicle struct {
	source  string // names the cursor, and begins the keys
	store   store.Store
	records *records.DB
	deliver func(context.Context, center.Notice) error
	logger  *slog.Logger
	// read says what a record tells. It may be asked about the same record again.
	read func(ctx context.Context, r store.Record) ([]told, error)
	// forget drops what read remembers of records that were read and whose entries were then not kept. Nil: it remembers nothing.
	forget func()
}

// told is one thing that happened: its entry, whose key is unique at the source, and a notice of it, if people are to
// hear of it at once.
type told struct {
	entry  records.Entry
	notice *center.Notice
}

// run follows the store until ctx ends. What fails is tried again, a second later.
func (c *chronicle) run(ctx context.Context) error {
	last := ""
	for ctx.Err() == nil {
		err := c.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, records.ErrClosed) {
			return nil
		}
		if err != nil && c.forget != nil {
			c.forget()
		}
		if err != nil && err.Error() != last {
			last = err.Error()
			c.logger.Warn("the audit record is behind; trying again each second", "of", c.source, "error", err)
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

func (c *chronicle) follow(ctx context.Context) error {
	text, err := c.records.Cursor(ctx, c.source)
	if err != nil {
		return err
	}
	cursor, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		if cursor, err = c.list(ctx); err != nil {
			return err
		}
	}
	for event, err := range c.store.Watch(ctx, "", cursor) {
		if errors.Is(err, store.ErrCompacted) {
			revision, err := c.list(ctx)
			if err != nil {
				return err
			}
			// Also when nothing was told: from where it stands there is no way on.
			return c.records.AuditOf(ctx, c.source, strconv.FormatInt(revision, 10), nil) // and follow from there
		}
		if err != nil {
			return err
		}
		if err := c.write(ctx, event.Revision, event.Puts); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// list writes all that the store tells now, oldest first: most of it is written already.
func (c *chronicle) list(ctx context.Context) (int64, error) {
	all, revision, err := c.store.List(ctx, "")
	if err != nil {
		return 0, err
	}
	slices.SortStableFunc(all, func(a, b store.Record) int { return int(min(max(a.Revision-b.Revision, -1), 1)) })
	return revision, c.write(ctx, revision, all)
}

// batch bounds the entries of one commit.
const batch = 200

// write keeps the entries of some records, and that the source was read up to a revision. Notices go out before the cursor
// moves: one that was sent twice has the same id, and is delivered once.
func (c *chronicle) write(ctx context.Context, revision int64, from []store.Record) error {
	var entries []records.Entry
	for _, r := range from {
		all, err := c.read(ctx, r)
		if err != nil {
			// One record that nobody can read must not keep the rest out.
			c.logger.Error("the audit record leaves out what it cannot read", "of", c.source, "key", r.Key, "error", err)
			continue
		}
		for _, one := range all {
			one.entry.Key = c.source + "/" + one.entry.Key
			entries = append(entries, one.entry)
			if one.notice != nil {
				if err := c.deliver(ctx, *one.notice); err != nil {
					return fmt.Errorf("deliver a notice: %w", err)
				}
			}
		}
	}
	if len(entries) == 0 && len(from) > 0 {
		return nil // the cursor may stay behind what tells nothing: to read that again is cheap
	}
	for len(entries) > batch {
		before, err := c.records.Cursor(ctx, c.source)
		if err != nil {
			return err
		}
		if err := c.records.AuditOf(ctx, c.source, before, entries[:batch]); err != nil {
			return err
		}
		entries = entries[batch:]
	}
	return c.records.AuditOf(ctx, c.source, strconv.FormatInt(revision, 10), entries)
}
