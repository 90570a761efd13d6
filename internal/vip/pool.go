package vip

import (
	"cmp"
	"slices"
	"time"
)

// pool is the real servers of one virtual address, without clock or sockets.
//
//	        add           refused                 remove
//	(none) -----> up <==============> down      up, down -----> draining -----> (none)
//	                tried again, answered           ^ add            | no connection left, or time over
//	                                                +----------------+
type pool struct {
	minDown, maxDown time.Duration
	members          []*member // by address
}

type member struct {
	addr        string
	weight      int
	current     int // of the smooth weighted round robin
	connections int
	total       int64
	draining    bool
	drainUntil  time.Time
	failures    int       // in a row
	downUntil   time.Time // while failures > 0: not before then
}

func (p *pool) find(addr string) *member {
	i := slices.IndexFunc(p.members, func(m *member) bool { return m.addr == addr })
	if i < 0 {
		return nil
	}
	return p.members[i]
}

func (p *pool) add(addr string, weight int) {
	m := p.find(addr)
	if m == nil {
		m = &member{addr: addr}
		p.members = append(p.members, m)
		slices.SortFunc(p.members, func(a, b *member) int { return cmp.Compare(a.addr, b.addr) })
	}
	m.weight, m.draining = weight, false
}

// drain stops new connections to addr.
func (p *pool) drain(now time.Time, addr string, limit time.Duration) {
	if m := p.find(addr); m != nil && !m.draining {
		m.draining, m.drainUntil = true, now.Add(limit)
	}
}

// sweep removes the drained servers that have no connection left, or no time.
func (p *pool) sweep(now time.Time) (removed []*member) {
	p.members = slices.DeleteFunc(p.members, func(m *member) bool {
		gone := m.draining && (m.connections == 0 || !now.Before(m.drainUntil))
		if gone {
			removed = append(removed, m)
		}
		return gone
	})
	return removed
}

// pick chooses the server of a new connection, none of tried. If every one is down, the one that has been down
// for the longest is tried: refusing everybody helps nobody. nil if there is none left.
func (p *pool) pick(now time.Time, tried []*member) *member {
	var best, last *member
	sum := 0
	for _, m := range p.members {
		if m.draining || slices.Contains(tried, m) {
			continue
		}
		if m.failures > 0 && now.Before(m.downUntil) {
			if last == nil || m.downUntil.Before(last.downUntil) {
				last = m
			}
			continue
		}
		m.current += m.weight
		sum += m.weight
		if best == nil || m.current > best.current {
			best = m
		}
	}
	if best == nil {
		return last
	}
	best.current -= sum
	if best.failures > 0 { // one connection tries, the others pass by until it is known
		best.downUntil = now.Add(p.minDown)
	}
	return best
}

// refused takes a server out for a while, longer each time.
func (p *pool) refused(now time.Time, m *member) {
	m.failures++
	down := p.minDown << min(m.failures-1, 20)
	m.downUntil = now.Add(min(down, p.maxDown))
}

// opening counts a connection before it is open, so that its server is not swept away meanwhile; opened or
// refused, and closed, come after it.
func (p *pool) opening(m *member) { m.connections++ }

func (p *pool) opened(m *member) {
	m.failures = 0
	m.total++
}

func (p *pool) closed(m *member) { m.connections-- }

func (p *pool) servers() []Server {
	list := []Server{}
	for _, m := range p.members {
		s := Server{Addr: m.addr, Weight: m.weight, State: Up, Connections: m.connections, Total: m.total}
		if m.failures > 0 {
			s.State = Down
		}
		if m.draining {
			s.State = Draining
		}
		list = append(list, s)
	}
	return list
}
