package server

import "time"

// Leaving is what callers were last heard to do with an instance that is to take no more calls, so that whoever stops it knows
// when it may.
type Leaving struct {
	// Busy is when a caller last told of a call to it that had not ended. Callers tell so with each report, as long as there is one, of
	// instances that take no more calls: who told so last and is silent since still has it, until it is taken for gone. Zero: none has, in
	// the time that reporters are remembered.
	Busy time.Time
	// Unheard is how many reporters (agents, and programs without one) called the service not long before the time asked about and were
	// not heard since: they may know nothing of the change, and call on. One that is silent for longer than unheardFor is taken for gone.
	Unheard int
}

const (
	// activeFor is how long before a change calls to the service count: a caller that made none for so long is not waited for.
	activeFor = 30 * time.Second
	// unheardFor is how long a reporter may be silent: three times as long as one that makes no calls at all is between two reports.
	unheardFor = 15 * time.Second
)

// Leaving says what is known of an instance at now, since callers could know of a change. It knows what was reported to this server since it runs; an
// agent that reports to another server of the store is not known here.
func (s *Server) Leaving(service, addr string, since time.Time) Leaving {
	return s.intake.leaving(s.config.now(), service, addr, since)
}

func (in *intake) leaving(now time.Time, service, addr string, since time.Time) Leaving {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := [2]string{service, addr}
	out := Leaving{Busy: in.busy[key]}
	for _, r := range in.reporters {
		if _, busy := r.busy[key]; busy && now.Sub(r.told) < unheardFor {
			out.Busy = now
		}
	}
	if now.Sub(since) > unheardFor {
		return out
	}
	for _, r := range in.reporters {
		if h := r.services[service]; h.heard.Before(since) && since.Sub(h.active) < activeFor {
			out.Unheard++
		}
	}
	return out
}

// hearing is when a reporter told of a service.
type hearing struct {
	heard  time.Time // of it at all
	active time.Time // that it had called it
}

// hear notes what a reporter tells of services and instances that exist: whatever else it names is not waited for, and costs no memory.
// Callers hold mu.
func (in *intake) hear(r *reporter, service, addr string, requests, inFlight int64, now time.Time) {
	ofService, ofInstance := in.exists(service, addr)
	if !ofService {
		return
	}
	h := r.services[service]
	h.heard = now
	if requests > 0 {
		h.active = now
	}
	if r.services == nil {
		r.services = make(map[string]hearing, 1)
	}
	r.services[service] = h
	if !r.told.Equal(now) {
		r.told, r.busy = now, nil // another batch
	}
	if inFlight > 0 && ofInstance {
		if r.busy == nil {
			r.busy = make(map[[2]string]struct{}, 1)
		}
		r.busy[[2]string{service, addr}] = struct{}{}
		in.busy[[2]string{service, addr}] = now
	}
}

// forgetHeard drops what is too old to matter. Callers hold mu.
func (in *intake) forgetHeard(now time.Time) {
	for _, r := range in.reporters {
		for service, h := range r.services {
			if now.Sub(h.heard) > reporterMemory {
				delete(r.services, service)
			}
		}
	}
	for key, at := range in.busy {
		if now.Sub(at) > reporterMemory {
			delete(in.busy, key)
		}
	}
}
