package hub

import "github.com/zhiyun-ops/zhiyun/l5/l5pb"

// maxTold bounds what waits for one subscriber that does not read.
const maxTold = 16

// Tell sends a message to this subscriber alone, before all else; false if too many wait already.
func (s *Subscriber) Tell(message *l5pb.WatchResponse) bool {
	frame, err := newFrame(message)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.told) == maxTold {
		return false
	}
	s.told = append(s.told, frame)
	s.signal()
	return true
}

// Wants reports whether the subscriber has asked for a service.
func (s *Subscriber) Wants(service string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wants[service] != nil
}
