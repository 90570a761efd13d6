package drift

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"
)

// core decides what is done about the findings of one device. It is pure: it has no clock, reads no file and
// writes none. step takes what happened and answers with what is to be done; its state is what it remembers.
// The states of one subject are drawn at Status.
type core struct {
	policy   policy
	state    *State // declared; nil until the first came
	subjects map[Key]*subject
	settling map[Key]time.Time // declaration changed, device not yet seen to follow; until when repair waits
	local    map[int]Hold      // holds of this process
	served   map[string]bool   // orders that led to a repair
	spent    []time.Time       // starts of repairs in the last hour
	inflight int
	wake     time.Time // when step wants to be called again; zero: not by itself
	dirty    bool      // something reportable changed since the last report

	planted string // a bug put in by tests, to see that they find it
}

// policy is the part of Config that decides.
type policy struct {
	mode                        Mode
	modes                       map[Kind]Mode
	repairer                    bool
	confirm, settle, flapWindow time.Duration
	flapLimit, perHour          int
}

const (
	parallelRepairs = 4
	firstBackoff    = time.Second
	maxBackoff      = time.Minute
	staleAfter      = time.Second // nothing is repaired that was not seen to differ so lately
	lookEscalated   = time.Minute // how often what nothing repairs is looked at, beside what watchers notice and rescans
)

// subject is what is remembered of a path, process or port that differs or was repaired lately.
type subject struct {
	finding   Finding
	differs   bool
	shown     bool        // the finding was announced
	escalated bool        // until the declaration changes, an order comes, or it is as declared again
	inflight  bool        // a Repairer is at work
	judge     bool        // the last repair claims success: the next observation shows whether it is true
	notBefore time.Time   // of the next repair, or of judging the last
	tries     []time.Time // starts of repairs within the flap window
	seen      time.Time   // when it was last seen to differ
	looked    time.Time   // when decide last asked to have it looked at
	left      string      // what an earlier repair under this declaration left behind instead of the declared
	wake      time.Time
}

func newCore(p policy) *core {
	return &core{
		policy: p, subjects: make(map[Key]*subject), settling: make(map[Key]time.Time),
		local: make(map[int]Hold), served: make(map[string]bool),
	}
}

// What can happen.
type (
	declaredEvent struct{ state State }
	// observedEvent: these findings are all there is within the scope. names lists the subjects that may be in
	// scope, beside unexpected ones; nil means any.
	observedEvent struct {
		findings []Finding
		names    []string
		scope    func(Key, Finding) bool
	}
	repairedEvent struct {
		key Key
		err error
	}
	holdEvent struct {
		id   int
		hold *Hold // nil: the hold ends
	}
	tickEvent struct{}
)

// action is one thing to do, in order. Exactly one field is set.
type action struct {
	tell   *Event   // tell this, and only then go on
	repair *Finding // call the Repairer, then step a repairedEvent
	look   *Key     // observe this subject again, now
}

// step takes one event and answers with what is to be done.
func (c *core) step(now time.Time, event any) []action {
	s := &stepping{core: c, now: now}
	switch e := event.(type) {
	case declaredEvent:
		s.declare(e.state)
	case observedEvent:
		s.observe(e)
	case repairedEvent:
		s.repaired(e)
	case holdEvent:
		if delete(c.local, e.id); e.hold != nil {
			c.local[e.id] = *e.hold
		}
	}
	s.consider()
	return s.actions
}

// stepping is one call of step.
type stepping struct {
	*core
	now     time.Time
	actions []action
}

func (s *stepping) tell(kind EventKind, sub *subject) {
	s.dirty = true
	s.actions = append(s.actions, action{tell: &Event{At: s.now, Kind: kind, Finding: sub.finding}})
}

// declare takes a new declaration. What changed by it may settle; what is no longer declared is no drift.
func (s *stepping) declare(state State) {
	if s.state != nil {
		changes(*s.state, state, s.changed, func(key Key) {
			delete(s.settling, key)
			if sub := s.subjects[key]; sub != nil && !sub.inflight {
				s.close(sub, Reason{Code: "undeclared", Detail: "it is no longer declared"})
			}
		})
	}
	s.state, s.dirty = &state, true
}

// changes calls changed for each subject that after declares otherwise than before, and gone for each that only
// before declared.
func changes(before, after State, changed, gone func(Key)) {
	for name, f := range after.Files {
		if old, known := before.Files[name]; !known || old != f {
			changed(Key{f.kind(), name})
		}
	}
	for name, old := range before.Files {
		if f, still := after.Files[name]; !still || f.kind() != old.kind() {
			gone(Key{old.kind(), name})
		}
	}
	others := func(s State) map[Key]any {
		m := make(map[Key]any)
		for _, p := range s.Processes {
			m[Key{KindProcess, p.Name}] = p
		}
		for _, p := range s.Ports {
			m[Key{KindPort, p.subject()}] = p
		}
		return m
	}
	old, now := others(before), others(after)
	for key, p := range now {
		if was, known := old[key]; !known || !reflect.DeepEqual(was, p) {
			changed(key)
		}
	}
	for key := range old {
		if _, still := now[key]; !still {
			gone(key)
		}
	}
}

