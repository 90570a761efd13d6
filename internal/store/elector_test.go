package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

func TestFencedWriterIsStoppedWhenAnotherLeads(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	memory := store.NewMemory()
	elector := store.NewMemoryElector(memory)
	first, err := elector.Campaign(ctx, "gray", "server-1")
	if err != nil {
		t.Fatal(err)
	}
	view := store.Prefixed(memory, "/zhiyun/gray/")
	writer := store.Fenced(view, first)
	if _, err := writer.Commit(ctx, store.Put("rollout/1", []byte("10%"))); err != nil {
		t.Fatal(err)
	}
	won := make(chan *store.Term)
	go func() {
		term, err := elector.Campaign(ctx, "gray", "server-2")
		if err != nil {
			t.Error(err)
		}
		won <- term
	}()
	elector.Depose("gray")
	second := <-won
	<-first.Done()
	if _, err := writer.Commit(ctx, store.Put("rollout/1", []byte("50%"))); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("a deposed leader's write: %v, want ErrFenced", err)
	}
	if second.Fence() <= first.Fence() {
		t.Fatalf("fences %d then %d, want them to grow", first.Fence(), second.Fence())
	}
	if _, err := store.Fenced(view, second).Commit(ctx, store.Put("rollout/1", []byte("50%"))); err != nil {
		t.Fatal(err)
	}
}

func TestCampaignTakesOverItsFormerSelf(t *testing.T) {
	t.Parallel()
	elector := store.NewMemoryElector(store.NewMemory())
	first, err := elector.Campaign(t.Context(), "scale", "server-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := elector.Campaign(t.Context(), "scale", "server-1")
	if err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	select {
	case <-again.Done():
		t.Fatal("the new term ended with the old one")
	default:
	}
	if err := first.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := elector.Campaign(short, "scale", "server-2"); !errors.Is(err, context.Canceled) {
		t.Fatalf("server-2 campaigns while server-1 leads: %v, want it to wait", err)
	}
	if err := again.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := elector.Campaign(t.Context(), "scale", "server-2"); err != nil {
		t.Fatal(err)
	}
}
