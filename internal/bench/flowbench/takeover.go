package flowbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Taken is how long it took until another engine had gone on with the executions of one that was killed.
type Taken struct {
	First time.Duration // from the kill to the first step that the other has done
	All   time.Duration // until all executions have ended
}

// Takeover has one engine run so many flows on a store that another shares, and kills it with SIGKILL once it runs all of them.
func Takeover(ctx context.Context, name string, flows int, heartbeat time.Duration) (taken Taken, err error) {
	// The heir comes when all is under way: else it would run its share from the beginning.
	victim, err := start(ctx, order{Do: "work", Store: name, Flows: flows, Sleep: time.Second / 2, Heartbeat: heartbeat, Name: "victim"})
	if err != nil {
		return taken, err
	}
	defer func() {
		_ = victim.cmd.Process.Kill() // if it was not before
		_ = victim.cmd.Wait()
	}()
	begun, err := victim.hear("begun")
	if err != nil {
		return taken, err
	}
	heir, err := start(ctx, order{Do: "inherit", Store: name, Flows: flows, Heartbeat: heartbeat, Name: "heir"})
	if err != nil {
		return taken, err
	}
	defer func() {
		_ = heir.cmd.Process.Kill() // what it had to do is done
		_ = heir.cmd.Wait()
	}()
	if _, err := heir.hear("ready"); err != nil {
		return taken, err
	}
	if err := victim.cmd.Process.Kill(); err != nil {
		return taken, err
	}
	killed := time.Now()
	_ = victim.cmd.Wait() // it was killed
	left, err := owned(ctx, name, begun.ID)
	if err != nil {
		return taken, err
	}
	for taken.First <= 0 {
		step, err := heir.hear("step")
		if err != nil {
			return taken, err
		}
		if left[step.ID] {
			taken.First = step.At.Sub(killed)
		}
	}
	if _, err := heir.hear("done"); err != nil {
		return taken, err
	}
	taken.All = time.Since(killed)
	store, err := Open(ctx, name)
	if err != nil {
		return taken, err
	}
	defer store.Close()
	var k Killed
	if err := k.judge(ctx, store, flows); err != nil {
		return taken, err
	}
	if k.Again > 0 {
		return taken, fmt.Errorf("%d steps that were done ran again after a takeover", k.Again)
	}
	return taken, nil
}

// owned are the open executions of whoever runs one of them.
func owned(ctx context.Context, name, id string) (ids map[string]bool, err error) {
	store, err := Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	one, err := store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	rows, err := store.List(ctx, flow.Filter{Open: true})
	if err != nil {
		return nil, err
	}
	ids = map[string]bool{}
	for _, row := range rows {
		if row.Owner == one.Owner {
			ids[row.ID] = true
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("the engine that was killed had ended what it ran; there is nothing to take over")
	}
	return ids, nil
}

// inherit runs an engine that starts nothing, and says of each step that it has done when that was, and when all flows have ended.
func inherit(ctx context.Context, o order) (err error) {
	return serve(ctx, o, func(e flow.Event) {
		if e.Kind == flow.EventAttemptDone {
			_ = say(said{What: "step", At: time.Now(), ID: e.Execution}) // who does not listen has gone, and takes this process along
		}
	}, func(engine *flow.Engine) error {
		time.Sleep(5 * o.Heartbeat) // it is a member by then
		if err := say(said{What: "ready"}); err != nil {
			return err
		}
		for {
			time.Sleep(o.Heartbeat / 4)
			rows, _, err := engine.List(ctx, flow.Filter{Flow: "chain", Limit: o.Flows + 1})
			if err != nil {
				return err
			}
			done := 0
			for _, row := range rows {
				if row.State.Ended() {
					done++
				}
			}
			if done == o.Flows {
				return say(said{What: "done"})
			}
		}
	})
}
