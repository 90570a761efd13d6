package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

const (
	// probeGap is the least time between two probes of an instance on somebody's word, and the time between the probes of
	// an instance on trial.
	probeGap = 250 * time.Millisecond
	// witnessFor is how long a process's testimony counts.
	witnessFor = 10 * time.Second
	// quorum is how many processes must have ejected an instance for the others to shun it although it answers probes.
	quorum = 3
	// maxWitnesses is how many processes of one party are heard about one instance at a time.
	maxWitnesses = 2 * quorum
	// maxText is how many bytes are kept of why a process doubts an instance: it may say anything, and it is told to all.
	maxText = 512
	// hangingShare is of how many instances no more than one may be waited for: if more are, what is slow is something else.
	hangingShare = 4
	// recess is how long after the last doubt a jury remembers how often it has ejected.
	recess = time.Minute
)

// jury decides for all processes of a device which instances of one service take no calls. It is pure.
//
//	               doubt by a process                  the agent's probe fails, or quorum processes
//	trusted ---------------------------> in question ------------------------------------------------> down
//	   ^                                     |                                                          |
//	   +---- the probe succeeds -------------+                               its time is over: probed, each
//	   ^                                                                     failure doubles the time   |
//	   +------- further probes succeed ------------- on trial <------- a probe succeeds ----------------+
//
// What one process says is believed only as far as the agent's own probe agrees. Quorum processes are believed, within
// witnessFor, unless all of them are of one party while others call the service, too: anybody can start three processes. They
// are believed that an instance answers probes and yet serves nobody, if each ejected it or had two time-outs in a row; that
// it answers nobody, if each had a time-out and the probe has no answer yet either; and that it hangs, if each waits for an
// answer for far longer than the peers take, while no more than one in four of the service's instances is waited for so. How long an instance is down, and how
// much of a service may be (I2), is balance.Group's, with probes in the place of calls.
type jury struct {
	group   *balance.Group
	seats   map[string]*seat // by address; instances in question, down or on trial
	known   map[string]bool  // the membership
	doubted time.Time        // when somebody last had a doubt
	parties int              // who called the service then

	plantedBug string // set by tests alone: a simulation that cannot fail proves nothing
}

// seat is one instance in question.
type seat struct {
	health    balance.Health
	witnesses map[int]witness // by process
	text      string          // of the last doubt
	probed    time.Time       // when the last probe began
	probing   bool
	pending   bool // a doubt came that no probe has answered
	hung      bool // it was ejected because it hangs, and is not back yet
}

// juror is a process of the device, and for whom it speaks: a party is a user, and the module of the process if that is
// known.
type juror struct {
	process int
	party   string
}

// witness is what one process said.
type witness struct {
	party   string
	at      time.Time
	certain bool // it ejected the instance, or had two time-outs in a row; else it had one
	waits   bool // it had none, and waits for an answer: this alone is taken back when one comes
}

// sentence is what is to be done after a step.
type sentence struct {
	probes []string // instances to probe; each is answered by probed
	moved  []balance.Moved
	// reweighed says that downs may differ.
	reweighed bool
}

func newJury(config balance.Config) *jury {
	return &jury{group: balance.NewGroup(config), seats: make(map[string]*seat)}
}

// replace takes the membership.
func (j *jury) replace(now time.Time, members balance.Members) sentence {
	j.known = make(map[string]bool, len(members))
	for _, m := range members {
		j.known[m.Addr] = true
	}
	for addr := range j.seats {
		if !j.known[addr] {
			delete(j.seats, addr)
		}
	}
	return j.step(now, members)
}