// changed forgets what was learnt of a subject under its old declaration.
func (s *stepping) changed(key Key) {
	s.settling[key] = s.now.Add(s.policy.settle)
	if sub := s.subjects[key]; sub != nil {
		sub.anew()
	}
}

// anew forgets what repairs have taught.
func (sub *subject) anew() {
	sub.tries, sub.left, sub.escalated, sub.judge, sub.notBefore = nil, "", false, false, time.Time{}
}

func (s *stepping) observe(e observedEvent) {
	seen := make(map[Key]bool, len(e.findings))
	for _, f := range e.findings {
		key := f.Key()
		seen[key] = true
		sub := s.subjects[key]
		if sub == nil {
			sub = &subject{}
			s.subjects[key] = sub
		}
		s.differs(sub, f)
	}
	for _, key := range sorted(s.subjects) {
		if sub := s.subjects[key]; !seen[key] && e.scope(key, sub.finding) && !sub.inflight {
			s.close(sub, Reason{})
		}
	}
	s.settled(e, seen)
}

// settled ends the settling of what was seen as declared: the deployment has brought it, and from here on a
// difference is drift.
func (s *stepping) settled(e observedEvent, differs map[Key]bool) {
	if len(s.settling) == 0 {
		return
	}
	end := func(key Key) {
		if !differs[key] && e.scope(key, Finding{Kind: key.Kind, Subject: key.Subject}) {
			delete(s.settling, key)
		}
	}
	if e.names == nil {
		for key := range s.settling {
			end(key)
		}
	}
	for _, name := range e.names {
		for _, kind := range Kinds() {
			if _, settles := s.settling[Key{kind, name}]; settles {
				end(Key{kind, name})
			}
		}
	}
}

// differs notes that a subject was seen to differ.
func (s *stepping) differs(sub *subject, f Finding) {
	old := sub.finding
	f.FirstSeen, f.Status, f.Verdict, f.Reason, f.Repairs = s.now, StatusOpen, Unauthorised, Reason{}, 0
	if sub.differs {
		f.FirstSeen, f.Status, f.Verdict, f.Reason, f.Repairs = old.FirstSeen, old.Status, old.Verdict, old.Reason, old.Repairs
	}
	sub.finding, sub.seen = f, s.now
	if !sub.differs {
		sub.differs = true
		return
	}
	if sub.inflight {
		return // between the parts of our own repair: what counts is what it leaves behind
	}
	if sub.judge {
		s.ineffective(sub)
		return
	}
	if sub.shown && !old.same(f) {
		s.tell(EventChanged, sub)
	}
}

// ineffective deals with a repair that claims success while the subject differs still. When two repairs leave the
// same behind, so would a third: the repairer writes what is not declared, and going on would never end.
func (s *stepping) ineffective(sub *subject) {
	if s.now.Before(sub.notBefore) {
		return // a process gets time to come up
	}
	sub.judge = false
	if sub.left == sub.finding.Actual && sub.left != "" {
		s.escalate(sub, Reason{"repair-ineffective", "two repairs succeeded and left the same behind: " + sub.left})
		return
	}
	sub.left = sub.finding.Actual
	sub.notBefore = s.now.Add(backoff(len(sub.tries)))
	sub.finding.Status = StatusOpen
	sub.finding.Reason = Reason{"repair-ineffective", "the repair succeeded and left behind: " + sub.left}
	s.tell(EventFailed, sub)
}

// close notes that a subject is as declared, or that it no longer matters.
func (s *stepping) close(sub *subject, reason Reason) {
	if sub.differs && sub.shown {
		sub.finding.Status, sub.finding.Reason = StatusGone, reason
		if sub.judge {
			sub.finding.Status, sub.finding.Verdict = StatusRepaired, Corrective
		}
		s.tell(EventClosed, sub)
	}
	*sub = subject{finding: sub.finding, tries: sub.tries}
}

