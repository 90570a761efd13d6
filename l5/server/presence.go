package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// What this server says of itself in the store, and hears of the others.

// follow keeps tenure as the store has it.
func (l *leases) follow(ctx context.Context) error {
	for {
		records, revision, err := l.registry.store.List(ctx, leasePrefix)
		if err != nil {
			return fmt.Errorf("list leases: %w", err)
		}
		l.load(l.config.now(), records)
		for event, err := range l.registry.store.Watch(ctx, leasePrefix, revision) {
			if errors.Is(err, store.ErrCompacted) {
				break
			}
			if err != nil {
				return fmt.Errorf("watch leases: %w", err)
			}
			l.commit(l.config.now(), event)
		}
	}
}

// load takes all records anew.
func (l *leases) load(now time.Time, records []store.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	listed := make(map[string]struct{}, len(records))
	for _, record := range records {
		listed[record.Key] = struct{}{}
		l.put(now, record, false)
	}
	for _, key := range l.tenure.keys() {
		if !has(listed, key) {
			l.tenure.remove(now, key)
		}
	}
	l.signal()
}

// commit takes one commit of the store.
func (l *leases) commit(now time.Time, event store.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, record := range event.Puts {
		l.put(now, record, true)
	}
	for _, key := range event.Deletes {
		l.tenure.remove(now, key)
	}
	l.signal()
}

// put takes one record; a fresh one was just written. Callers hold mu.
func (l *leases) put(now time.Time, record store.Record, fresh bool) {
	if record.Key == expiriesKey {
		l.history = since(now, decodeHistory(record.Value), fresh)
		return
	}
	l.tenure.put(now, record)
}

// beats says again and again that this server lives, and sends its register streams away when it could not for so long
// that others take it for dead.
func (l *leases) beats(ctx context.Context) {
	ticker := time.NewTicker(l.tenure.beat)
	defer ticker.Stop()
	key := beatPrefix + l.tenure.self
	for n := uint64(1); ; n++ {
		bounded, cancel := context.WithTimeout(ctx, 2*l.tenure.beat)
		sent := l.config.now()
		_, err := l.registry.store.Commit(bounded, store.Put(key, strconv.AppendUint(nil, n, 10)))
		cancel()
		l.beatEnded(sent, err)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (l *leases) beatEnded(sent time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	closed := false
	select {
	case <-l.cut:
		closed = true
	default:
	}
	switch {
	case err == nil:
		l.beaten = sent
		if closed {
			l.cut = make(chan struct{})
		}
	case !closed && !l.beaten.IsZero() && l.config.now().Sub(l.beaten) > (beatsToDeath-1)*l.tenure.beat && !l.tenure.alone():
		l.config.Logger.Warn("l5/server: the store does not take this server's beats; its register streams go to another server", "error", err)
		close(l.cut)
	}
}

// note writes which owners this server holds.
func (l *leases) note(ctx context.Context) error {
	l.mu.Lock()
	shards := l.shards
	l.shards = make(map[string]struct{})
	ops := l.tenure.hold(shards)
	l.mu.Unlock()
	if len(ops) == 0 {
		return nil
	}
	_, err := l.registry.store.Commit(ctx, ops...)
	if err != nil {
		l.mu.Lock()
		maps.Copy(l.shards, shards)
		l.mu.Unlock()
	}
	return err
}

// leave takes this server's records out of the store.
func (l *leases) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l.mu.Lock()
	keys := []string{beatPrefix + l.tenure.self}
	for shard := range l.tenure.server(l.tenure.self).holds {
		keys = append(keys, holdsPrefix+l.tenure.self+"/"+shard)
	}
	var ops []store.Op
	for _, key := range keys {
		ops = append(ops, store.Delete(key))
	}
	if l.tenure.keeper == l.tenure.self {
		ops = append(ops, store.Delete(keeperKey).At(l.tenure.fence))
	}
	l.mu.Unlock()
	if _, err := l.registry.store.Commit(ctx, ops...); err != nil {
		l.config.Logger.Info("l5/server: left without a word; the others find out by themselves", "error", err)
	}
}

// keys returns the keys of all records that a tenure was made of.
func (t *tenure) keys() []string {
	var keys []string
	for name, p := range t.servers {
		if p.beat != "" {
			keys = append(keys, beatPrefix+name)
		}
		for shard := range p.holds {
			keys = append(keys, strings.Join([]string{holdsPrefix + name, shard}, "/"))
		}
	}
	if t.keeper != "" {
		keys = append(keys, keeperKey)
	}
	return keys
}
