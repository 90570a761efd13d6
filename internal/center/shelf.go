package center

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// shelf keeps documents of one kind, as JSON, under one prefix.
type shelf[T any] struct {
	store  Store
	prefix string // ends in "/"
	noun   string
}

// kept is a document with the revision that last wrote it.
type kept[T any] struct {
	key      string
	value    T
	revision int64
}

func (s shelf[T]) decode(r Record) (kept[T], error) {
	out := kept[T]{key: strings.TrimPrefix(r.Key, s.prefix), revision: r.Revision}
	if err := json.Unmarshal(r.Value, &out.value); err != nil {
		return out, fmt.Errorf("center: %s %q is unreadable in the store, delete key %q: %w", s.noun, out.key, r.Key, err)
	}
	return out, nil
}

// list returns the documents whose key starts with sub, in key order.
func (s shelf[T]) list(ctx context.Context, sub string) ([]kept[T], error) {
	records, _, err := s.store.List(ctx, s.prefix+sub)
	if err != nil {
		return nil, fmt.Errorf("center: list %s: %w", s.noun, err)
	}
	out := make([]kept[T], 0, len(records))
	for _, record := range records {
		one, err := s.decode(record)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// get reads one document. The store lists by prefix only, so a longer key may come along; it is passed over.
func (s shelf[T]) get(ctx context.Context, key string) (kept[T], bool, error) {
	records, _, err := s.store.List(ctx, s.prefix+key)
	if err != nil {
		return kept[T]{key: key}, false, fmt.Errorf("center: read %s %q: %w", s.noun, key, err)
	}
	for _, record := range records {
		if record.Key == s.prefix+key {
			one, err := s.decode(record)
			return one, err == nil, err
		}
	}
	return kept[T]{key: key}, false, nil
}

// must is get with ErrNotFound for what is absent.
func (s shelf[T]) must(ctx context.Context, key string) (kept[T], error) {
	one, ok, err := s.get(ctx, key)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s %q", ErrNotFound, s.noun, key)
	}
	return one, err
}

// verdict says what a change function wants done.
type verdict uint8

const (
	keep verdict = iota // leave the record as it is
	write
	remove
)

// change reads, decides and writes one document, again while others write it in between. It returns the
// document as it then stands in the store (for remove: as it stood) and whether anything was written.
func (s shelf[T]) change(ctx context.Context, key string, decide func(old T, exists bool) (T, verdict, error)) (kept[T], bool, error) {
	for range 32 {
		old, exists, err := s.get(ctx, key)
		if err != nil {
			return old, false, err
		}
		next, what, err := decide(old.value, exists)
		if err != nil {
			return old, false, err
		}
		var op store.Op
		switch what {
		case keep:
			return old, false, nil
		case write:
			value, err := json.Marshal(next)
			if err != nil {
				return old, false, fmt.Errorf("center: encode %s %q: %w", s.noun, key, err)
			}
			op = store.Put(s.prefix+key, value).At(old.revision)
		case remove:
			if !exists {
				return old, false, nil
			}
			op = store.Delete(s.prefix + key).At(old.revision)
		}
		revision, err := s.store.Commit(ctx, op)
		switch {
		case err == nil && what == remove:
			return old, true, nil
		case err == nil:
			return kept[T]{key: key, value: next, revision: revision}, true, nil
		case !errors.Is(err, store.ErrConflict):
			return old, false, fmt.Errorf("center: write %s %q: %w", s.noun, key, err)
		}
	}
	return kept[T]{key: key}, false, fmt.Errorf("%w: %s %q", ErrContended, s.noun, key)
}

// Page bounds a listing.
type Page struct {
	Limit int    // at most MaxPage; default DefaultPage
	After string // the key a former page ended with; default: from the start
}

// Bounds of one page of a listing.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

func (p Page) limit() (int, error) {
	switch {
	case p.Limit == 0:
		return DefaultPage, nil
	case p.Limit < 0 || p.Limit > MaxPage:
		return 0, fault("limit", p.Limit, "give 1 to %d, or 0 for %d", MaxPage, DefaultPage)
	}
	return p.Limit, nil
}

// cut takes a page out of documents in key order; next is "" on the last page.
func cut[T any](all []kept[T], page Page, match func(T) bool) (out []T, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	last := ""
	for _, one := range all {
		if one.key <= page.After && page.After != "" || match != nil && !match(one.value) {
			continue
		}
		if len(out) == limit {
			return out, last, nil
		}
		out, last = append(out, one.value), one.key
	}
	return out, "", nil
}

// byTime returns all documents, oldest first.
func byTime[T any](ctx context.Context, s shelf[T], at func(T) time.Time) ([]kept[T], error) {
	all, err := s.list(ctx, "")
	slices.SortStableFunc(all, func(a, b kept[T]) int { return at(a.value).Compare(at(b.value)) })
	return all, err
}

// cutNewest takes a page, newest first, out of documents in order of time.
func cutNewest[T any](all []kept[T], page Page, match func(T) bool) (out []T, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	slices.Reverse(all)
	if page.After != "" {
		at := slices.IndexFunc(all, func(one kept[T]) bool { return one.key == page.After })
		if at < 0 {
			return nil, "", fault("after", page.After, "no record has that key any more; begin from the start")
		}
		all = all[at+1:]
	}
	last := ""
	for _, one := range all {
		if !match(one.value) {
			continue
		}
		if len(out) == limit {
			return out, last, nil
		}
		out, last = append(out, one.value), one.key
	}
	return out, "", nil
}

// sweep removes the documents that are old.
func sweep[T any](ctx context.Context, s shelf[T], old func(T) bool) error {
	all, err := s.list(ctx, "")
	if err != nil {
		return err
	}
	for _, one := range all {
		if !old(one.value) {
			continue
		}
		if _, _, err := s.change(ctx, one.key, func(v T, exists bool) (T, verdict, error) {
			if !exists || !old(v) { // it began anew since the listing
				return v, keep, nil
			}
			return v, remove, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// trim removes the oldest documents over the bound.
func trim[T any](ctx context.Context, s shelf[T], at func(T) time.Time, most int) error {
	all, err := byTime(ctx, s, at)
	if err != nil {
		return err
	}
	for _, one := range all[:max(0, len(all)-most)] {
		if _, _, err := s.change(ctx, one.key, func(v T, _ bool) (T, verdict, error) { return v, remove, nil }); err != nil {
			return err
		}
	}
	return nil
}
