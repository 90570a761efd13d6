package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// Whoever removes an instance says so: the commit carries the service's record of removals. Rows that vanish without
// it were removed by nobody who knows what he does: an operator's hand in the store, an empty backup, a bug. More of a
// service than its share are therefore kept, served and named, until they are registered again, somebody does remove them,
// or keepFor is over.
//
//	in the store --vanished, asked for, or few--> gone
//	     ^   |                                      ^
//	     |   +--vanished, many--> kept --asked for, or keepFor over--+
//	     +------ registered again --+

// keepFor is how long rows are kept that vanished.
const keepFor = 10 * time.Minute

// withhold drops what is gone, but for what is kept. Rows are those that the same commit wrote. Callers hold mu.
func (r *registry) withhold(rows []named, gone []id, drop func(id)) {
	asked := make(map[string]map[string]bool) // by service: the addresses that its record of removals names
	for i := range rows {
		if rows[i].name.addr != "" || rows[i].name.service == "" {
			continue
		}
		names := make(map[string]bool)
		for addr := range strings.SplitSeq(string(rows[i].wire), "\n") {
			names[addr] = true
		}
		asked[rows[i].name.service] = names
	}
	vanished := make(map[string][]id)
	for _, name := range gone {
		// A record that was written with these removals, or since the last list, stands for all of them.
		if s := r.services[name.service]; s != nil && (asked[name.service] == nil || s.removed == 0) {
			vanished[name.service] = append(vanished[name.service], name)
			continue
		}
		drop(name)
	}
	for service, names := range vanished {
		s := r.services[service]
		if len(names) <= max(1, int(r.share*float64(len(s.rows)))) && len(names) < len(s.rows) {
			for _, name := range names {
				drop(name)
			}
			continue
		}
		fresh := 0
		for _, name := range names {
			if at, ok := s.find(name.addr); ok && s.rows[at].kept.IsZero() {
				s.rows[at].kept = r.now()
				fresh++
			}
		}
		if fresh > 0 {
			r.logger.Error("l5/server: instances vanished from the store and nobody removed them; they are served on: register them again, or deregister them",
				"service", service, "vanished", len(names), "of", len(s.rows))
		}
	}
	// Of rows that are kept, a record of removals names those that somebody removes after all.
	for service, names := range asked {
		s := r.services[service]
		if s == nil {
			continue
		}
		for _, have := range slices.Clone(s.rows) {
			if !have.kept.IsZero() && names[have.addr] {
				drop(id{service, have.addr})
			}
		}
	}
}

// kept returns the rows that are served although they vanished, by service; with a time, only those since before.
func (r *registry) kept(before time.Time) map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string][]string)
	for name, s := range r.services {
		for _, have := range s.rows {
			if !have.kept.IsZero() && (before.IsZero() || have.kept.Before(before)) {
				out[name] = append(out[name], have.addr)
			}
		}
	}
	return out
}

// release removes for good what was kept for keepFor: it writes the record of removals that was missing.
func (r *registry) release(ctx context.Context, now time.Time) error {
	for service, addrs := range r.kept(now.Add(-keepFor)) {
		for batch := range slices.Chunk(addrs, maxOps) {
			if _, err := r.store.Commit(ctx, removed(service, batch...)); err != nil {
				return fmt.Errorf("let go of instances of %s that vanished: %w", service, err)
			}
		}
	}
	return nil
}

// begin starts a new history: the store's is not the one that the replica followed. It was restored from a backup, or
// its folder was replaced, and its revisions count anew. All servers agree on the name of the new epoch.
func (r *registry) begin(ctx context.Context) error {
	r.mu.Lock()
	old := r.epoch
	r.mu.Unlock()
	records, _, err := r.store.List(ctx, epochKey)
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	var have store.Record
	for _, record := range records {
		if record.Key == epochKey {
			have = record
		}
	}
	next := string(have.Value)
	if next = cmp.Or(next, old); next == old {
		next = uid.New()
		if _, err := r.store.Commit(ctx, store.Put(epochKey, []byte(next)).At(have.Revision)); err != nil {
			return fmt.Errorf("write the epoch: %w", err) // somebody else did: read it again
		}
	}
	r.logger.Error("l5/server: the store's history was replaced; what vanished from it is kept for a while", "epoch", next, "was", old)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch, r.revision = next, 0
	for _, s := range r.services {
		s.revision, s.removed = 0, 0
		for i := range s.rows {
			s.rows[i].revision = -1 // whatever the store has is newer
		}
	}
	return nil
}
