package scale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Keys. Modules are escaped, so that a "/" in a name cannot reach into another's keys.
//
//	open/KEY     an order that is planned or under way
//	past/KEY     one that is over
//	state/MODULE what is remembered of a module
const (
	openPrefix  = "open/"
	pastPrefix  = "past/"
	statePrefix = "state/"
)

func openKey(key string) string     { return openPrefix + url.PathEscape(key) }
func pastKey(key string) string     { return pastPrefix + url.PathEscape(key) }
func stateKey(module string) string { return statePrefix + url.PathEscape(module) }

// memory is what is remembered of a module. Every new order writes it in the same commit, under the condition
// that it is unchanged: two deciders cannot both order on the same view.
type memory struct {
	Module   string    `json:"module"`
	Seq      int64     `json:"seq"` // orders so far
	Paused   bool      `json:"paused,omitempty"`
	PausedBy Reason    `json:"paused_by,omitzero"`
	LastOut  time.Time `json:"last_out,omitzero"`
	LastIn   time.Time `json:"last_in,omitzero"`
	LastFail time.Time `json:"last_fail,omitzero"`
	Fails    int       `json:"fails,omitempty"`
	Spent    []spent   `json:"spent,omitempty"` // of the last hour
	Decision Decision  `json:"decision"`        // the last; numbers may be 5 s old

	revision int64
}

type spent struct {
	At    time.Time `json:"at"`
	Count int       `json:"count"`
}

// recent drops what was spent more than an hour ago, and sums the rest.
func (m *memory) recent(now time.Time) int {
	m.Spent = slices.DeleteFunc(slices.Clone(m.Spent), func(s spent) bool { return now.Sub(s.At) >= time.Hour })
	total := 0
	for _, s := range m.Spent {
		total += s.Count
	}
	return total
}

// saved is an order as it was read.
type saved struct {
	Order
	revision int64
}

// orders reads all orders under prefix, oldest first.
func (c *Controller) orders(ctx context.Context, prefix string) ([]saved, error) {
	records, _, err := c.cfg.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("scale: list %s: %w", prefix, err)
	}
	out := make([]saved, len(records))
	for i, record := range records {
		out[i].revision = record.Revision
		if err := json.Unmarshal(record.Value, &out[i].Order); err != nil {
			return nil, fmt.Errorf("scale: read record %q: %w; it was not written by this package: remove it", record.Key, err)
		}
	}
	slices.SortStableFunc(out, func(a, b saved) int {
		if n := a.Created.Compare(b.Created); n != 0 {
			return n
		}
		return strings.Compare(a.Key, b.Key)
	})
	return out, nil
}

// memories reads what is remembered under prefix, by module.
func (c *Controller) memories(ctx context.Context, prefix string) (map[string]memory, error) {
	records, _, err := c.cfg.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("scale: list %s: %w", prefix, err)
	}
	out := make(map[string]memory, len(records))
	for _, record := range records {
		m := memory{revision: record.Revision}
		if err := json.Unmarshal(record.Value, &m); err != nil {
			return nil, fmt.Errorf("scale: read record %q: %w; it was not written by this package: remove it", record.Key, err)
		}
		out[m.Module] = m
	}
	return out, nil
}

// remember writes a memory, with further operations in the same commit, if it is unchanged since it was read.
func (c *Controller) remember(ctx context.Context, m memory, more ...Op) (memory, error) {
	value, err := json.Marshal(m)
	if err != nil {
		return m, fmt.Errorf("scale: encode memory of %q: %w", m.Module, err)
	}
	revision, err := c.cfg.Store.Commit(ctx, append(more, store.Put(stateKey(m.Module), value).At(m.revision))...)
	if err != nil {
		return m, fmt.Errorf("scale: write memory of %q: %w", m.Module, err)
	}
	m.revision = revision
	return m, nil
}

// edit changes what is remembered of a module, whatever happens meanwhile.
func (c *Controller) edit(ctx context.Context, module string, change func(*memory) []Op) error {
	for {
		all, err := c.memories(ctx, stateKey(module))
		if err != nil {
			return err
		}
		m := all[module]
		m.Module = module
		more := change(&m)
		if _, err = c.remember(ctx, m, more...); !errors.Is(err, ErrConflict) || ctx.Err() != nil {
			return err
		}
		// An operation of the change itself may be what conflicts: then it conflicts again, and its caller must know.
		var conflict *ConflictError
		if errors.As(err, &conflict) && conflict.Key != stateKey(module) {
			return err
		}
	}
}

// put encodes an order for the store.
func put(key string, o Order) (Op, error) {
	value, err := json.Marshal(o)
	if err != nil {
		return Op{}, fmt.Errorf("scale: encode order %q: %w", o.Key, err)
	}
	return store.Put(key, value), nil
}

// prune removes orders that ended longer than Config.Keep ago.
func (c *Controller) prune(ctx context.Context) error {
	at := now()
	past, err := c.orders(ctx, pastPrefix)
	if err != nil {
		return err
	}
	for _, o := range past {
		if at.Sub(o.Ended) < c.cfg.Keep {
			continue
		}
		if _, err := c.cfg.Store.Commit(ctx, store.Delete(pastKey(o.Key)).At(o.revision)); err != nil {
			return fmt.Errorf("scale: remove old order %q: %w", o.Key, err)
		}
	}
	return nil
}
