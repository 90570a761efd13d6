package flowbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Killed is what became of flows whose engine was killed with SIGKILL when half of their steps were done.
type Killed struct {
	First time.Duration // from the start of the next process to its first step that is done
	All   time.Duration // until all flows are
	Rest  time.Duration // what the second half takes when nobody is killed
	Bare  time.Duration // from the start of a process to its first step, with nothing stored before
	Doubt int           // steps that were in flight, and passed "in doubt"
	Again int           // steps that were done and were begun again
}

// Kill has so many flows run at a time, each step taking so long, on two stores: undisturbed on the one, and killed half way on the other.
func Kill(ctx context.Context, calm, disturbed string, flows int, sleep time.Duration) (killed Killed, err error) {
	o := order{Do: "work", Store: calm, Flows: flows, Sleep: sleep}
	began := time.Now()
	undisturbed, err := start(ctx, o)
	if err != nil {
		return killed, err
	}
	if _, err := undisturbed.hear("first"); err != nil {
		return killed, err
	}
	killed.Bare = time.Since(began)
	if _, err := undisturbed.hear("half"); err != nil {
		return killed, err
	}
	half := time.Now()
	if _, err := undisturbed.hear("done"); err != nil {
		return killed, err
	}
	killed.Rest = time.Since(half)
	if err := undisturbed.cmd.Wait(); err != nil {
		return killed, err
	}

	o.Store = disturbed
	victim, err := start(ctx, o)
	if err != nil {
		return killed, err
	}
	if _, err := victim.hear("half"); err != nil {
		return killed, err
	}
	if err := victim.cmd.Process.Kill(); err != nil {
		return killed, err
	}
	_ = victim.cmd.Wait() // it was killed
	began = time.Now()
	next, err := start(ctx, o)
	if err != nil {
		return killed, err
	}
	if _, err := next.hear("first"); err != nil {
		return killed, err
	}
	killed.First = time.Since(began)
	if _, err := next.hear("done"); err != nil {
		return killed, err
	}
	killed.All = time.Since(began)
	if err := next.cmd.Wait(); err != nil {
		return killed, err
	}
	store, err := Open(ctx, disturbed)
	if err != nil {
		return killed, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return killed, killed.judge(ctx, store, flows)
}

// judge reads the histories.
func (k *Killed) judge(ctx context.Context, store flow.Store, flows int) error {
	if found, err := flow.Check(ctx, store); err != nil || len(found) > 0 {
		return fmt.Errorf("the store after the kill: %v, %w", found, err)
	}
	rows, err := store.List(ctx, flow.Filter{Flow: "chain"})
	if err != nil {
		return err
	}
	if len(rows) != flows {
		return fmt.Errorf("%d executions are there after the kill, want %d", len(rows), flows)
	}
	for _, row := range rows {
		records, err := store.History(ctx, row.ID, 0, 0)
		if err != nil {
			return err
		}
		ended := map[string]bool{}
		for _, record := range records {
			events, err := flow.DecodeEvents(row.ID, record)
			if err != nil {
				return err
			}
			for _, e := range events {
				switch {
				case e.Kind == flow.EventAttemptDone:
					ended[e.Step] = true
				case e.Kind == flow.EventAttemptStarted && ended[e.Step]:
					k.Again++
				case e.Kind == flow.EventAttemptDoubt:
					k.Doubt++
				}
			}
		}
		if row.State != flow.Done {
			return fmt.Errorf("execution %s is %s after the kill", row.ID, row.State)
		}
	}
	return nil
}
