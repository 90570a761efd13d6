package gray

import (
	"fmt"
	"time"
)

// A command is what a person asks of a rollout; like step, it is a pure function of its arguments.
type command func(s *stepper) error

// apply runs a command on a rollout.
func apply(now time.Time, r Rollout, c command) (Rollout, effect, error) {
	s := stepper{now: now, r: r.clone()}
	if err := c(&s); err != nil {
		return r, effect{}, err
	}
	return s.r, s.out, nil
}

func abortCommand(actor, why string) command {
	return func(s *stepper) error {
		if state := s.r.Status.State; state == Aborting || state == Aborted {
			return nil // it is what was asked for
		}
		s.abort(Reason{Code: CodeAborted, Actor: actor, Text: why})
		return nil
	}
}

func promoteCommand(actor, why string) command {
	return func(s *stepper) error {
		switch s.r.Status.State {
		case Running, Paused:
			reason := Reason{Code: CodePromoted, Actor: actor, Text: why}
			st := &s.r.Status
			if st.Stage == len(s.r.Policy.Stages)-1 && st.InForce.IsZero() { // not done before it has full weight
				if !st.Waived {
					st.Waived = true
					s.to(Running, reason)
				}
				return nil
			}
			s.next(reason)
			return nil
		case Done:
			return nil
		}
		return s.refuse("promote", "only a running or paused one can be")
	}
}

func pauseCommand(actor, why string) command {
	return func(s *stepper) error {
		switch s.r.Status.State {
		case Running:
			s.to(Paused, Reason{Code: CodePaused, Actor: actor, Text: why})
			return nil
		case Paused:
			return nil
		}
		return s.refuse("pause", "only a running one can be")
	}
}

func resumeCommand(actor, why string) command {
	return func(s *stepper) error {
		switch s.r.Status.State {
		case Paused:
			s.r.Status.StageSince = s.now // MaxStage counts anew
			s.to(Running, Reason{Code: CodeResumed, Actor: actor, Text: why})
			return nil
		case Running:
			return nil
		}
		return s.refuse("resume", "only a paused one can be")
	}
}

func (s *stepper) refuse(verb, mend string) error {
	return fmt.Errorf("%w: %s rollout %q, which is %s: %s", ErrState, verb, s.r.ID, s.r.Status.State, mend)
}
