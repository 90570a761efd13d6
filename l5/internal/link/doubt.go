package link

import "github.com/zhiyun-ops/zhiyun/l5/l5pb"

// maxDoubts bounds the doubts that wait to be sent: beyond it the peer knows enough.
const maxDoubts = 100

// Doubt tells the peer of an instance that fails, if it takes doubts.
func (l *Link) Doubt(d *l5pb.Doubt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.sharing || len(l.doubts) >= maxDoubts {
		return
	}
	l.doubts = append(l.doubts, d)
	l.signal()
}

// health takes what the peer found out. One without a service says that it takes doubts.
func (l *Link) health(health *l5pb.Health) {
	l.mu.Lock()
	l.sharing = true
	wanted := l.wanted(health.GetService())
	l.mu.Unlock()
	if wanted && l.config.OnHealth != nil {
		l.config.OnHealth(health)
	}
}
