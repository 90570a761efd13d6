package flow

import (
	"errors"
	"time"
)

// membership is an engine's part in a Shared store, as a pure state machine: it is told what came of what it asked for, and says what to do
// next. It reads no clock.
//
//	           joined                          fenced: by a beat, a claim or a commit
//	outside ------------> member (beats, claims) ------------> fenced
//	   ^                                                          |
//	   '--------- everything that it owned is dropped <-----------'
//
// Leases work as in C. Gray and D. Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency" (SOSP 1989), with
// the member's number as the fencing token of each write.
type membership struct {
	heartbeat time.Duration
	member    int64 // 0: outside
	fenced    bool
	draining  bool // claims nothing more

	next     time.Time // of the next beat, or of the next attempt to join
	failures int       // beats and joins that failed in a row
	orphans  bool      // the last beat saw something to claim
	claiming bool      // what was claimed is being taken up
	lead     time.Time // until when it leads, by this process's clock
}

// memberDo is what a member does next.
type memberDo uint8

const (
	doWait memberDo = iota
	doJoin
	doBeat
	doClaim
	doDrop // end everything that the fenced member ran, then say dropped
)

// lease is how long a member may be silent: two beats may be lost, and the third has half a heartbeat of slack.
func (s *membership) lease() time.Duration { return s.heartbeat * 5 / 2 }

// decide says what to do at a time, and for doWait how long to wait for something to happen.
func (s *membership) decide(now time.Time) (memberDo, time.Duration) {
	switch {
	case s.fenced:
		return doDrop, 0
	case now.Before(s.next) && s.member != 0 && s.orphans && s.failures == 0 && !s.claiming && !s.draining:
		return doClaim, 0
	case now.Before(s.next):
		return doWait, s.next.Sub(now)
	case s.member == 0 && s.draining:
		return doWait, s.heartbeat
	case s.member == 0:
		return doJoin, 0
	}
	return doBeat, 0
}

// wake has the next beat come at once: there may be something to do.
func (s *membership) wake(now time.Time) {
	if s.failures == 0 {
		s.next = now
	}
}

func (s *membership) joined(now time.Time, member int64, err error) {
	if err != nil {
		s.failed(now)
		return
	}
	s.member, s.failures, s.next = member, 0, now
}

// beaten takes in a beat that was sent at a time.
func (s *membership) beaten(sent, now time.Time, b Beat, err error) {
	if err != nil {
		s.lost(s.member, err)
		s.failed(now)
		return
	}
	s.failures, s.orphans = 0, b.Orphans
	s.next = sent.Add(s.heartbeat)
	if b.Next > 0 { // look when somebody's lease runs out, not a heartbeat later
		if at := now.Add(max(b.Next, s.heartbeat/20)); at.Before(s.next) {
			s.next = at
		}
	}
	s.lead = time.Time{}
	if b.Lead {
		s.lead = sent.Add(s.lease())
	}
}

// claimed takes in what a claim brought. Until adopted, nothing more is claimed: what is faster takes more.
func (s *membership) claimed(now time.Time, n, limit int, err error) {
	switch {
	case err != nil:
		s.lost(s.member, err)
		s.failed(now)
	default:
		s.claiming = n > 0
		s.orphans = n >= limit
	}
}

func (s *membership) adopted() { s.claiming = false }

// lost takes in that a member's write was refused.
func (s *membership) lost(member int64, err error) {
	if errors.Is(err, ErrFenced) && member == s.member && member != 0 {
		s.fenced, s.lead = true, time.Time{}
	}
}

// dropped ends the life of the fenced member; it joins again at once.
func (s *membership) dropped(now time.Time) {
	s.member, s.fenced, s.orphans, s.claiming, s.failures, s.next = 0, false, false, false, 0, now
}

// failed waits a little before the next try: the store is away.
func (s *membership) failed(now time.Time) {
	s.failures++
	s.next = now.Add(min(s.heartbeat/20<<min(s.failures, 5), s.heartbeat/2))
}

// current is the member for which executions are run now; 0: none, so what is started is for whoever claims it.
func (s *membership) current() int64 {
	if s.fenced {
		return 0
	}
	return s.member
}

// leads reports whether it is the one that does what one member does for all. A member whose lease has run out does not.
func (s *membership) leads(now time.Time) bool {
	return s.member != 0 && !s.fenced && now.Before(s.lead)
}
