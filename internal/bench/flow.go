package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/bench/flowbench"
)

const (
	steps    = flowbench.Steps
	together = 64     // flows at a time
	parked   = 10_000 // executions that only wait
	rounds   = 3      // ours and the floor in turn; the one whose ratio is the median counts
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
	if err := s.flowIdle(ctx, place); err != nil {
		return err
	}
	if err := s.flowNodes(ctx); err != nil {
		return err
	}
	if err := s.flowDefinitions(ctx); err != nil {
		return err
	}
	if s.DSN == "" {
		return nil
	}
	return s.flowTakeover(ctx, place)
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
	type calm struct {
		load  flowbench.Load
		floor time.Duration
	}
	var calms []calm
	for range rounds {
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
		calms = append(calms, calm{load, (before + after) / 2})
	}
	slices.SortFunc(calms, func(a, b calm) int { return cmp.Compare(a.load.P50*b.floor, b.load.P50*a.floor) })
	one, floor := calms[rounds/2].load, calms[rounds/2].floor
	s.add("flow.step", us(one.P50)/steps, "us", us(floor), "4 KiB appended and fdatasynced, in the median")
	s.add("flow.commits.1", one.Commits, "per step", 1, "a commit for each step; a commit is one sync")

	s.Progress(fmt.Sprintf("flow: %d executions at a time", together))
	type crowd struct {
		load flowbench.Load
		bare flowbench.Bare
	}
	var crowds []crowd
	for range rounds {
		bare, err := place.Bare(ctx, together, s.Span*3)
		if err != nil {
			return err
		}
		load, err := flowbench.Run(ctx, store, together, s.Span*4)
		if err != nil {
			return err
		}
		crowds = append(crowds, crowd{load, bare})
	}
	slices.SortFunc(crowds, func(a, b crowd) int { return cmp.Compare(a.load.Rate*b.bare.Rate, b.load.Rate*a.bare.Rate) })
	many, bare := crowds[rounds/2].load, crowds[rounds/2].bare
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

// flowNodes measures flows of many nodes beside as many nodes in flows of 100.
func (s *suite) flowNodes(ctx context.Context) error {
	const few, rounds = 100, 3
	many := min(10_000, s.scaled(10_000))
	for _, shape := range flowbench.Shapes {
		sizes := []int{many}
		if shape == "each" && s.Long {
			sizes = append(sizes, 100_000)
		}
		for _, n := range sizes {
			s.Progress(fmt.Sprintf("flow: %s of %d nodes", shape, n))
			var small, large time.Duration
			for range rounds { // of each the least disturbed counts
				one, err := flowbench.Nodes(ctx, shape, n/few, few)
				if err != nil {
					return err
				}
				other, err := flowbench.Nodes(ctx, shape, 1, n)
				if err != nil {
					return err
				}
				if small == 0 || one < small {
					small = one
				}
				if large == 0 || other < large {
					large = other
				}
			}
			s.add(fmt.Sprintf("flow.%s.%d", shape, n), us(large), "us a node", us(small), "a node of flows of 100; of the processor, in memory")
		}
	}
	return nil
}

// flowDefinitions measures expressions, and counts what becomes of definitions that are broken.
func (s *suite) flowDefinitions(ctx context.Context) error {
	s.Progress("flow: expressions and definitions")
	e, err := flowbench.Express(ctx, s.scaled(2000))
	if err != nil {
		return err
	}
	s.add(fmt.Sprintf("flow.expressions.%d", flowbench.InStep), us(e.Ordinary), "us a step", us(e.Constant), "the same step with constants in the places of its expressions")
	s.add("flow.expression.hostile", ms(e.Hostile), "ms", ms(e.Harmless), "the same flow with an expression that is over at once; the value is until it was stopped")
	seeds := uint64(max(3, s.scaled(200)/10)) // each seed breaks its definition in some twelve ways
	if s.Long {
		seeds = 200
	}
	d, err := flowbench.Define(ctx, 1000, 1000+seeds)
	if err != nil {
		return err
	}
	s.add("flow.broken", float64(d.Refused), "refused", float64(d.Broken), "generated definitions that are broken at one point; the value are those refused there")
	s.add("flow.good", float64(d.Taken), "taken", float64(d.Good), "generated definitions that are good")
	return nil
}

// flowTakeover measures how soon an engine goes on with what another had that was killed.
func (s *suite) flowTakeover(ctx context.Context, place *flowbench.Place) error {
	const heartbeat = 100 * time.Millisecond
	kills := 3
	if s.Long {
		kills = 50
	}
	s.Progress(fmt.Sprintf("flow: %d takeovers", kills))
	var worst flowbench.Taken
	for range kills {
		name, err := place.Store(ctx, "takeover")
		if err != nil {
			return err
		}
		taken, err := flowbench.Takeover(ctx, name, together, heartbeat)
		if err != nil {
			return err
		}
		worst.First, worst.All = max(worst.First, taken.First), max(worst.All, taken.All)
	}
	s.add("flow.takeover.first", ms(worst.First), "ms", ms(heartbeat), "a heartbeat; the value is from a SIGKILL to the heir's first step, the worst of all kills")
	s.add("flow.takeover.all", ms(worst.All), "ms", ms(heartbeat), "a heartbeat; the value is until all flows have ended, the worst of all kills")
	return nil
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
