package server

import (
	"context"
	"log/slog"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Faults returns the function that is told what is wrong with modules.
func Faults(logger *slog.Logger) func(module string, err error) { return newFaults(logger).tell }

// Lead campaigns with an elector, and runs what leads.
func Lead(ctx context.Context, elector store.Elector, run func(context.Context, *store.Term) error) error {
	r := &record{elector: elector, logger: slog.New(slog.DiscardHandler)}
	return r.lead(ctx, "test", "server-1", run)
}

// Own makes a record that of a data folder.
func Own(ctx context.Context, record store.Store, dir string) error { return own(ctx, record, dir) }

// ChronicleGray follows a store of gray until ctx ends.
func ChronicleGray(ctx context.Context, s store.Store, db *records.DB) error {
	return (&chronicle{source: "gray", store: s, records: db, logger: slog.New(slog.DiscardHandler), read: rolloutsTold}).run(ctx)
}

// FollowScale follows a store of scale until ctx ends.
func FollowScale(ctx context.Context, s store.Store, db *records.DB, deliver func(context.Context, center.Notice) error) error {
	told := newScaleTold(db)
	c := &chronicle{source: "scale", store: s, records: db, logger: slog.New(slog.DiscardHandler), read: told.read, forget: told.forget, deliver: deliver}
	return c.run(ctx)
}

// ChronicleScale reads a store of scale: each of its commits, or, as after a compaction, what is there now.
func ChronicleScale(ctx context.Context, s store.Store, db *records.DB, compacted bool) ([]records.Entry, error) {
	deliver := func(context.Context, center.Notice) error { return nil }
	c := &chronicle{source: "scale", store: s, records: db, logger: slog.New(slog.DiscardHandler), read: newScaleTold(db).read, deliver: deliver}
	_, last, err := s.List(ctx, "")
	if err != nil {
		return nil, err
	}
	if compacted {
		_, err = c.list(ctx)
	} else {
		for event, fault := range s.Watch(ctx, "", 0) {
			if err = fault; err == nil {
				err = c.write(ctx, event.Revision, event.Puts)
			}
			if err != nil || event.Revision == last {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return db.AuditLog(ctx, records.Query{Actor: "scale", Limit: 1000})
}
