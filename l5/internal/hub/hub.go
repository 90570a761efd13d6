// Package hub fans the state of services out to subscribers. A frame is encoded once however many subscribe; a
// subscriber keeps no queue: it remembers up to where it was served and is given the deltas from there, or a
// snapshot if those are no longer kept. A slow one therefore costs nothing but its own lag.
package hub

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"weak"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// keepDeltas is how many deltas of a service are kept for subscribers that lag or resume.
const keepDeltas = 64

// Hub holds one topic per service. It is safe for concurrent use. Its calls do not block.
type Hub struct {
	source Source                                 // nil: the hub holds the state that was published, or
	read   func(service string) (view.View, bool) // it is read from where it is kept; nil: the hub holds it

	mu     sync.Mutex
	topics map[string]*topic // guarded by mu
	rules  map[string]*Frame // guarded by mu; settings by service
	place  *Frame            // guarded by mu; where the device is; nil: not known
	turn   uint64            // guarded by mu; how many subscribers there were
}

// Source holds the state of all services for a hub that does not. The hub calls it under its own lock: a source must not
// call the hub while it holds one that these calls take.
type Source interface {
	// State returns where a service stands. One that never had an instance is at revision 0, and empty.
	State(service string) (epoch string, revision int64)
	// Snapshot returns a service's whole state as an encoded WatchResponse, and where it stands.
	Snapshot(service string) (data []byte, epoch string, revision int64)
}

// topic is one service: its state and the way there. Guarded by the hub's mu.
type topic struct {
	service  string
	known    bool // whether there is a state
	epoch    string
	revision int64
	view     view.View           // the state, if the hub holds it
	deltas   []delta             // the newest last; each starts where the one before ends
	snapshot *Frame              // of the state; nil until somebody needs it
	recent   weak.Pointer[Frame] // the same, of a state that is kept elsewhere
	health   *Frame              // nil: nobody ever doubted an instance
	subs     map[*Subscriber]struct{}
	told     []*Subscriber // subs, as a list that is never changed; nil: not made
}

type delta struct {
	previous, revision int64
	frame              *Frame
}

// New returns an empty hub. Subscribers of a service wait until it is published.
func New() *Hub { return &Hub{topics: make(map[string]*topic), rules: make(map[string]*Frame)} }

// Over returns a hub that holds no state: it asks source for that of the services that somebody watches, and is told
// of changes by Announce.
func Over(source Source) *Hub {
	h := New()
	h.source = source
	return h
}

// Reading returns a hub that holds no state: read returns that of a service from where it is kept, which is the one published
// last or a newer one; false if it cannot be read: then its subscribers wait for the next. The hub calls it under its own lock.
func Reading(read func(service string) (view.View, bool)) *Hub {
	h := New()
	h.read = read
	return h
}

// Announce says that the source has moved a service from the revision previous of one epoch on to revision. Encode, which
// is called at most once and before Announce returns, encodes the delta; nil: there is none.
func (h *Hub) Announce(service, epoch string, previous, revision int64, encode func() []byte) {
	tell(service, h.announce(service, epoch, previous, revision, encode))
}

func (h *Hub) announce(service, epoch string, previous, revision int64, encode func() []byte) []*Subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[service]
	if t == nil || t.epoch == epoch && revision <= t.revision {
		return nil // nobody watches, or whoever does was given a snapshot that has it
	}
	if encode != nil && t.epoch == epoch && t.revision == previous {
		t.keep(delta{previous: previous, revision: revision, frame: frameOf(encode())})
	} else {
		t.deltas = nil
	}
	t.known, t.epoch, t.revision = true, epoch, revision
	return t.published()
}

// Reset says that the source has begun another epoch: all that was served is of another history.
func (h *Hub) Reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		t.epoch, t.revision = h.source.State(t.service)
		t.deltas = nil
		for _, s := range t.published() {
			s.mark(t.service)
		}
	}
}

// Publish makes v the state of its service. Subscribers are served the delta from the state before, if change is
// given, or else a snapshot. Change must lead from the state before to v.
func (h *Hub) Publish(v view.View, change *l5pb.Delta) error {
	subs, err := h.publish(v, change)
	tell(v.Service, subs)
	return err
}

func (h *Hub) publish(v view.View, change *l5pb.Delta) ([]*Subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topic(v.Service)
	if change != nil && t.known && t.epoch == v.Epoch && t.revision == change.GetPrevious() {
		frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Delta{Delta: change}})
		if err != nil {
			return nil, err
		}
		t.keep(delta{previous: change.GetPrevious(), revision: change.GetRevision(), frame: frame})
	} else {
		t.deltas = nil
	}
	t.known, t.epoch, t.revision = true, v.Epoch, v.Revision
	if h.read == nil {
		t.view = v
	}
	return t.published(), nil
}

// keep remembers d for those that lag or resume, and forgets the oldest.
func (t *topic) keep(d delta) {
	if len(t.deltas) == keepDeltas {
		t.deltas = append(t.deltas[:0:0], t.deltas[keepDeltas/2:]...)
	}
	t.deltas = append(t.deltas, d)
}

