package gray

import (
	"maps"
	"slices"
	"time"
)

// observation is what the shell saw of the world just before a step.
type observation struct {
	First     bool           // no other rollout of the service is under way and none was created earlier
	Shares    map[string]int // nil when SharesErr is set
	SharesErr string
	Window    Window // evidence of [Status.WindowFrom, now); empty while no stage is in force
	WindowErr string
	Stopped   bool   // automation is stopped for the service
	Why       string // it is
}

// effect is what a step wants done, in this order, once the new rollout is committed.
type effect struct {
	Events []Event        // committed together with the rollout
	Set    map[string]int // shares to set; nil: none
}

// stepper is one step of one rollout in the making.
type stepper struct {
	now time.Time
	r   Rollout
	out effect
	bug string // a planted bug; empty outside of this package's own tests
}

// step is the core: what becomes of a rollout at this moment, given what was seen. It has no clock and does no
// I/O, and it does not change its arguments. Every state that it returns can be met again after a crash: the
// effects follow from the state, and asking for them twice does no harm.
func step(now time.Time, r Rollout, o observation, bug string) (Rollout, effect) {
	s := stepper{now: now, r: r.clone(), bug: bug}
	switch r.Status.State {
	case Queued:
		switch {
		case o.Stopped:
			s.look(stopped(o))
		case o.First || bug == "no-queue":
			s.enter(0, Reason{Code: CodeStarted})
		default:
			s.look(hold(CodeWeightsPending))
		}
	case Running, Paused:
		s.advance(o)
	case Aborting:
		s.rollBack(o)
	}
	return s.r, s.out
}

// advance works on a stage.
func (s *stepper) advance(o observation) {
	shares := o.SharesErr == ""
	if shares {
		s.actual(o.Shares)
		if s.lose(o.Shares); s.r.Status.State == Aborting {
			return
		}
		s.force(o)
	}
	inForce := !s.r.Status.InForce.IsZero()
	v := hold(CodeWeightsPending)
	if !shares {
		v = hold(CodeWeightsError)
		v.Reason.Text = o.SharesErr
	}
	if inForce {
		if seen := s.evidence(o); shares || seen.Decision == Fail {
			v = seen
		}
	}
	soaked := inForce && s.now.Sub(s.r.Status.InForce) >= s.r.Policy.Soak
	if s.bug == "no-soak" {
		soaked = inForce
	}
	if v.Decision == Pass && !soaked {
		v = Verdict{Decision: Hold, Reason: Reason{Code: CodeSoaking, Numbers: append(v.Reason.Numbers,
			Number{"soaked_s", s.now.Sub(s.r.Status.InForce).Seconds()}, Number{"soak_s", s.r.Policy.Soak.Seconds()})}}
	}
	if o.Stopped && v.Decision != Fail {
		v = stopped(o)
	}
	if s.bug == "hold-passes" && v.Decision == Hold && soaked {
		v.Decision = Pass
	}
	s.look(v)
	switch {
	case v.Decision == Fail:
		s.abort(v.Reason)
		s.set(o)
	case s.r.Status.Waived && shares && !s.r.Status.InForce.IsZero():
		s.next(Reason{Code: CodePromoted, Text: "the last stage is in force, and its gate was waived"})
	case s.r.Status.State == Paused, o.Stopped: // holds what it has; a red gate still ends it, above
	case v.Decision == Pass:
		s.next(Reason{Code: CodeGateGreen, Numbers: v.Reason.Numbers})
		if s.r.Status.State == Running {
			s.set(o)
		}
	case s.now.Sub(s.r.Status.StageSince) > s.r.Policy.MaxStage:
		s.to(Paused, Reason{Code: CodeOverdue, Text: v.Reason.Code, Numbers: append(slices.Clone(v.Reason.Numbers),
			Number{"max_stage_s", s.r.Policy.MaxStage.Seconds()})})
	}
}

// stopped is the verdict while automation is stopped.
func stopped(o observation) Verdict {
	v := hold(CodeStopped)
	v.Reason.Text = o.Why
	return v
}

// evidence is the verdict on what callers reported, and keeps watch over holes in it.
func (s *stepper) evidence(o observation) Verdict {
	if o.WindowErr != "" {
		v := hold(CodeDataError)
		v.Reason.Text = o.WindowErr
		return v
	}
	st := &s.r.Status
	if o.Window.Complete || s.bug == "gap-counts" {
		o.Window.Complete = true
		st.GapSince = time.Time{}
		return s.r.Policy.Judge(s.r.Policy.Need(s.r.members(), s.r.MinCores), o.Window)
	}
	if st.GapSince.IsZero() {
		st.GapSince = s.now
	}
	since, first := st.GapSince, true
	if st.WindowFrom.After(since) {
		since, first = st.WindowFrom, false
	}
	if s.now.Sub(since) >= s.r.Policy.GapReset {
		// The soak starts again too: time in which nobody could see is no soak.
		st.WindowFrom, st.InForce = s.now, s.now
		if first {
			s.note(Reason{Code: CodeWindowRestart, Numbers: []Number{{"gap_s", s.now.Sub(since).Seconds()}}})
		}
	}
	return hold(CodeDataGap)
}