// doubt takes a process's word. parties is how many call the service from the device now.
func (j *jury) doubt(now time.Time, who juror, parties int, d *l5pb.Doubt) sentence {
	if !j.known[d.GetAddr()] {
		return sentence{}
	}
	j.doubted = now
	s := j.seat(d.GetAddr())
	timedOut, stalled := d.GetKind() == l5pb.Doubt_KIND_TIMED_OUT, d.GetKind() == l5pb.Doubt_KIND_STALLED
	before, known := s.witnesses[who.process]
	if stalled && d.GetRow() == 0 {
		if before.waits {
			delete(s.witnesses, who.process)
		}
		return sentence{}
	}
	if d.GetEjected() || timedOut || stalled {
		w := witness{
			party: who.party, at: now, certain: d.GetEjected() || timedOut && d.GetRow() >= 2 || before.certain,
			waits: stalled && !d.GetEjected() && (!known || before.waits),
		}
		if known || s.room(w) {
			s.witnesses[who.process] = w
		}
	}
	s.text, s.pending = strings.Clone(strings.ToValidUTF8(d.GetText()[:min(len(d.GetText()), maxText)], "")), true
	j.parties = parties
	said := j.count(now, s)
	if said.any >= quorum && timedOut && s.probing && s.health == balance.Up {
		return j.step(now, balance.Struck{Addr: d.GetAddr(), Evidence: fmt.Sprintf("%d processes had time-outs, and the agent's probe has no answer yet", said.any)})
	}
	if said.hung >= quorum && stalled && s.health == balance.Up && j.hanging(now) <= max(1, len(j.known)/hangingShare) {
		s.hung = true
		return j.step(now, balance.Struck{Addr: d.GetAddr(), Evidence: fmt.Sprintf("%d processes wait for far longer than its peers take, the last for: %s", said.hung, s.text)})
	}
	if !s.probing && now.Sub(s.probed) < probeGap {
		return j.verdict(now, d.GetAddr(), s) // it has just answered
	}
	if s.due(now) {
		return sentence{probes: []string{d.GetAddr()}}
	}
	return sentence{}
}

// probed takes the answer of a probe; err is nil if the instance answered.
func (j *jury) probed(now time.Time, addr string, err error) sentence {
	s := j.seats[addr]
	if s == nil {
		return sentence{}
	}
	s.probing = false
	switch health := s.health; {
	case health == balance.Probing:
		return j.step(now, balance.Probed{Addr: addr, OK: err == nil})
	case health == balance.Trial && err == nil:
		return j.step(now, balance.Window{{Addr: addr, Successes: 1}})
	case health == balance.Trial:
		return j.step(now, balance.Window{{Addr: addr, Failures: 1}})
	case health == balance.Up && err != nil:
		return j.step(now, balance.Struck{Addr: addr, Evidence: fmt.Sprintf("the agent's probe failed: %v", err)})
	}
	return j.verdict(now, addr, s)
}

// verdict decides about an instance that answers probes.
func (j *jury) verdict(now time.Time, addr string, s *seat) sentence {
	certain := j.count(now, s).certain
	if s.health != balance.Up || certain < quorum && j.plantedBug != "one word is believed" || certain == 0 {
		return sentence{}
	}
	clear(s.witnesses) // for the next time they have to say it again
	return j.step(now, balance.Struck{Addr: addr, Evidence: fmt.Sprintf("%d processes shun it although it answers probes, the last for: %s", certain, s.text)})
}

// room reports whether one more may testify; who is certain takes the place of one of its party that is not. Without that the first
// to have had one time-out each would keep those from being heard who had several.
func (s *seat) room(w witness) bool {
	if s.heard(w.party) < maxWitnesses {
		return true
	}
	for process, other := range s.witnesses {
		if w.certain && other.party == w.party && !other.certain {
			delete(s.witnesses, process)
			return true
		}
	}
	return false
}

// heard counts the processes of a party that testify.
func (s *seat) heard(party string) (n int) {
	for _, w := range s.witnesses {
		if w.party == party {
			n++
		}
	}
	return n
}

// testimony is how many processes testify.
type testimony struct {
	certain int // that it serves nobody
	any     int // those, and who had a time-out
	hung    int // those, and who waits
}