// published notes that t moved, and returns who is to be told.
func (t *topic) published() []*Subscriber {
	t.snapshot, t.recent = nil, weak.Pointer[Frame]{}
	if t.told == nil && len(t.subs) > 0 {
		t.told = slices.Collect(maps.Keys(t.subs))
	}
	return t.told
}

// tell says that service moved. It is called without the hub's lock, which is the first thing that those who were told take: they
// would wait for one another until the last was told.
func tell(service string, subs []*Subscriber) {
	for _, s := range subs {
		s.mark(service)
	}
}

// Recheck asks the gates of all subscribers again, after grants changed.
func (h *Hub) Recheck() {
	h.mu.Lock()
	subs := make(map[*Subscriber]struct{})
	for _, t := range h.topics {
		for s := range t.subs {
			subs[s] = struct{}{}
		}
	}
	h.mu.Unlock()
	for s := range subs {
		s.Recheck()
	}
}

// Forget drops the state of a service: who subscribes waits until it is published again.
func (h *Hub) Forget(service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.rules, service)
	if t := h.topics[service]; t != nil {
		t.view, t.known, t.epoch, t.revision = view.View{}, false, "", 0
		t.deltas, t.snapshot, t.recent, t.health = nil, nil, weak.Pointer[Frame]{}, nil
		h.prune(t)
	}
}

// View returns the state of a service, if it was published.
func (h *Hub) View(service string) (view.View, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[service]
	if t == nil || !t.known {
		return view.View{}, false
	}
	if h.read != nil {
		return h.read(service)
	}
	return t.view, true
}

// Services returns the name of every published service, in no order.
func (h *Hub) Services() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]string, 0, len(h.topics))
	for _, t := range h.topics {
		if t.known {
			out = append(out, t.service)
		}
	}
	return out
}

// Subscribers returns how many subscribers a service has.
func (h *Hub) Subscribers(service string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[service]; t != nil {
		return len(t.subs)
	}
	return 0
}

// topic returns the topic of service, a new one if need be. Callers hold mu.
func (h *Hub) topic(service string) *topic {
	t := h.topics[service]
	if t == nil {
		t = &topic{service: service, subs: make(map[*Subscriber]struct{})}
		if h.source != nil {
			t.known = true
			t.epoch, t.revision = h.source.State(service)
		}
		h.topics[service] = t
	}
	return t
}

// prune forgets a topic that holds nothing anybody could miss. Callers hold mu.
func (h *Hub) prune(t *topic) {
	if len(t.subs) == 0 && (!t.known || h.source != nil && len(t.deltas) == 0) {
		delete(h.topics, t.service)
	}
}

// current returns the frame that holds the whole state of t, and where that stands; none if it cannot be read. Callers hold mu.
func (h *Hub) current(t *topic) (*Frame, position, error) {
	at := position{served: true, epoch: t.epoch, revision: t.revision}
	if t.snapshot != nil {
		return t.snapshot, at, nil
	}
	if h.source != nil {
		data, epoch, revision := h.source.Snapshot(t.service)
		frame, now := frameOf(data), position{served: true, epoch: epoch, revision: revision}
		if now == at {
			t.snapshot = frame
		} // else the source is ahead, and the announcement on its way
		return frame, now, nil
	}
	if h.read != nil {
		return h.reread(t)
	}
	frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: t.view.Snapshot()}})
	if err != nil {
		return nil, position{}, err
	}
	t.snapshot = frame
	return frame, at, nil
}

// reread is current of a state that is kept elsewhere. The frame is shared for as long as somebody sends it, and not kept: it
// would be a second copy of all that is watched. Callers hold mu.
func (h *Hub) reread(t *topic) (*Frame, position, error) {
	at := position{served: true, epoch: t.epoch, revision: t.revision}
	if frame := t.recent.Value(); frame != nil {
		return frame, at, nil
	}
	v, ok := h.read(t.service)
	if !ok {
		return nil, position{}, nil
	}
	data, err := proto.Marshal(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: v.Snapshot()}})
	if err != nil {
		return nil, position{}, fmt.Errorf("encode a frame: %w", err)
	}
	frame, now := frameOf(data), position{served: true, epoch: v.Epoch, revision: v.Revision}
	if now == at {
		t.recent = weak.Make(frame)
	} // else what is kept is ahead, and its publication on its way
	return frame, now, nil
}

// follow appends the frames that take a subscriber from where it is to the state of t: nothing, deltas or a snapshot.
// One that is ahead was served elsewhere, and waits until this hub has come as far. Callers hold mu.
func (h *Hub) follow(out []*Frame, t *topic, at position) ([]*Frame, position, error) {
	if !t.known {
		return out, at, nil
	}
	if at.served && at.epoch == t.epoch {
		if at.revision >= t.revision {
			return out, at, nil
		}
		for i := range t.deltas {
			if t.deltas[i].previous == at.revision {
				for _, d := range t.deltas[i:] {
					out = append(out, d.frame)
				}
				return out, position{served: true, epoch: t.epoch, revision: t.revision}, nil
			}
		}
	}
	frame, now, err := h.current(t)
	if err != nil || frame == nil {
		return out, at, err
	}
	return append(out, frame), now, nil
}

// position is up to where a subscriber was served.
type position struct {
	served   bool
	epoch    string
	revision int64
}
