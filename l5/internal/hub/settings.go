package hub

import (
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// SetSettings makes settings those of their service, unless newer ones of the same epoch are known.
func (h *Hub) SetSettings(settings *l5pb.Settings) error {
	frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Settings{Settings: settings}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if have := h.rules[settings.GetService()].settings(); have != nil && have.GetEpoch() == settings.GetEpoch() && have.GetRevision() >= settings.GetRevision() {
		return nil
	}
	h.rules[settings.GetService()] = frame
	if t := h.topics[settings.GetService()]; t != nil {
		for s := range t.subs {
			s.mark(t.service)
		}
	}
	return nil
}

// SettingsOf returns the settings of a service; nil if it has none.
func (h *Hub) SettingsOf(service string) *l5pb.Settings {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rules[service].settings()
}

// Settings returns the settings of all services that have any, in no order.
func (h *Hub) Settings() []*l5pb.Settings {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*l5pb.Settings
	for _, frame := range h.rules {
		out = append(out, frame.settings())
	}
	return out
}

// SetPlace says where the device of all subscribers is.
func (h *Hub) SetPlace(place *l5pb.Place) error {
	frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Place{Place: place}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.place != nil && proto.Equal(h.place.message, frame.message) {
		return nil
	}
	h.place = frame
	for _, t := range h.topics {
		for s := range t.subs {
			s.mark(t.service)
		}
	}
	return nil
}

// SetPlace says where the device of this subscriber is, before anything else.
func (s *Subscriber) SetPlace(place *l5pb.Place) {
	frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Place{Place: place}})
	if err != nil {
		return // it is not UTF-8: there is no such place
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = frame
	s.signal()
}

// Place returns where the device is; nil if that is not known.
func (h *Hub) Place() *l5pb.Place {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.place == nil {
		return nil
	}
	return h.place.message.GetPlace()
}

func (f *Frame) settings() *l5pb.Settings {
	if f == nil {
		return nil
	}
	return f.message.GetSettings()
}

// settings returns the frame that takes a subscriber to the settings of t, if one does. Callers hold mu.
func (h *Hub) settings(t *topic, held mark) (*Frame, mark) {
	now := h.rules[t.service].settings()
	switch {
	case now == nil && (held.revision == 0 || !t.known || held.epoch == t.epoch):
		return nil, held // what it holds may be newer than what is known here
	case now == nil:
		// It holds settings of a history that is gone.
		frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Settings{Settings: &l5pb.Settings{Service: t.service, Epoch: t.epoch}}})
		if err != nil {
			return nil, held
		}
		return frame, mark{}
	case held.epoch == now.GetEpoch() && held.revision >= now.GetRevision():
		return nil, held
	}
	return h.rules[t.service], mark{now.GetEpoch(), now.GetRevision()}
}

// mark is which settings a subscriber holds.
type mark struct {
	epoch    string
	revision int64
}
