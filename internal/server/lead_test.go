package server_test

import (
	"context"
	"errors"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/server"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// unsteady is an elector whose cluster is away at first.
type unsteady struct {
	store.Elector
	failures int
}

func (u *unsteady) Campaign(ctx context.Context, name, id string) (*store.Term, error) {
	if u.failures > 0 {
		u.failures--
		return nil, errors.New("no member answers")
	}
	return u.Elector.Campaign(ctx, name, id)
}

// A term that is lost under a controller's hands ends the term, not the server; nor does a cluster that is away.
func TestALostTermIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	memory := store.NewMemory()
	elector := store.NewMemoryElector(memory)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var fences []int64
	err := server.Lead(ctx, &unsteady{elector, 1}, func(ctx context.Context, term *store.Term) error {
		fences = append(fences, term.Fence())
		if len(fences) == 3 {
			cancel()
			return nil
		}
		elector.Depose("test")
		_, err := store.Fenced(memory, term).Commit(context.WithoutCancel(ctx), store.Put("rollout", nil))
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("a commit of the deposed: %v", err)
		}
		return err
	})
	if err != nil || len(fences) != 3 || fences[0] >= fences[1] || fences[1] >= fences[2] {
		t.Errorf("led with the fences %v: %v", fences, err)
	}
	broken := errors.New("the disk is gone")
	if err := server.Lead(t.Context(), elector, func(context.Context, *store.Term) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("another error: %v", err)
	}
}
