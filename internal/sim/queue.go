package sim

import "time"

// event is something that will happen.
type event struct {
	at  time.Duration // since the epoch
	seq int           // of two at the same time, the first that was planned comes first
	do  func()
}

func (e *event) before(other *event) bool {
	return e.at < other.at || e.at == other.at && e.seq < other.seq
}

// queue is a heap of events, the next first. Each has four below it and not two: a large one is less deep then, and the four
// lie beside each other (D. H. Larkin, S. Sen and R. E. Tarjan, "A back-to-basics empirical study of priority queues", 2014).
type queue []event

const fanout = 4

func (q *queue) push(e event) {
	*q = append(*q, e)
	all := *q
	at := len(all) - 1
	for at > 0 {
		parent := (at - 1) / fanout
		if !e.before(&all[parent]) {
			break
		}
		all[at] = all[parent]
		at = parent
	}
	all[at] = e
}

func (q *queue) pop() event {
	all := *q
	next, last := all[0], all[len(all)-1]
	all[len(all)-1] = event{} // lets go of what it holds
	all = all[:len(all)-1]
	*q = all
	if len(all) == 0 {
		return next
	}
	at := 0
	for {
		first := at*fanout + 1
		if first >= len(all) {
			break
		}
		child := first
		for other := first + 1; other < min(first+fanout, len(all)); other++ {
			if all[other].before(&all[child]) {
				child = other
			}
		}
		if !all[child].before(&last) {
			break
		}
		all[at] = all[child]
		at = child
	}
	all[at] = last
	return next
}
