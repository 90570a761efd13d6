package hub

import (
	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// SetHealth makes health that of its service; subscribers get it after the state.
func (h *Hub) SetHealth(health *l5pb.Health) error {
	frame, err := newFrame(&l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Health{Health: health}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topic(health.GetService())
	if t.health == nil && len(health.GetDown()) == 0 || t.health != nil && proto.Equal(t.health.message, frame.message) {
		return nil
	}
	t.health = frame
	for s := range t.subs {
		s.mark(t.service)
	}
	return nil
}
