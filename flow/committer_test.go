package flow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// gatedStore commits when it is let.
type gatedStore struct {
	Store
	let chan error

	mu      sync.Mutex // guards what follows
	commits [][]string // IDs
}

func (s *gatedStore) Commit(_ context.Context, batch []Transition) ([]error, error) {
	ids := make([]string, len(batch))
	for i := range batch {
		ids[i] = batch[i].Row.ID
	}
	s.mu.Lock()
	s.commits = append(s.commits, ids)
	s.mu.Unlock()
	return make([]error, len(batch)), <-s.let
}

// What comes while a commit is in flight rides in the next one, in the order in which it came, and up to the bound all of it.
func TestWhatComesRidesInTheNextCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &gatedStore{let: make(chan error)}
		c := &committer{store: store, context: context.Background, failed: func(err error) { t.Error(err) }}
		var wait sync.WaitGroup
		come := func(id string) {
			wait.Go(func() {
				if err := c.commit(Transition{Row: Row{ID: id}}); err != nil {
					t.Error(id, err)
				}
			})
			synctest.Wait()
		}
		come("first")
		want := [][]string{{"first"}, nil, nil}
		for i := range maxBatch + 10 {
			id := fmt.Sprint(i)
			come(id)
			want[1+i/maxBatch] = append(want[1+i/maxBatch], id)
		}
		for range want {
			store.let <- nil
			synctest.Wait()
		}
		wait.Wait()
		if diff := cmp.Diff(want, store.commits); diff != "" {
			t.Errorf("commits (-want +got):\n%s", diff)
		}
		last := make(chan error, 1)
		go func() { last <- c.commit(Transition{Row: Row{ID: "last"}}) }() // ends with the commit below
		store.let <- nil
		if err := <-last; err != nil {
			t.Errorf("the committer is not idle again: %v", err)
		}
	})
}

// A store that fails is told of once; those who wait, and all who come later, get its error.
func TestAStoreThatFailsIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &gatedStore{let: make(chan error)}
		told := 0
		c := &committer{store: store, context: context.Background, failed: func(error) { told++ }}
		broken := errors.New("the disk is full")
		errs := make(chan error, 3)
		for i := range 3 {
			go func() { errs <- c.commit(Transition{Row: Row{ID: fmt.Sprint(i)}}) }() // ends with the commit; waited for below
			synctest.Wait()
		}
		store.let <- broken
		for range 3 {
			if err := <-errs; !errors.Is(err, broken) {
				t.Errorf("%v, want %v", err, broken)
			}
		}
		if err := c.commit(Transition{}); !errors.Is(err, broken) {
			t.Errorf("later: %v, want %v", err, broken)
		}
		if told != 1 || len(store.commits) != 1 {
			t.Errorf("told %d times after %d commits, want once after one", told, len(store.commits))
		}
	})
}
