package gray

import "time"

// What the tests of the pure core need to see.
type (
	Observation = observation
	Effect      = effect
)

// Step runs the core, with a planted bug unless it is empty.
func Step(now time.Time, r Rollout, o Observation, bug string) (Rollout, Effect) {
	return step(now, r, o, bug)
}

// Order applies a person's command: abort, promote, pause or resume.
func Order(now time.Time, r Rollout, verb, actor, why string) (Rollout, Effect, error) {
	return apply(now, r, map[string]func(string, string) command{
		"abort": abortCommand, "promote": promoteCommand, "pause": pauseCommand, "resume": resumeCommand,
	}[verb](actor, why))
}

// Queue is what Start stores.
func Queue(now time.Time, r Rollout) Rollout {
	r = r.filled()
	r.Status.Created = now
	s := stepper{now: now, r: r}
	s.look(hold(CodeWeightsPending))
	s.to(Queued, Reason{Code: CodeCreated})
	return s.r
}

// Split tells a rollout's members from the others, as a Controller does.
func Split(r Rollout, shares map[string]int, members []MemberOutcome) Window {
	return window(r, shares, members)
}

// Plant makes a controller misbehave.
func (c *Controller) Plant(bug string) { c.bug = bug }
