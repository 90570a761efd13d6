package limit

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// LimiterConfig tunes a Limiter.
type LimiterConfig struct {
	// Config is of the limit; Healthy is required. Start is 16 by default here, and doubles with each window that reaches
	// it: give it what the server usually carries if it may be started amid full traffic.
	Config
	// Every is how often the limit is computed. Default: 100 ms.
	Every time.Duration
}

// Limiter bounds the calls that a server works on at a time: what is beyond gets an answer at once, so that it can
// go elsewhere, instead of a place in a queue until nobody waits for it any more. It has no goroutine: the call during which a
// window ends computes the next limit. Its methods are safe for concurrent use.
type Limiter struct {
	every    int64
	healthy  time.Duration
	base     time.Time // times below are ns since base
	limits   [priorities]atomic.Int64
	inflight atomic.Int64
	load     atomic.Uint64 // float64 bits; utilisation
	rate     atomic.Uint64 // float64 bits; calls per second
	ends     atomic.Int64  // of the window

	succeeded, latency, failed, timedOut atomic.Int64
	refused                              [priorities]atomic.Int64

	mu       sync.Mutex
	adaptive *Adaptive // guarded by mu
	begun    int64     // guarded by mu; the window's
	before   int64     // guarded by mu; refused when the window began
	queued   bool      // guarded by mu; a queue was seen, ever: then the limit says what the capacity is
}

// NewLimiter returns a limiter whose first window begins at now. It reports all faults of config at once.
func NewLimiter(config LimiterConfig, now time.Time) (*Limiter, error) {
	if config.Every < 0 {
		return nil, fmt.Errorf("limit: config: Every is %v: give it a positive duration, or 0 for the default", config.Every)
	}
	if config.Every == 0 {
		config.Every = 100 * time.Millisecond
	}
	if config.Start == 0 {
		config.Start = 16
		if config.Max > 0 {
			config.Start = min(config.Start, config.Max)
		}
	}
	adaptive, err := NewAdaptive(config.Config)
	if err != nil {
		return nil, err
	}
	l := &Limiter{every: int64(config.Every), healthy: config.Healthy, base: now, adaptive: adaptive}
	l.ends.Store(l.every)
	l.publish(adaptive.State())
	return l, nil
}

// Enter admits a call that came at now, or not. A call that was admitted must Leave.
func (l *Limiter) Enter(now time.Time, p Priority) bool {
	l.turn(now)
	p = min(p, Sheddable)
	if l.inflight.Add(1) <= l.limits[p].Load() {
		return true
	}
	l.inflight.Add(-1)
	l.refused[p].Add(1)
	return false
}

// Result is how a call ended on the server.
type Result uint8

// The results.
const (
	Done      Result = iota // its latency counts
	Failed                  // its latency does not: failing is often quick
	Expired                 // its deadline passed
	Abandoned               // the caller went away: as Expired if it had waited longer than is healthy, else as Failed
)

// Leave ends a call that was admitted, after it took so long.
func (l *Limiter) Leave(now time.Time, took time.Duration, result Result) {
	l.inflight.Add(-1)
	if result == Abandoned && took > l.healthy {
		result = Expired
	}
	switch result {
	case Done:
		l.succeeded.Add(1)
		l.latency.Add(int64(max(took, 0)))
	case Expired:
		l.timedOut.Add(1)
	default:
		l.failed.Add(1)
	}
	l.turn(now)
}

// turn ends the window when its time is over.
func (l *Limiter) turn(now time.Time) {
	at := int64(now.Sub(l.base))
	ends := l.ends.Load()
	if at < ends || !l.ends.CompareAndSwap(ends, at+l.every) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at <= l.begun {
		return // the window after this one was quicker to get here, and has counted it
	}
	refused := l.refusedSum()
	c := Calls{
		Span: time.Duration(at - l.begun), Succeeded: l.succeeded.Swap(0), Latency: time.Duration(l.latency.Swap(0)),
		Failed: l.failed.Swap(0), TimedOut: l.timedOut.Swap(0), Refused: refused - l.before,
	}
	l.begun, l.before = at, refused
	s := l.adaptive.Step(c)
	l.queued = l.queued || s.Phase != Fresh
	const gain = 0.3
	load := 0.0
	if l.queued {
		// A window that refused calls was full for part of it, however little is in use on average.
		load = max(c.inUse(), float64(l.inflight.Load())) / max(float64(s.Limit), 1)
		if c.Refused > 0 {
			load = max(load, 1)
		}
		old := math.Float64frombits(l.load.Load())
		load = old + gain*(load-old)
	}
	rate := math.Float64frombits(l.rate.Load())
	l.load.Store(math.Float64bits(load))
	l.rate.Store(math.Float64bits(rate + gain*(float64(c.Succeeded)/c.Span.Seconds()-rate)))
	l.publish(s)
}

func (l *Limiter) publish(s State) {
	for p := range l.limits {
		l.limits[p].Store(Priority(p).of(s.Limit))
	}
}

func (l *Limiter) refusedSum() (n int64) {
	for i := range l.refused {
		n += l.refused[i].Load()
	}
	return n
}

// Load is how much of the server's capacity is in use, smoothed over about half a second. It says nothing until a queue was
// seen for the first time: before, the capacity is not known.
func (l *Limiter) Load() Load {
	return Load{Utilization: math.Float64frombits(l.load.Load()), Rate: math.Float64frombits(l.rate.Load())}
}

// LimiterState is what a Limiter decided last, with the numbers that did.
type LimiterState struct {
	State
	InFlight int64
	Load     Load
	Refused  [priorities]int64 // since it was made, by Priority
}

// State returns the last decision, with the counts of now.
func (l *Limiter) State() LimiterState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LimiterState{State: l.adaptive.State(), InFlight: l.inflight.Load(), Load: l.Load()}
	for i := range s.Refused {
		s.Refused[i] = l.refused[i].Load()
	}
	return s
}
