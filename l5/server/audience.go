package server

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// Audience is who calls a service, as far as this server knows: programs that watch its instances and may call it. Who
// watches and reports no outcome is idle, or is not heard; who broke off may be calling still, from memory.
type Audience struct {
	Service  string
	Watching int // callers on live watch streams, once per stream
	Lost     int // those whose stream ended without their leaving, and that have not come back
}

// lostFor is how long a caller that broke off counts while others of the service are heard. When nobody is, it counts
// until somebody is.
const lostFor = time.Hour

// audience counts who watches what.
//
//	          subscribe               unsubscribe, or the peer closes its side
//	(nobody) -----------> watching ------------------------------------------> (nobody)
//	                        ^   |  the stream breaks                              ^
//	                        |   +-------------------> lost -----------------------+
//	                        +-- subscribe ------------+    lostFor, while others watch
type audience struct {
	mu    sync.Mutex
	pairs map[string]map[string]*listeners // guarded by mu; service, caller
}

// listeners are the streams of one caller of one service, by all agents.
type listeners struct {
	watching, lost int
	since          time.Time // of the last loss
}

func newAudience() *audience { return &audience{pairs: make(map[string]map[string]*listeners)} }

// listener is one watch stream. It is for one goroutine.
type listener struct {
	audience *audience
	pairs    map[[2]string]struct{}
}

func (a *audience) listener() *listener {
	return &listener{audience: a, pairs: make(map[[2]string]struct{})}
}

// take counts what the stream asks for.
func (l *listener) take(request *l5pb.WatchRequest) {
	l.audience.mu.Lock()
	defer l.audience.mu.Unlock()
	for _, want := range request.GetUnsubscribe() {
		pair := [2]string{want.GetService(), want.GetCaller()}
		if _, counted := l.pairs[pair]; counted {
			delete(l.pairs, pair)
			l.audience.leave(pair, time.Time{})
		}
	}
	for _, want := range request.GetSubscribe() {
		pair := [2]string{want.GetService(), want.GetCaller()}
		if _, counted := l.pairs[pair]; counted {
			continue
		}
		l.pairs[pair] = struct{}{}
		callers := l.audience.pairs[pair[0]]
		if callers == nil {
			callers = make(map[string]*listeners)
			l.audience.pairs[pair[0]] = callers
		}
		if callers[pair[1]] == nil {
			callers[pair[1]] = &listeners{}
		}
		callers[pair[1]].watching++
		callers[pair[1]].lost = max(callers[pair[1]].lost-1, 0) // whoever was lost is likely back
	}
}

// end takes the stream out; a zero lost says that the peer closed it.
func (l *listener) end(lost time.Time) {
	l.audience.mu.Lock()
	defer l.audience.mu.Unlock()
	for pair := range l.pairs {
		l.audience.leave(pair, lost)
	}
	clear(l.pairs)
}

// leave takes one stream of a pair away. Callers hold mu.
func (a *audience) leave(pair [2]string, lost time.Time) {
	callers := a.pairs[pair[0]]
	who := callers[pair[1]]
	who.watching--
	if !lost.IsZero() {
		who.lost++
		who.since = lost
	}
	a.prune(pair[0], pair[1])
}

// prune forgets a pair that nobody is of. Callers hold mu.
func (a *audience) prune(service, caller string) {
	if who := a.pairs[service][caller]; who.watching == 0 && who.lost == 0 {
		delete(a.pairs[service], caller)
		if len(a.pairs[service]) == 0 {
			delete(a.pairs, service)
		}
	}
}

// list returns every service that has an audience, by name. Callers that may not call it are none.
func (a *audience) list(now time.Time, grants Grants) []Audience {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Audience, 0, len(a.pairs))
	for service, callers := range a.pairs {
		sum := Audience{Service: service}
		for caller, who := range callers {
			if grants.MayCall(caller, service) {
				sum.Watching += who.watching
			}
		}
		for caller, who := range callers {
			if sum.Watching > 0 && who.lost > 0 && now.Sub(who.since) >= lostFor {
				who.lost = 0
				a.prune(service, caller)
			}
			if grants.MayCall(caller, service) {
				sum.Lost += who.lost
			}
		}
		if sum.Watching+sum.Lost > 0 {
			out = append(out, sum)
		}
	}
	slices.SortFunc(out, func(a, b Audience) int { return strings.Compare(a.Service, b.Service) })
	return out
}

// Audience returns every service that somebody watches, or watched when its stream broke off, by name.
func (s *Server) Audience() []Audience { return s.audience.list(s.config.now(), s.config.Grants) }
