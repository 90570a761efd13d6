package server

import (
	"context"
	"log/slog"

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
