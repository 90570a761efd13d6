package hub

import (
	"maps"
	"slices"
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Gate says who may call what. Known is false while the answer is not there yet. An answer stands until Recheck is called.
type Gate interface {
	Verdict(caller, service string) (allowed, known bool, reason string)
}

// Subscriber is one watch stream. Its owner calls Request for what arrives, and Frames whenever there may be something
// to send; the two may run concurrently, Frames only in one goroutine at a time.
//
//	            Request(subscribe)            verdict: allowed
//	(nothing) ---------------------> waiting -------------------> served <-+
//	    ^                               |  verdict: denied          |      | Publish: deltas, or a
//	    +------ Request(unsubscribe) ---+------> refused            +------+ snapshot after a gap
type Subscriber struct {
	hub  *Hub
	gate Gate
	turn uint64 // where in the order of services Frames begins

	mu    sync.Mutex
	wake  func()           // guarded by mu; Frames may have something to return; nil: nobody asks
	wants map[string]*want // guarded by mu
	dirty []string         // guarded by mu; wanted services with something to send
	told  []*Frame         // guarded by mu; for this subscriber alone
	place *Frame           // guarded by mu; as it was sent
}

// want is one service that a subscriber asked for, by any number of callers.
type want struct {
	at       position
	dirty    bool // it stands in the subscriber's list
	settings mark
	health   *Frame            // as it was sent
	callers  map[string]uint64 // sums of the verdicts, as they were sent or the subscriber said; 0: none
	asked    bool              // whether the gate was asked about all callers since it may have changed its mind, and knew
	allowed  bool              // what it said: whether any may call
}

// Subscriber returns a new subscriber. Close it.
func (h *Hub) Subscriber(gate Gate) *Subscriber {
	h.mu.Lock()
	turn := h.turn
	h.turn++
	h.mu.Unlock()
	return &Subscriber{
		hub: h, gate: gate, turn: turn, wants: make(map[string]*want),
	}
}

// onWake sets what is called when Frames may have something to return. It must not block, nor call the subscriber.
func (s *Subscriber) onWake(wake func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = wake
}

// Request takes a message of the subscriber.
func (s *Subscriber) Request(request *l5pb.WatchRequest) {
	for _, sub := range request.GetUnsubscribe() {
		s.drop(sub.GetService(), sub.GetCaller())
	}
	for _, sub := range request.GetSubscribe() {
		s.add(sub)
	}
}

func (s *Subscriber) add(sub *l5pb.Subscription) {
	s.hub.mu.Lock()
	t := s.hub.topic(sub.GetService())
	t.subs[s], t.told = struct{}{}, nil
	s.hub.mu.Unlock()
	s.mu.Lock()
	w := s.wants[sub.GetService()]
	if w == nil {
		w = &want{callers: make(map[string]uint64)}
		s.wants[sub.GetService()] = w
	}
	w.callers[sub.GetCaller()] = sub.GetVerdict()
	w.health, w.asked = nil, false
	w.at = position{served: sub.GetRevision() > 0, epoch: sub.GetEpoch(), revision: sub.GetRevision()}
	w.settings = mark{sub.GetEpoch(), sub.GetSettings()}
	s.mu.Unlock()
	s.mark(sub.GetService())
}

func (s *Subscriber) drop(service, caller string) {
	s.mu.Lock()
	w := s.wants[service]
	if w != nil {
		delete(w.callers, caller)
		w.asked = false
	}
	last := w != nil && len(w.callers) == 0
	if last {
		delete(s.wants, service)
	}
	s.mu.Unlock()
	if last {
		s.leave(service)
	}
}

func (s *Subscriber) leave(service string) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if t := s.hub.topics[service]; t != nil {
		delete(t.subs, s)
		t.told = nil
		s.hub.prune(t)
	}
}

