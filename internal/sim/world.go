package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// epoch is when every run begins.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// World is one run: virtual time, nodes, the messages between them and the faults of a plan. It is for one goroutine.
type World struct {
	rand   *rand.Rand
	plan   Plan
	end    time.Duration // since the epoch
	now    time.Duration
	seq    int
	queue  queue
	nodes  map[string]*node
	failed error
	trace  []string
}

// node is a process that can crash.
type node struct {
	up        bool
	life      int           // counts restarts: what was planned in an earlier life does not happen
	skew      time.Duration // of its clock
	crashed   func()
	restarted func()
}

func newWorld(config Config, plan Plan) *World {
	w := &World{
		rand: rand.New(rand.NewPCG(plan.Seed, 0x5eed)), plan: plan, end: config.Duration, nodes: make(map[string]*node),
	}
	for _, name := range config.Nodes {
		w.nodes[name] = &node{up: true}
	}
	for _, fault := range plan.Faults {
		w.at(fault.At, func() { w.begin(fault) })
	}
	return w
}

// Rand is the run's only source of randomness.
func (w *World) Rand() *rand.Rand { return w.rand }

// Now is true time, which no node can see.
func (w *World) Now() time.Time { return epoch.Add(w.now) }

// Clock is what time it is on a node, jumps included.
func (w *World) Clock(name string) time.Time { return epoch.Add(w.now + w.node(name).skew) }

// Up reports whether a node runs.
func (w *World) Up(name string) bool { return w.node(name).up }

// Healing reports whether the time of faults is over: the last quarter of a run has none, so that what must
// come right in the end has time to.
func (w *World) Healing() bool { return w.now >= w.end*3/4 }

// OnCrash sets what a crash of a node destroys and how it starts again. Both run in the node's stead.
func (w *World) OnCrash(name string, crashed, restarted func()) {
	n := w.node(name)
	n.crashed, n.restarted = crashed, restarted
}

// After runs f on a node after d, unless the node crashes before. An empty name is the world itself, which does not.
func (w *World) After(name string, d time.Duration, f func()) {
	if name == "" {
		w.at(w.now+d, f)
		return
	}
	n := w.node(name)
	life := n.life
	w.at(w.now+d, func() {
		if n.up && n.life == life {
			f()
		}
	})
}

// Every runs f on a node now and then, every d, until it crashes.
func (w *World) Every(name string, d time.Duration, f func()) {
	w.After(name, d, func() {
		f()
		w.Every(name, d, f)
	})
}

// Send carries a message from one node to another: it arrives after a moment, unless a fault that is in force delays,
// duplicates, reorders or loses it, or the receiver is down.
func (w *World) Send(from, to string, deliver func()) {
	copies, extra := 1, time.Duration(0)
	for _, f := range w.plan.Faults {
		if !f.active(w.now) || f.Node != from && f.Node != to {
			continue
		}
		switch f.Kind {
		case Cut:
			copies = 0
		case Delay:
			extra += time.Duration(w.rand.Int64N(int64(time.Second)))
		case Duplicate:
			copies *= 2
		case Reorder:
			extra += time.Duration(w.rand.Int64N(int64(50 * time.Millisecond)))
		}
	}
	for range min(copies, 4) {
		n := w.node(to)
		w.at(w.now+time.Millisecond+extra, func() {
			if n.up {
				deliver()
			}
		})
		extra += time.Duration(w.rand.Int64N(int64(20 * time.Millisecond)))
	}
}

// Fail ends the run: an invariant does not hold.
func (w *World) Fail(err error) {
	if w.failed == nil && err != nil {
		w.failed = err
		w.Trace("FAILED: %v", err)
	}
}

// keepTrace is how many lines a failure shows.
const keepTrace = 40

// Trace notes what happened, for the report of a failure.
func (w *World) Trace(format string, args ...any) {
	if len(w.trace) == 2*keepTrace {
		w.trace = append(w.trace[:0], w.trace[keepTrace:]...)
	}
	w.trace = append(w.trace, fmt.Sprintf("%8.3fs ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

func (w *World) node(name string) *node {
	n := w.nodes[name]
	if n == nil {
		panic(fmt.Sprintf("sim: node %q is not among Config.Nodes", name)) // a fault of the scenario, not of its input
	}
	return n
}

// begin makes a fault happen.
func (w *World) begin(f Fault) {
	w.Trace("fault: %v", f)
	n := w.node(f.Node)
	switch f.Kind {
	case Crash:
		if !n.up {
			return
		}
		n.up = false
		n.life++
		if n.crashed != nil {
			n.crashed()
		}
		w.at(w.now+f.For, func() {
			if n.up {
				return
			}
			n.up = true
			w.Trace("restart: %s", f.Node)
			if n.restarted != nil {
				n.restarted()
			}
		})
	case ClockJump:
		n.skew += f.By
	}
}

func (w *World) at(t time.Duration, f func()) {
	w.seq++
	w.queue.push(event{at: t, seq: w.seq, do: f})
}

// run runs until the end or a failure.
func (w *World) run() {
	for len(w.queue) > 0 && w.failed == nil {
		e := w.queue.pop()
		if e.at > w.end {
			return
		}
		w.now = e.at
		e.do()
	}
}
