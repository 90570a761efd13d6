package flow

// queue is who waits for a gauge: levels by priority, in each of them lanes that take turns, in each lane first come, first served.
type queue struct {
	live   int // tickets that somebody still wants
	turns  int
	levels *[urgent + 1]level // once somebody has waited
}

// level is those of one priority.
type level struct {
	served int // the turn in which it was last served
	first  int // index of the next lane in order
	order  []*lane
	lanes  map[string]*lane
}

// lane is those of one execution.
type lane struct {
	name  string
	first int
	line  []*ticket
}

// aged is how often the level that was served longest ago has its turn.
const aged = 16

func (q *queue) push(t *ticket) {
	if q.levels == nil {
		q.levels = &[urgent + 1]level{}
	}
	l := &q.levels[t.priority]
	if l.empty() {
		l.served = q.turns // it does not save up turns while nobody waits
	}
	q.live++
	at := l.lanes[t.lane]
	if at == nil {
		at = &lane{name: t.lane}
		if l.lanes == nil {
			l.lanes = map[string]*lane{}
		}
		l.lanes[t.lane] = at
		l.order = append(l.order, at)
	}
	at.line = append(at.line, t)
}

// pop takes out the next ticket. There is one that is wanted: live says so.
func (q *queue) pop() *ticket {
	for {
		l := &q.levels[q.pick()]
		t := l.pop()
		if t.gone {
			continue
		}
		q.live--
		q.turns++
		l.served = q.turns
		return t
	}
}

// pick returns the level whose turn it is.
func (q *queue) pick() int {
	best := -1
	for i := range q.levels {
		l := &q.levels[i]
		if l.empty() {
			continue
		}
		if best < 0 || q.turns%aged != aged-1 || l.served < q.levels[best].served {
			best = i
		}
	}
	return best
}

// withdraw takes out a ticket that nobody wants any more; it is skipped when its turn comes.
func (q *queue) withdraw() {
	if q.live--; q.live == 0 {
		*q = queue{turns: q.turns}
	}
}

func (l *level) empty() bool { return l.first == len(l.order) }

// pop takes out the first ticket of the next lane, which then is the last to have another turn.
func (l *level) pop() *ticket {
	at := l.order[l.first]
	l.order[l.first] = nil
	if l.first++; l.first > 32 && l.first*2 > len(l.order) {
		l.order = append(l.order[:0], l.order[l.first:]...)
		l.first = 0
	}
	t := at.line[at.first]
	at.line[at.first] = nil
	if at.first++; at.first == len(at.line) {
		delete(l.lanes, at.name)
	} else {
		l.order = append(l.order, at)
	}
	return t
}
