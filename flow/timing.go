package flow

import (
	"context"
	"fmt"
	"time"
)

// StepTiming is where the time of one step went. A step that the execution was taken back over counts as a whole: all of its rounds.
type StepTiming struct {
	Step     string        `json:"step"`
	Attempts int           `json:"attempts"`
	Wall     time.Duration `json:"wall_ns"` // from its beginning to its end, or to now
	Ran      time.Duration `json:"ran_ns"`  // during which at least one attempt ran
	Waited   time.Duration `json:"waited_ns"`
	Work     time.Duration `json:"work_ns"` // of all attempts, added up: more than Ran where they ran side by side
	Undo     time.Duration `json:"undo_ns,omitempty"`
	Share    float64       `json:"share"` // of Wall in that of the execution
}

// Timing is where the time of an execution went.
type Timing struct {
	Execution string        `json:"execution"`
	State     State         `json:"state"`
	Wall      time.Duration `json:"wall_ns"` // from its start to its end, or to now
	Steps     []StepTiming  `json:"steps"`   // those that have begun, in the order in which they first did
}

// Timing reads an execution's history and says where its time went. Waited is what a step's Wall has beyond Ran: waits between
// attempts, for a person, for a signal.
func (e *Engine) Timing(ctx context.Context, id string) (Timing, error) {
	row, err := e.config.Store.Get(ctx, id)
	if err != nil {
		return Timing{}, fmt.Errorf("flow: timing of %s: %w", id, err)
	}
	records, err := e.config.Store.History(ctx, id, 0, 0)
	if err != nil {
		return Timing{}, fmt.Errorf("flow: timing of %s: %w", id, err)
	}
	c := clockwork{steps: map[string]*stopwatch{}}
	for _, record := range records {
		events, err := DecodeEvents(id, record)
		if err != nil {
			return Timing{}, err
		}
		for i := range events {
			c.event(&events[i])
		}
	}
	end := row.Ended
	if end.IsZero() {
		end = now()
	}
	out := Timing{Execution: id, State: row.State, Wall: end.Sub(row.Started)}
	for _, name := range c.order {
		t := c.steps[name].timing(name, end)
		if out.Wall > 0 {
			t.Share = float64(t.Wall) / float64(out.Wall)
		}
		out.Steps = append(out.Steps, t)
	}
	return out, nil
}

// clockwork holds a stopwatch for each step.
type clockwork struct {
	steps map[string]*stopwatch
	order []string
}

// stopwatch adds up the times of one step.
type stopwatch struct {
	opened   time.Time // zero: the step does not go on
	began    time.Time // of the attempts that run now, the first
	running  map[int]time.Time
	undoing  map[int]time.Time
	attempts int
	wall     time.Duration
	ran      time.Duration
	work     time.Duration
	undo     time.Duration
}

func (c *clockwork) event(e *Event) {
	switch e.Kind {
	case EventReturned, EventDone, EventFailed, EventCancelled:
		for _, w := range c.steps {
			w.close(e.At)
		}
	}
	if e.Step == "" || e.Kind == EventReturning {
		return
	}
	w := c.steps[e.Step]
	if w == nil {
		w = &stopwatch{running: map[int]time.Time{}, undoing: map[int]time.Time{}}
		c.steps[e.Step] = w
		c.order = append(c.order, e.Step)
	}
	switch e.Kind {
	case EventUndoStarted:
		w.undoing[e.Item] = e.At
	case EventUndoDone, EventUndoFailed, EventUndoHeld, EventUndoSkipped:
		if from, on := w.undoing[e.Item]; on {
			w.undo += e.At.Sub(from)
			delete(w.undoing, e.Item)
		}
	case EventStepDone, EventStepSkipped, EventStepFailed:
		w.close(e.At)
	default:
		w.attempt(e)
	}
}

func (w *stopwatch) attempt(e *Event) {
	if w.opened.IsZero() {
		w.opened = e.At
	}
	switch e.Kind {
	case EventAttemptStarted, EventProbeStarted:
		if e.Kind == EventAttemptStarted {
			w.attempts++
		}
		w.stop(e.Item, e.At) // one that a crash cut off
		if len(w.running) == 0 {
			w.began = e.At
		}
		w.running[e.Item] = e.At
	case EventAttemptDone, EventAttemptFailed, EventAttemptDoubt, EventAttemptHeld, EventProbeFailed:
		w.stop(e.Item, e.At)
	}
}

func (w *stopwatch) stop(item int, at time.Time) {
	from, on := w.running[item]
	if !on {
		return
	}
	w.work += at.Sub(from)
	delete(w.running, item)
	if len(w.running) == 0 {
		w.ran += at.Sub(w.began)
	}
}

func (w *stopwatch) close(at time.Time) {
	for item := range w.running {
		w.stop(item, at)
	}
	if !w.opened.IsZero() {
		w.wall += at.Sub(w.opened)
		w.opened = time.Time{}
	}
}

// timing is what the watch shows; what still runs counts up to now.
func (w *stopwatch) timing(name string, now time.Time) StepTiming {
	w.close(now)
	for _, from := range w.undoing {
		w.undo += now.Sub(from)
	}
	return StepTiming{Step: name, Attempts: w.attempts, Wall: w.wall, Ran: w.ran, Waited: w.wall - w.ran, Work: w.work, Undo: w.undo}
}