func (s *stepping) repaired(e repairedEvent) {
	sub := s.subjects[e.key]
	if sub == nil || !sub.inflight {
		return
	}
	sub.inflight = false
	s.inflight--
	switch {
	case errors.Is(e.err, ErrCannotRepair):
		s.escalate(sub, Reason{"cannot-repair", e.err.Error()})
	case e.err != nil:
		sub.finding.Status = StatusOpen
		sub.finding.Reason = Reason{"repair-failed", e.err.Error()}
		sub.notBefore = s.now.Add(backoff(len(sub.tries)))
		s.tell(EventFailed, sub)
	default:
		sub.judge = true
		sub.notBefore = s.now
		if !e.key.Kind.isFile() {
			sub.notBefore = s.now.Add(s.policy.confirm)
		}
	}
	sub.looked = s.now
	s.actions = append(s.actions, action{look: &e.key})
}

func backoff(tries int) time.Duration {
	return min(firstBackoff<<min(max(tries-1, 0), 10), maxBackoff)
}

func (s *stepping) escalate(sub *subject, reason Reason) {
	sub.escalated = true
	sub.finding.Status, sub.finding.Reason = StatusEscalated, reason
	s.tell(EventEscalated, sub)
}

// consider goes over all that differs and decides what to do about it now.
func (s *stepping) consider() {
	s.spent = since(s.spent, s.now.Add(-time.Hour))
	s.wake = time.Time{}
	for _, key := range sorted(s.subjects) {
		sub := s.subjects[key]
		sub.tries = since(sub.tries, s.now.Add(-s.policy.flapWindow))
		if !sub.differs && len(sub.tries) == 0 {
			delete(s.subjects, key)
			continue
		}
		sub.wake = time.Time{}
		s.decide(key, sub)
		if !sub.wake.IsZero() && (s.wake.IsZero() || sub.wake.Before(s.wake)) {
			s.wake = sub.wake
		}
	}
}

func (s *stepping) decide(key Key, sub *subject) {
	if !sub.differs || sub.inflight {
		return
	}
	if confirmed := sub.finding.FirstSeen.Add(s.confirm(sub.finding)); !sub.shown && sub.seen.Before(confirmed) {
		if sub.wake = confirmed; !s.now.Before(confirmed) {
			s.look(key, sub)
		}
		return
	}
	order := s.order(key)
	if order != nil && order.Anew {
		s.served[order.ID] = true
		sub.anew()
		sub.finding.Status, sub.finding.Reason = StatusOpen, Reason{"reopened", order.By + ": " + order.Reason}
		if !s.show(sub) {
			s.tell(EventChanged, sub)
		}
		order = nil
	}
	if sub.escalated && order == nil {
		s.show(sub)
		last := sub.seen
		if sub.looked.After(last) {
			last = sub.looked
		}
		if s.now.Sub(last) >= lookEscalated { // its cause may be gone
			last, sub.looked = s.now, s.now
			s.actions = append(s.actions, action{look: &key})
		}
		sub.wake = last.Add(lookEscalated)
		return
	}
	status, verdict, reason, repair := s.judge(key, sub, order)
	before := sub.finding
	sub.finding.Status, sub.finding.Verdict = status, verdict
	if reason.Code != "" || status == StatusHeld || before.Status == StatusHeld {
		sub.finding.Reason = reason
	}
	if !s.show(sub) && (before.Status != status || before.Verdict != verdict || before.Reason.Code != sub.finding.Reason.Code) {
		switch {
		case status == StatusHeld:
			s.tell(EventHeld, sub)
		case before.Status == StatusHeld && !repair:
			s.tell(EventChanged, sub)
		}
	}
	switch {
	case status == StatusEscalated:
		s.escalate(sub, reason)
	case repair && s.now.Sub(sub.seen) > staleAfter:
		s.look(key, sub) // what was seen long ago may have been put right since
	case repair:
		s.repair(sub, order)
	}
}

// look asks for a subject to be observed now, and wants to be woken in case it cannot be.
func (s *stepping) look(key Key, sub *subject) {
	if s.now.Sub(sub.looked) >= staleAfter {
		sub.looked = s.now
		s.actions = append(s.actions, action{look: &key})
	}
	sub.wake = sub.looked.Add(staleAfter)
}

// show announces a finding once.
func (s *stepping) show(sub *subject) bool {
	if sub.shown {
		return false
	}
	sub.shown = true
	s.tell(EventFound, sub)
	return true
}