// Close takes the subscriber out of the hub.
func (s *Subscriber) Close() {
	s.mu.Lock()
	services := slices.Collect(maps.Keys(s.wants))
	clear(s.wants)
	s.mu.Unlock()
	for _, service := range services {
		s.leave(service)
	}
}

// Recheck asks the gate again for everything subscribed to, after grants changed.
func (s *Subscriber) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for service, w := range s.wants {
		w.asked = false
		s.soil(service, w)
	}
	s.signal()
}

// mark says that service has something to send. It may be called under the hub's lock: the order is hub, then subscriber.
func (s *Subscriber) mark(service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.wants[service]; w != nil {
		s.soil(service, w)
	}
	s.signal()
}

// soil puts a service on the list of those with something to send. Callers hold mu.
func (s *Subscriber) soil(service string, w *want) {
	if !w.dirty {
		w.dirty = true
		s.dirty = append(s.dirty, service)
	}
}

// signal wakes the owner. Callers hold mu.
func (s *Subscriber) signal() {
	if s.wake != nil {
		s.wake()
	}
}

// Frames returns what there is to send now: verdicts and settings before the state they are about, services by name, but each
// subscriber's begin with another one.
func (s *Subscriber) Frames() (out []*Frame, err error) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	out, s.told = s.told, nil
	if s.place != s.hub.place {
		s.place = s.hub.place
		out = append(out, s.place)
	}
	for _, service := range s.inTurn() {
		w := s.wants[service]
		if w == nil || !w.dirty {
			continue // it is not wanted any more, or was dropped and asked for again
		}
		w.dirty = false
		if !w.asked {
			verdicts, err := s.verdicts(service, w)
			if err != nil {
				return nil, err
			}
			out = append(out, verdicts...)
		}
		t := s.hub.topics[service]
		if !w.allowed || t == nil {
			w.at, w.health = position{}, nil // whoever is allowed later starts from a snapshot
			continue
		}
		var settings *Frame
		if settings, w.settings = s.hub.settings(t, w.settings); settings != nil {
			out = append(out, settings)
		}
		if out, w.at, err = s.hub.follow(out, t, w.at); err != nil {
			return nil, err
		}
		if t.health != nil && t.health != w.health && w.at.served {
			w.health = t.health
			out = append(out, t.health)
		}
	}
	return out, nil
}

// inTurn returns the services with something to send, and empties their list: in order, rotated to begin at the subscriber's
// place. Who is cut off in the middle, again and again, would otherwise be told of the first services each time, and of the last
// ones never. Callers hold mu, and are through with what is returned when they let go of it.
func (s *Subscriber) inTurn() []string {
	services := s.dirty
	if len(services) < 2 {
		s.dirty = s.dirty[:0]
		return services
	}
	s.dirty = nil // most have one or two; a list of all is not to stay
	slices.Sort(services)
	const spread = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio: places of turns in a row lie far apart
	at := (s.turn * spread >> 32) % uint64(len(services))
	return slices.Concat(services[at:], services[:at])
}

// inOrder returns the keys of m in order. Most have one.
func inOrder[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	if len(keys) > 1 {
		slices.Sort(keys)
	}
	return keys
}

// verdicts asks the gate, and returns the frames of verdicts that are new or changed.
func (s *Subscriber) verdicts(service string, w *want) (out []*Frame, err error) {
	w.asked, w.allowed = true, false
	for _, caller := range inOrder(w.callers) {
		allowed, known, reason := s.gate.Verdict(caller, service)
		if !known {
			w.asked = false
			continue
		}
		w.allowed = w.allowed || allowed
		now := view.VerdictSum(allowed, reason)
		if w.callers[caller] == now {
			continue
		}
		w.callers[caller] = now
		frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Verdict{Verdict: &l5pb.Verdict{
			Service: service, Caller: caller, Allowed: allowed, Reason: reason,
		}}})
		if err != nil {
			return nil, err
		}
		out = append(out, frame)
	}
	return out, nil
}
