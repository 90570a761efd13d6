package dispatch

import "time"

// absence is what is remembered of a device without a stream.
type absence struct {
	left    time.Time       // when its stream ended; zero: it has had none
	dropped map[string]bool // attempts given up, or acknowledged, meanwhile: the device shall forget them
	touched time.Time
}

const (
	// maxDropped bounds what is remembered for a device that is away. What falls out is forgotten by the worker in a day.
	maxDropped = 1000
	// remembered is how long a device that nobody asks for is remembered. Its worker has forgotten by then, too.
	remembered = 24 * time.Hour
)

// absent returns what is remembered of a device that is away. With each device that is new, a few others are looked at, and those forgotten whose time is
// over: so that devices which never come back take no more room than those of a day or two. The caller holds the mutex.
func (d *Dispatcher) absent(device string) *absence {
	now := time.Now()
	a := d.away[device]
	if a == nil {
		looked := 0
		for name, other := range d.away {
			if now.Sub(other.touched) > remembered {
				delete(d.away, name)
			}
			if looked++; looked == 4 {
				break
			}
		}
		a = &absence{}
		d.away[device] = a
	}
	a.touched = now
	return a
}

// drop remembers that the device shall forget an attempt when it is back.
func (d *Dispatcher) drop(device, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.absent(device)
	if a.dropped == nil {
		a.dropped = map[string]bool{}
	}
	if len(a.dropped) < maxDropped {
		a.dropped[id] = true
	}
}

// patience is how long a device that is away is still waited for. One that is known to be gone for longer than the grace
// period fails attempts at once, so that undoing what was done there does not wait anew for each step.
func (d *Dispatcher) patience(device string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.away[device]; a != nil && !a.left.IsZero() {
		return max(0, d.config.Grace-time.Since(a.left))
	}
	return d.config.Grace
}

// watch is shared by the attempts that run on a device.
type watch struct {
	attempts int
	changed  chan struct{} // closed when the device's stream changes
}

// watched notes one attempt more that looks for changes of a device's stream. The caller holds the mutex.
func (d *Dispatcher) watched(device string) {
	w := d.watches[device]
	if w == nil {
		w = &watch{changed: make(chan struct{})}
		d.watches[device] = w
	}
	w.attempts++
}

// unwatched notes one attempt less. The caller holds the mutex.
func (d *Dispatcher) unwatched(device string) {
	w := d.watches[device]
	if w.attempts--; w.attempts == 0 {
		delete(d.watches, device)
	}
}

// notify tells that the device's stream has changed. The caller holds the mutex.
func (d *Dispatcher) notify(device string) {
	if w := d.watches[device]; w != nil {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}