// count forgets testimony that is old, and returns how many processes testify: one of each, if they are all of one party and
// it is not alone.
func (j *jury) count(now time.Time, s *seat) (said testimony) {
	heard, sure, waiting := make(map[string]int), make(map[string]int), make(map[string]int)
	for process, w := range s.witnesses {
		if now.Sub(w.at) > witnessFor {
			delete(s.witnesses, process)
			continue
		}
		if w.certain {
			sure[w.party]++
			said.certain++
		}
		if !w.waits {
			heard[w.party]++
			said.any++
		}
		waiting[w.party]++
		said.hung++
	}
	if j.parties > 1 && j.plantedBug != "processes of one party count" {
		if len(heard) == 1 {
			said.any = 1
		}
		if len(sure) == 1 {
			said.certain = 1
		}
		if len(waiting) == 1 {
			said.hung = 1
		}
	}
	return said
}

// hanging is for how many instances more than one process waits, or did when they were ejected for it: a device that stands still again and
// again must not eject a few each time.
func (j *jury) hanging(now time.Time) (n int) {
	for _, s := range j.seats {
		if s.hung || s.health == balance.Up && j.count(now, s).hung > 1 {
			n++
		}
	}
	return n
}

// tick lets time go by: it asks for the probes that are due.
func (j *jury) tick(now time.Time) sentence {
	var out sentence
	if next, ok := j.group.Next(); ok && !now.Before(next) {
		out = j.step(now, balance.Tick{})
	}
	for addr, s := range j.seats {
		if s.due(now) {
			out.probes = append(out.probes, addr)
		}
		if s.health == balance.Up && !s.pending && !s.probing && j.count(now, s).hung == 0 {
			delete(j.seats, addr)
		}
	}
	slices.Sort(out.probes)
	return out
}

// due reports whether an instance that is on trial or in question is to be probed now; it then counts as being probed.
func (s *seat) due(now time.Time) bool {
	wanted := s.health == balance.Trial || s.health == balance.Up && s.pending
	if !wanted || s.probing || now.Sub(s.probed) < probeGap {
		return false
	}
	s.probing, s.pending, s.probed = true, false, now
	return true
}

func (j *jury) step(now time.Time, event balance.Event) (out sentence) {
	for _, action := range j.group.Step(now, event) {
		switch a := action.(type) {
		case balance.Probe:
			s := j.seat(a.Addr)
			s.probing, s.pending, s.probed = true, false, now
			out.probes = append(out.probes, a.Addr)
		case balance.Moved:
			s := j.seat(a.Addr)
			s.health = a.To
			s.hung = s.hung && a.To != balance.Up
			out.moved, out.reweighed = append(out.moved, a), true
		case balance.Reweighed:
			out.reweighed = true
		}
	}
	return out
}

// seat returns the seat of an instance, a new one if need be.
func (j *jury) seat(addr string) *seat {
	s := j.seats[addr]
	if s == nil {
		s = &seat{witnesses: make(map[int]witness)}
		j.seats[addr] = s
	}
	return s
}

// downs returns what takes no calls: down or not yet fit for a call, and not kept in use for want of others. Callers bound
// what they follow of it themselves, too, together with what they eject on their own.
func (j *jury) downs() []*l5pb.Down {
	var out []*l5pb.Down
	for _, status := range j.group.Statuses() {
		if status.Health != balance.Up && (!status.Kept || j.plantedBug == "nothing is kept") {
			out = append(out, &l5pb.Down{Addr: status.Addr, Reason: strings.ToValidUTF8(status.Reason, "?")})
		}
	}
	slices.SortFunc(out, func(a, b *l5pb.Down) int { return strings.Compare(a.Addr, b.Addr) })
	return out
}

// idle reports whether nothing is in question any more, and nothing to remember.
func (j *jury) idle(now time.Time) bool { return len(j.seats) == 0 && now.Sub(j.doubted) > recess }