// judge says what a difference is to be taken for, and whether to repair it now.
func (s *stepping) judge(key Key, sub *subject, order *Order) (Status, Verdict, Reason, bool) {
	if sub.judge { // waiting for what the last repair brings
		if s.now.Before(sub.notBefore) {
			sub.wake = sub.notBefore
		} else {
			s.look(key, sub)
		}
		return sub.finding.Status, sub.finding.Verdict, sub.finding.Reason, false
	}
	if hold, ok := s.hold(key, sub); ok {
		detail := hold.Reason
		if hold.By != "" {
			detail = hold.By + ": " + detail
		}
		return StatusHeld, hold.Verdict, Reason{"hold", detail}, false
	}
	if until, settles := s.settling[key]; settles && s.now.Before(until) && order == nil {
		sub.wake = until
		return StatusHeld, Settling, Reason{"settling", "its declaration changed less than " + s.policy.settle.String() + " ago"}, false
	}
	repairs := s.mode(key.Kind) == Repair || s.planted == "repair in observe mode"
	if order == nil && !repairs || !s.policy.repairer {
		return StatusOpen, Unauthorised, Reason{}, false
	}
	switch cause, caused := s.cause(sub.finding); {
	case s.now.Before(sub.notBefore):
		sub.wake = sub.notBefore
		return StatusOpen, Unauthorised, Reason{}, false
	case caused:
		return StatusHeld, Unauthorised, Reason{"cause", "it follows from process " + cause}, false
	case order == nil && len(sub.tries) >= s.policy.flapLimit:
		return StatusEscalated, Unauthorised,
			Reason{"flapping", fmt.Sprintf("%d repairs within %v", len(sub.tries), s.policy.flapWindow)}, false
	case len(s.spent) >= s.policy.perHour:
		sub.wake = s.spent[0].Add(time.Hour)
		return StatusHeld, Unauthorised, Reason{"rate", fmt.Sprintf("%d repairs in the last hour", len(s.spent))}, false
	}
	return StatusOpen, Unauthorised, Reason{}, s.inflight < parallelRepairs
}

// repair announces what will be done, and then has it done.
func (s *stepping) repair(sub *subject, order *Order) {
	if order != nil {
		s.served[order.ID] = true
	}
	sub.escalated = false
	sub.inflight = true
	s.inflight++
	sub.tries = append(sub.tries, s.now)
	s.spent = append(s.spent, s.now)
	sub.finding.Repairs++
	sub.finding.Status, sub.finding.Reason = StatusRepairing, Reason{"mode", "mode is repair"}
	if order != nil {
		sub.finding.Reason = Reason{"order", order.By + ": " + order.Reason}
	}
	s.tell(EventIntent, sub)
	f := sub.finding
	s.actions = append(s.actions, action{repair: &f})
	if n := len(s.actions); s.planted == "repair before intent" {
		s.actions[n-1], s.actions[n-2] = s.actions[n-2], s.actions[n-1]
	}
}

// confirm is how long a difference must last to be a finding: files that nobody has declared may be on their way to
// another name.
func (c *core) confirm(f Finding) time.Duration {
	if f.Kind.isFile() {
		if !f.has(FieldUnexpected) || c.state != nil && c.state.Files[f.Subject].Type == Absent {
			return 0
		}
	}
	return c.policy.confirm
}

// hold returns the first hold on key that is in force.
func (s *stepping) hold(key Key, sub *subject) (Hold, bool) {
	holds := make([]Hold, 0, len(s.local))
	for _, id := range slices.Sorted(maps.Keys(s.local)) {
		holds = append(holds, s.local[id])
	}
	if s.state != nil {
		holds = append(holds, s.state.Holds...)
	}
	for _, h := range holds {
		if !covers(h.Kind, h.Subject, key) || !h.Until.IsZero() && !s.now.Before(h.Until) {
			continue
		}
		if h.Verdict == "" {
			h.Verdict = Deploying
		}
		sub.wake = h.Until
		return h, true
	}
	return Hold{}, false
}

// order returns an order for key that has not been served.
func (s *stepping) order(key Key) *Order {
	if s.state == nil {
		return nil
	}
	for i, o := range s.state.Orders {
		if o.Kind == key.Kind && o.Subject == key.Subject && !s.served[o.ID] {
			return &s.state.Orders[i]
		}
	}
	return nil
}

// cause names the process whose absence explains that a port is silent.
func (s *stepping) cause(f Finding) (string, bool) {
	if f.Port == nil || f.Port.Process == "" {
		return "", false
	}
	sub := s.subjects[Key{KindProcess, f.Port.Process}]
	return f.Port.Process, sub != nil && sub.differs
}

func (c *core) mode(kind Kind) Mode {
	if c.state != nil {
		if m := c.state.Modes[kind]; m != "" {
			return m
		}
	}
	if m := c.policy.modes[kind]; m != "" {
		return m
	}
	return c.policy.mode
}

// open lists the announced findings that are not closed, in order.
func (c *core) open() []Finding {
	var out []Finding
	for _, key := range sorted(c.subjects) {
		if sub := c.subjects[key]; sub.differs && sub.shown {
			out = append(out, sub.finding)
		}
	}
	return out
}

func sorted(subjects map[Key]*subject) []Key {
	return slices.SortedFunc(maps.Keys(subjects), Key.compare)
}

// since drops the times up to start.
func since(times []time.Time, start time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(start) {
		times = times[1:]
	}
	return times
}