// force compares the shares in force with the wanted ones, and has them set where they differ.
func (s *stepper) force(o observation) {
	st := &s.r.Status
	wanted, wrong := s.r.Wanted(), 0
	for id, percent := range wanted {
		if have, ok := o.Shares[id]; ok && have != percent {
			wrong++
		}
	}
	switch {
	case wrong > 0:
		if !st.InForce.IsZero() {
			st.InForce, st.WindowFrom, st.GapSince = time.Time{}, time.Time{}, time.Time{}
			s.note(Reason{Code: CodeDrifted, Numbers: []Number{{"members", float64(wrong)}}})
		}
		s.set(o)
	case st.InForce.IsZero() && len(st.Missing) == 0:
		st.InForce, st.GapSince = s.now, time.Time{}
		if s.bug != "stale-window" || st.WindowFrom.IsZero() {
			st.WindowFrom = s.now
		}
		s.note(Reason{Code: CodeInForce, Numbers: []Number{{"percent", float64(st.Percent)}, {"members", float64(len(wanted))}}})
	}
}

// set wants the shares set that the state asks for, of those members that the service has; of all of them when
// that cannot be read.
func (s *stepper) set(o observation) {
	wanted := s.r.Wanted()
	if o.SharesErr == "" {
		maps.DeleteFunc(wanted, func(id string, _ int) bool { _, ok := o.Shares[id]; return !ok })
	}
	if s.out.Set = wanted; len(wanted) == 0 {
		s.out.Set = nil
	}
}

// missing keeps account of members that are not in the service, and returns those that have been away for
// LostAfter: a name service that just came up may not know its members for a while.
func (s *stepper) missing(shares map[string]int, members []Member) []string {
	st := &s.r.Status
	var gone []string
	for _, m := range members {
		since, missing := st.Missing[m.ID]
		_, there := shares[m.ID]
		switch {
		case there:
			delete(st.Missing, m.ID)
		case !missing:
			if st.Missing == nil {
				st.Missing = make(map[string]time.Time)
			}
			st.Missing[m.ID] = s.now
		case s.now.Sub(since) >= s.r.Policy.LostAfter:
			gone = append(gone, m.ID)
		}
	}
	return gone
}

// lose drops members that have been missing from the service for too long.
func (s *stepper) lose(shares map[string]int) {
	st := &s.r.Status
	gone := s.missing(shares, s.r.members())
	for _, id := range gone {
		delete(st.Missing, id)
	}
	st.Lost = append(st.Lost, gone...)
	lost := len(gone)
	if lost == 0 {
		return
	}
	left := len(s.r.members())
	numbers := []Number{{"lost", float64(lost)}, {"left", float64(left)}}
	if left == 0 {
		s.abort(Reason{Code: CodeMembersGone, Numbers: numbers})
		return
	}
	s.note(Reason{Code: CodeMemberLost, Numbers: numbers})
}

// rollBack sets all new members, lost ones too, to 0 until that is what reads back.
func (s *stepper) rollBack(o observation) {
	v := hold(CodeWeightsPending)
	if o.SharesErr == "" {
		s.actual(o.Shares)
		gone, left := s.missing(o.Shares, s.r.New), 0
		for _, m := range s.r.New {
			percent, there := o.Shares[m.ID]
			lost := slices.Contains(s.r.Status.Lost, m.ID) || slices.Contains(gone, m.ID)
			if there && percent != 0 || !there && !lost {
				left++
			}
		}
		if left == 0 {
			s.to(Aborted, Reason{Code: CodeRolledBack, Numbers: []Number{{"members", float64(len(s.r.New))}}})
			return
		}
		v.Reason.Numbers = []Number{{"left", float64(left)}}
	} else {
		v = hold(CodeWeightsError)
		v.Reason.Text = o.SharesErr
	}
	s.look(v)
	if s.bug != "abort-once" {
		s.set(o)
	}
}

// actual keeps what was read back of the new members.
func (s *stepper) actual(shares map[string]int) {
	actual := make(map[string]int, len(s.r.New))
	for _, m := range s.r.New {
		if percent, ok := shares[m.ID]; ok {
			actual[m.ID] = percent
		}
	}
	s.r.Status.Actual = actual
}

// next ends the stage: the next one, or done.
func (s *stepper) next(reason Reason) {
	if i := s.r.Status.Stage + 1; i < len(s.r.Policy.Stages) {
		s.enter(i, reason)
		return
	}
	s.to(Done, reason)
}

// enter begins a stage.
func (s *stepper) enter(stage int, reason Reason) {
	st := &s.r.Status
	st.Stage, st.Percent, st.StageSince = stage, s.r.Policy.Stages[stage], s.now
	st.InForce, st.GapSince = time.Time{}, time.Time{}
	if s.bug != "stale-window" {
		st.WindowFrom = time.Time{}
	}
	s.look(hold(CodeWeightsPending))
	s.to(Running, reason)
}

// abort begins the rollback.
func (s *stepper) abort(reason Reason) {
	st := &s.r.Status
	st.Cause, st.Waived = reason, false
	st.Percent, st.InForce, st.WindowFrom, st.GapSince = 0, time.Time{}, time.Time{}, time.Time{}
	s.to(Aborting, reason)
}

// look notes what was seen.
func (s *stepper) look(v Verdict) {
	v.At = s.now
	s.r.Status.Verdict = v
}

// note records something that leaves the state as it is.
func (s *stepper) note(reason Reason) { s.to(s.r.Status.State, reason) }

// to records a transition.
func (s *stepper) to(state State, reason Reason) {
	st := &s.r.Status
	st.Events++
	s.out.Events = append(s.out.Events, Event{
		Rollout: s.r.ID, Service: s.r.Service, Seq: st.Events, At: s.now,
		From: st.State, To: state, Stage: st.Stage, Percent: st.Percent, Reason: reason,
	})
	st.State, st.Changed, st.Reason = state, s.now, reason
}
