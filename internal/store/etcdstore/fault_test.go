package etcdstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/store/etcdstore"
)

func TestQuotaStopsWritesAndReclaimLetsThemGoOn(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*time.Minute)
	member := start(t, etcdstore.EmbeddedConfig{Quota: 4 << 20})
	s := etcdstore.New(member.Client(), "/")
	big := make([]byte, 200<<10)
	var err error
	acknowledged := 0
	for ; acknowledged < 100 && err == nil; acknowledged++ {
		_, err = s.Commit(ctx, store.Put(fmt.Sprint("k", acknowledged%3), big)) // the same keys: old revisions fill it
	}
	if !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("after %d large writes: %v, want ErrNoSpace", acknowledged, err)
	}
	expect(t, err, "compact and defragment", "quota")
	if _, err := s.Commit(ctx, store.Put("small", nil)); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("a small write when space is gone: %v, want ErrNoSpace", err)
	}
	if records, _, err := s.List(ctx, ""); err != nil || len(records) != 3 {
		t.Errorf("reads without space: %d records, %v; want all 3", len(records), err)
	}
	if err := member.Reclaim(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, store.Put("small", nil)); err != nil {
		t.Errorf("after Reclaim: %v", err)
	}
}

func TestTooLargeIsSaidSo(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*time.Minute)
	s := etcdstore.New(start(t, etcdstore.EmbeddedConfig{MaxOps: 128, MaxBytes: 2 << 20}).Client(), "/")
	var ops []store.Op
	for i := range 200 {
		ops = append(ops, store.Put(fmt.Sprint("k", i), nil))
	}
	if _, err := s.Commit(ctx, ops...); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("200 operations: %v, want ErrTooLarge", err)
	}
	if _, err := s.Commit(ctx, store.Put("k", make([]byte, 3<<20))); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("3 MiB: %v, want ErrTooLarge", err)
	}
}

// A listing of more records than one page holds is of one revision, while somebody writes.
func TestListPagesAreOfOneRevision(t *testing.T) {
	t.Parallel()
	ctx := within(t, 3*time.Minute)
	s := etcdstore.New(start(t, etcdstore.EmbeddedConfig{}).Client(), "/")
	const n = 24_000
	for at := 0; at < n; at += 4000 {
		var ops []store.Op
		for i := at; i < at+4000; i++ {
			ops = append(ops, store.Put(fmt.Sprintf("k%06d", i), []byte("0")))
		}
		if _, err := s.Commit(ctx, ops...); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			value := []byte(fmt.Sprint(i))
			if _, err := s.Commit(ctx, store.Put("k000001", value), store.Put(fmt.Sprintf("k%06d", n-1), value)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 3 {
		records, revision, err := s.List(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		first, last := records[1], records[len(records)-1]
		if len(records) != n || string(first.Value) != string(last.Value) || first.Revision > revision {
			t.Errorf("%d records; the pair written at once reads %s and %s, at %d", len(records), first.Value, last.Value, revision)
		}
	}
	close(stop)
	<-stopped
}

// A folder restored from an old backup numbers new commits with old revisions: a watcher that knows more is told so.
func TestReplacedHistoryIsNotResumed(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*time.Minute)
	s := etcdstore.New(start(t, etcdstore.EmbeddedConfig{}).Client(), "/")
	revision, err := s.Commit(ctx, store.Put("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	for event, err := range s.Watch(ctx, "", revision+1000) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch after a revision that is not there yet yields %+v, %v; want ErrCompacted", event, err)
		}
		break
	}
}
