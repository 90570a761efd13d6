// Package hub fans the state of services out to subscribers. A frame is encoded once however many subscribe; a
// subscriber keeps no queue: it remembers up to where it was served and is given the deltas from there, or a
// snapshot if those are no longer kept. A slow one therefore costs nothing but its own lag.
package hub

import (
	"sync"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// keepDeltas is how many deltas of a service are kept for subscribers that lag or resume.
const keepDeltas = 64

// Hub holds one topic per service. It is safe for concurrent use. Its calls do not block.
type Hub struct {
	complete bool

	mu     sync.Mutex
	epoch  string            // guarded by mu; of services that were never published
	topics map[string]*topic // guarded by mu
	rules  map[string]*Frame // guarded by mu; settings by service
	place  *Frame            // guarded by mu; where the device is; nil: not known
}

// topic is one service: its state and the way there. Guarded by the hub's mu.
type topic struct {
	service  string
	known    bool // whether view was published
	view     view.View
	deltas   []delta // the newest last; each starts where the one before ends
	snapshot *Frame  // of view; nil until somebody needs it
	subs     map[*Subscriber]struct{}
}

type delta struct {
	previous, revision int64
	frame              *Frame
}

// New returns an empty hub. A complete hub is one whose owner knows all services: one never published is empty.
// Otherwise subscribers of a service wait until it is published.
func New(complete bool) *Hub {
	return &Hub{complete: complete, topics: make(map[string]*topic), rules: make(map[string]*Frame)}
}

// SetEpoch names the history of services that were never published.
func (h *Hub) SetEpoch(epoch string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch = epoch
}

// Publish makes v the state of its service. Subscribers are served the delta from the state before, if change is
// given, or else a snapshot. Change must lead from the state before to v.
func (h *Hub) Publish(v view.View, change *l5pb.Delta) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topic(v.Service)
	if change != nil && t.known && t.view.Epoch == v.Epoch && t.view.Revision == change.GetPrevious() {
		frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Delta{Delta: change}})
		if err != nil {
			return err
		}
		if len(t.deltas) == keepDeltas {
			t.deltas = append(t.deltas[:0:0], t.deltas[keepDeltas/2:]...)
		}
		t.deltas = append(t.deltas, delta{previous: change.GetPrevious(), revision: change.GetRevision(), frame: frame})
	} else {
		t.deltas = nil
	}
	t.view, t.known, t.snapshot = v, true, nil
	for s := range t.subs {
		s.mark(t.service)
	}
	h.prune(t)
	return nil
}

// Forget drops the state of a service: who subscribes waits until it is published again.
func (h *Hub) Forget(service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[service]; t != nil {
		t.view, t.known, t.deltas, t.snapshot = view.View{}, false, nil, nil
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
	return t.view, true
}

// Views returns the state of every published service, in no order.
func (h *Hub) Views() []view.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]view.View, 0, len(h.topics))
	for _, t := range h.topics {
		if t.known {
			out = append(out, t.view)
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
		h.topics[service] = t
	}
	return t
}

// prune forgets a topic that holds nothing anybody could miss. Callers hold mu.
func (h *Hub) prune(t *topic) {
	if len(t.subs) == 0 && !t.known {
		delete(h.topics, t.service)
	}
}

// current returns the frame that holds the whole state of t. Callers hold mu.
func (h *Hub) current(t *topic) (*Frame, error) {
	if t.snapshot != nil {
		return t.snapshot, nil
	}
	snapshot := t.view.Snapshot()
	if !t.known {
		snapshot.Service, snapshot.Epoch = t.service, h.epoch
	}
	frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: snapshot}})
	if err != nil {
		return nil, err
	}
	t.snapshot = frame
	return frame, nil
}

// follow returns the frames that take a subscriber from (epoch, revision) to the state of t: nothing, deltas or
// a snapshot. Callers hold mu.
func (h *Hub) follow(t *topic, at position) ([]*Frame, position, error) {
	if !t.known && !h.complete {
		return nil, at, nil
	}
	now := position{served: true, epoch: t.view.Epoch, revision: t.view.Revision}
	if !t.known {
		now.epoch = h.epoch
	}
	if at == now {
		return nil, now, nil
	}
	if at.served && at.epoch == now.epoch {
		for i := range t.deltas {
			if t.deltas[i].previous == at.revision {
				frames := make([]*Frame, 0, len(t.deltas)-i)
				for _, d := range t.deltas[i:] {
					frames = append(frames, d.frame)
				}
				return frames, now, nil
			}
		}
	}
	frame, err := h.current(t)
	if err != nil {
		return nil, at, err
	}
	return []*Frame{frame}, now, nil
}

// position is up to where a subscriber was served.
type position struct {
	served   bool
	epoch    string
	revision int64
}
