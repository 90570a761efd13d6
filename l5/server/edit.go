package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5"
)

// await waits until the replica has applied revision: a writer reads its own writes, and so does everyone after it.
func (r *registry) await(ctx context.Context, revision int64) error {
	for {
		r.mu.Lock()
		have, applied := r.revision, r.applied
		r.mu.Unlock()
		if have >= revision {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return fmt.Errorf("l5/server: written at revision %d, not yet visible at %d: %w", revision, have, context.Cause(ctx))
		}
	}
}

// loaded waits until the first list is in.
func (r *registry) loaded(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("l5/server: the registry is not loaded yet; is Run running and the store reachable? %w", context.Cause(ctx))
	}
}

// maxOps is how many operations one commit carries: etcd's default limit is 128.
const maxOps = 100

// edit changes instances: for each name, change is called with the row in force (nil if absent) and returns the
// instance to write, or whether to delete or leave it. Lost races are run again on what won.
func (r *registry) edit(ctx context.Context, names []id, change func(name id, have *row) (l5.Instance, verb), guard ...store.Op) (int64, error) {
	if err := r.loaded(ctx); err != nil {
		return 0, err
	}
	var revision int64
	for batch := range slices.Chunk(names, maxOps-len(guard)) {
		got, err := r.editBatch(ctx, batch, change, guard)
		if err != nil {
			return revision, err
		}
		revision = max(revision, got)
	}
	return revision, r.await(ctx, revision)
}

type verb uint8

const (
	leave verb = iota
	put
	remove
)

func (r *registry) editBatch(ctx context.Context, names []id, change func(id, *row) (l5.Instance, verb), guard []store.Op) (int64, error) {
	for {
		ops := slices.Clone(guard)
		gone := make(map[string][]string)
		for _, name := range names {
			have := r.get(name)
			at := int64(0)
			if have != nil {
				at = have.revision
			}
			instance, do := change(name, have)
			switch do {
			case put:
				op, err := encode(instance)
				if err != nil {
					return 0, err
				}
				ops = append(ops, op.At(at))
			case remove:
				ops = append(ops, store.Delete(name.key()).At(at))
				gone[name.service] = append(gone[name.service], name.addr)
			}
		}
		for _, service := range slices.Sorted(maps.Keys(gone)) {
			ops = append(ops, removed(service, gone[service]...))
		}
		if len(ops) == len(guard) {
			return 0, nil
		}
		if half := len(names) / 2; len(ops) > store.MaxOps && half > 0 {
			first, err := r.editBatch(ctx, names[:half], change, guard)
			if err != nil {
				return first, err
			}
			second, err := r.editBatch(ctx, names[half:], change, guard)
			return max(first, second), err
		}
		revision, err := r.store.Commit(ctx, ops...)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) && strings.HasPrefix(conflict.Key, instancePrefix) {
			if err := r.catchUp(ctx, conflict); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("l5/server: write the registry: %w", err)
		}
		return revision, nil
	}
}

// catchUp waits until the replica has moved on from the row that lost the race.
func (r *registry) catchUp(ctx context.Context, lost *store.ConflictError) error {
	name, ok := parseKey(lost.Key)
	if !ok {
		return lost
	}
	for {
		r.mu.Lock()
		have, applied := int64(0), r.applied
		if s := r.services[name.service]; s != nil {
			if at, ok := s.find(name.addr); ok && s.rows[at].kept.IsZero() {
				have = s.rows[at].revision
			}
		}
		r.mu.Unlock()
		if have != lost.Want {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return fmt.Errorf("l5/server: wait for the change that came first to %s: %w", lost.Key, context.Cause(ctx))
		}
	}
}
