package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
)

const (
	steps    = flowbench.Steps
	together = 64     // flows at a time
	parked   = 10_000 // executions that only wait
	rounds   = 3      // of which the best counts: neighbours make things slower, never faster
)

// flow measures durable steps: one execution at a time, and 64; what is left of them by a kill, and what executions cost that only wait.
func (s *suite) flow(ctx context.Context) (err error) {
	place, err := flowbench.NewPlace(ctx, s.dir, s.DSN)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Close(context.WithoutCancel(ctx))) }()
	if err := s.flowLoad(ctx, place); err != nil {
		return err
	}
	if err := s.flowKill(ctx, place); err != nil {
		return err
	}
	return s.flowIdle(ctx, place)
}

// flowLoad measures a store under load.
func (s *suite) flowLoad(ctx context.Context, place *flowbench.Place) (err error) {
	name, err := place.Store(ctx, "load")
	if err != nil {
		return err
	}
	store, err := flowbench.Open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	s.Progress("flow: executions of 23 durable steps, one at a time")
	var one flowbench.Load
	var floor time.Duration
	for round := range rounds {
		before, err := flowbench.Fdatasync(s.dir, 200, datasync)
		if err != nil {
			return err
		}
		load, err := flowbench.Run(ctx, store, 1, s.Span*2)
		if err != nil {
			return err
		}
		after, err := flowbench.Fdatasync(s.dir, 200, datasync)
		if err != nil {
			return err
		}
		probed := (before + after) / 2
		if round == 0 || load.P50*floor < one.P50*probed {
			one, floor = load, probed
		}
	}
	s.add("flow.step", us(one.P50)/steps, "us", us(floor), "4 KiB appended and fdatasynced, in the median")
	s.add("flow.commits.1", one.Commits, "per step", 1, "a commit for each step; a commit is one sync")

	s.Progress(fmt.Sprintf("flow: %d executions at a time", together))
	var many flowbench.Load
	var bare flowbench.Bare
	for round := range rounds {
		around, err := place.Bare(ctx, together, s.Span*3)
		if err != nil {
			return err
		}
		load, err := flowbench.Run(ctx, store, together, s.Span*4)
		if err != nil {
			return err
		}
		if round == 0 || load.Rate*bare.Rate > many.Rate*around.Rate {
			many, bare = load, around
		}
	}
	s.addRate("flow.steps.64", many.Rate, "steps/s", bare.Rate, "a bare group commit of one row per step")
	s.add("flow.cpu.64", us(many.CPU), "us per step", us(bare.CPU), "a bare group commit of one row per step")
	s.add("flow.commits.64", many.Commits, "per step", 1.0/together, "all that run in one commit")
	s.add("flow.fair.64", ms(many.P99), "ms", ms(many.P50), "p50 of the same flows; the value is their p99")
	s.add("flow.start.64", float64(many.Start.P99), "commits", 1, "one commit; the value is the p99 that a start waits for")
	logged, events, err := place.Log(ctx, together, s.Span*2)
	if err != nil {
		return err
	}
	s.add("flow.log.64", logged, "B per step", events, "the events themselves; the value is what the database writes ahead")
	return nil
}

// flowKill measures what a kill -9 costs.
func (s *suite) flowKill(ctx context.Context, place *flowbench.Place) error {
	s.Progress("flow: kill -9 half way")
	calm, err := place.Store(ctx, "calm")
	if err != nil {
		return err
	}
	disturbed, err := place.Store(ctx, "killed")
	if err != nil {
		return err
	}
	killed, err := flowbench.Kill(ctx, calm, disturbed, together, 5*time.Millisecond)
	if err != nil {
		return err
	}
	if killed.Again > 0 {
		return fmt.Errorf("%d steps that were done ran again after a kill", killed.Again)
	}
	s.add("flow.kill.first", ms(killed.First), "ms", ms(killed.Bare), "a new process with an empty store; from its start to its first step")
	s.add("flow.kill.all", ms(killed.All), "ms", ms(killed.Rest), "the second half of the steps when nobody is killed")
	s.add("flow.kill.doubt", float64(max(killed.Doubt, 1)), "steps", together, "the flows that ran; no step that was done ran again")
	return nil
}

// flowIdle measures executions that wait.
func (s *suite) flowIdle(ctx context.Context, place *flowbench.Place) error {
	s.Progress("flow: executions that wait")
	empty, err := place.Store(ctx, "empty")
	if err != nil {
		return err
	}
	full, err := place.Store(ctx, "full")
	if err != nil {
		return err
	}
	n := min(parked, s.scaled(parked))
	if err := flowbench.Park(ctx, empty, 0); err != nil {
		return err
	}
	if err := flowbench.Park(ctx, full, n); err != nil {
		return err
	}
	span := s.Span * 10
	nothing, err := flowbench.Wait(ctx, empty, span)
	if err != nil {
		return err
	}
	waiting, err := flowbench.Wait(ctx, full, span)
	if err != nil {
		return err
	}
	const tiny = 1e-6 // of a core: below what a process's clock shows
	s.add(fmt.Sprintf("flow.idle.%d", n), max(waiting.CPU, tiny)*100, "% of a core", max(nothing.CPU, tiny)*100, "the same process with nothing that waits")
	s.add(fmt.Sprintf("flow.idle.%d.resident", n), mb(waiting.RSS), "MB", mb(nothing.RSS), "the same process with nothing that waits")
	return nil
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
