package link

import "github.com/zhiyun-ops/zhiyun/l5/internal/view"

// Store keeps the states that are in use. A Link calls it under its lock, one call at a time: a Store must not call the Link.
type Store interface {
	// At returns at which revision of which epoch the state of a service stands; false if none is held.
	At(service string) (epoch string, revision int64, held bool)
	// View returns the state of a service; false if none is held, or it cannot be read: the link then asks for it anew.
	View(service string) (view.View, bool)
	// Put keeps a state in the place of the one before.
	Put(v view.View)
	// Drop forgets a service.
	Drop(service string)
}

// memory is a Store for a process that uses what it holds.
type memory map[string]view.View

func (m memory) At(service string) (epoch string, revision int64, held bool) {
	v, ok := m[service]
	return v.Epoch, v.Revision, ok
}

func (m memory) View(service string) (view.View, bool) {
	v, ok := m[service]
	return v, ok
}

func (m memory) Put(v view.View) { m[v.Service] = v }

func (m memory) Drop(service string) { delete(m, service) }
