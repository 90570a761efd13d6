package flow

import "sync"

// workroom is what a driver needs for the time of a transition: lists that others have been made long enough by before.
type workroom struct {
	read    []message
	events  []Event
	actions []action
}

// workrooms are those that nobody works in.
type workrooms struct{ spare sync.Pool }

func (w *workrooms) get() *workroom {
	room, _ := w.spare.Get().(*workroom)
	if room == nil {
		room = &workroom{events: make([]Event, 0, 4)}
	}
	return room
}

func (w *workrooms) put(room *workroom) { w.spare.Put(room) }

// keepRoom bounds how many of each a workroom keeps room for.
const keepRoom = 16

// emptied is a list for the next use, unless it has grown too long to keep.
func emptied[T any](list []T) []T {
	if cap(list) > keepRoom {
		return nil
	}
	clear(list)
	return list[:0]
}
