package flow

import "time"

// timers is a heap of the times at which tasks go on, the earliest first. What no longer stands in its task has been overtaken, and is dropped when it
// comes to the top: so each time goes in once and out once.
type timers []dueTime

type dueTime struct {
	at         time.Time
	step, item int
	undo       bool
}

func (h *timers) push(d dueTime) {
	*h = append(*h, d)
	list := *h
	for i := len(list) - 1; i > 0; {
		up := (i - 1) / 2
		if !list[i].at.Before(list[up].at) {
			return
		}
		list[i], list[up] = list[up], list[i]
		i = up
	}
}

func (h *timers) pop() {
	list := *h
	last := len(list) - 1
	list[0] = list[last]
	list = list[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if list[child].at.Before(list[least].at) {
				least = child
			}
		}
		if least == i {
			break
		}
		list[i], list[least] = list[least], list[i]
		i = least
	}
	*h = list
}

// firstTimer returns the earliest time at which a task goes on.
func (x *Execution) firstTimer() dueTime {
	for len(x.clock) > 0 {
		first := x.clock[0]
		if t := x.task(first.step, first.item); t != nil {
			at := t.RetryAt
			if first.undo {
				at = time.Time{}
				if t.Undo != nil {
					at = t.Undo.RetryAt
				}
			}
			if !at.IsZero() && at.Equal(first.at) {
				return first
			}
		}
		x.clock.pop()
	}
	return dueTime{}
}
