package limit

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config tunes an Adaptive limit. Healthy is required, the zero value of another field means its default.
type Config struct {
	// Healthy is the mean latency above which the callee is in trouble, whatever was measured before. Give it the
	// latency of its bad but good days: half of the usual deadline does. It is the one number that cannot be learned:
	// in a long incident every measurement says that trouble is normal.
	Healthy time.Duration
	// Min and Max bound the limit. Default: 4 and 10,000.
	Min, Max int
	// Start is the first limit; it doubles each step that it is reached in, until the first sign of a queue.
	// Default: Max towards an instance or a service, where nothing is limited that has not shown trouble; 16 in a
	// Limiter, which may be started amid a storm.
	Start int
	// Tolerance is how many times the baseline latency is taken without seeing a queue. Default: 2; at least 1.1.
	Tolerance float64
	// MinVolume is how many calls make a measurement; until there are as many, or a quarter of that and a second is over,
	// windows are joined. Default: 20.
	MinVolume int
}

func (c Config) check() (Config, error) {
	var errs []error
	if c.Healthy <= 0 {
		errs = append(errs, fmt.Errorf("Healthy is %v: give the mean latency above which the callee is in trouble, such as half of the usual deadline", c.Healthy))
	}
	if c.Min < 0 || c.Max < 0 || c.Start < 0 || c.MinVolume < 0 {
		errs = append(errs, fmt.Errorf("Min %d, Max %d, Start %d, MinVolume %d: give positive numbers, or 0 for the default", c.Min, c.Max, c.Start, c.MinVolume))
	}
	if c.Max > 0 && max(c.Min, c.Start) > c.Max {
		errs = append(errs, fmt.Errorf("Min %d and Start %d: neither may be above Max %d", c.Min, c.Start, c.Max))
	}
	if c.Tolerance != 0 && !(c.Tolerance >= 1.1) {
		errs = append(errs, fmt.Errorf("Tolerance is %v: give it at least 1.1, or 0 for the default", c.Tolerance))
	}
	if err := errors.Join(errs...); err != nil {
		return c, err
	}
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.Max, 10000)
	set(&c.Min, min(4, c.Max))
	set(&c.Start, c.Max)
	set(&c.MinVolume, 20)
	c.Start = max(c.Start, c.Min)
	if c.Tolerance == 0 {
		c.Tolerance = 2
	}
	return c, nil
}

// Check returns all faults of the config.
func (c Config) Check() error { _, err := c.check(); return err }

// Phase is what an Adaptive limit sees.
type Phase uint8

const (
	Fresh   Phase = iota // no queue was ever seen: the limit is a guess, and doubles when it is reached
	Calm                 // latency is near the baseline: the limit grows while it is used
	Queued               // latency is a multiple of the baseline: the limit shrinks by that
	Trouble              // latency is beyond Healthy, or calls time out: the limit shrinks fast, and nothing is learned
)

// String returns the phase's name.
func (p Phase) String() string {
	return [...]string{"fresh", "calm", "queued", "trouble"}[min(p, Trouble)]
}

// MarshalText implements encoding.TextMarshaler.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Adaptive is the core of a concurrency limit that follows what the callee can do. It is for one goroutine and has no
// clock.
//
//	             a queue
//	Fresh --------------------------> Queued <----------> Calm
//	   |                                ^  |               ^
//	   |   beyond Healthy, or time-outs |  v               |
//	   +------------------------------> Trouble <----------+
//
// What it took from where, and what it left:
//
//   - the gradient of Netflix's gradient2: the limit shrinks by baseline * Tolerance / latency, no more than to half, and
//     grows by its square root; left is the allowance for a queue while there is a queue, which made gradient2 climb
//     without end under modest overload;
//   - from TCP Vegas and BBR: how many calls are in flight follows from latency and rate (Little's law), a window in
//     which the limit was not used says nothing for raising it, and the highest rate seen tells when there can be no
//     queue; left is BBR's pause to measure the least latency, which costs throughput each ten seconds;
//   - from Envoy's gradient controller: when the limit has lain at Min and latency did not fall, that is what the
//     service needs now, and becomes the baseline; left is that this knows no bound.
//
// The baseline moves up only through windows with a rate below three quarters of the highest seen, which leaves the
// callee no reason to queue, and never through one beyond Healthy. So it stays at or below Healthy for however long an
// incident lasts: the limit cannot open again while the callee is in trouble.
type Adaptive struct {
	config   Config
	pending  Calls   // not enough to measure
	limit    float64 // within Min and Max
	baseline float64 // ns; 0: none yet
	rate     float64 // of calls that succeed, per second, smoothed over rateOver
	peak     float64 // the highest rate of late
	phase    Phase
	pinned   int // measurements in a row at Min with a queue
	latency  time.Duration

	plantedBug string // set by tests alone: a simulation that cannot fail proves nothing
}

const (
	rateOver     = 2 * time.Second  // the highest of rates of single windows would be far above what the callee can do
	peakHalfLife = 10 * time.Minute // after which the highest rate counts half: a callee may lose capacity for good
)

// State is what an Adaptive limit decided, with the numbers that did.
type State struct {
	// Limit is how many calls may be in flight.
	Limit int `json:"limit"`
	// Phase is why.
	Phase Phase `json:"phase"`
	// Latency is the last that was measured, Baseline what it is without a queue; 0: not known.
	Latency  time.Duration `json:"latency"`
	Baseline time.Duration `json:"baseline"`
}

// Reason says why the limit is as it is, in words.
func (s State) Reason() string {
	switch s.Phase {
	case Fresh:
		return fmt.Sprintf("limit %d: no queue was seen yet", s.Limit)
	case Calm:
		return fmt.Sprintf("limit %d: latency %v is near the baseline %v", s.Limit, round(s.Latency), round(s.Baseline))
	case Queued:
		return fmt.Sprintf("limit %d: latency %v shows a queue, the baseline is %v", s.Limit, round(s.Latency), round(s.Baseline))
	}
	return fmt.Sprintf("limit %d: latency %v is beyond what is healthy, or calls time out; the baseline stays at %v", s.Limit, round(s.Latency), round(s.Baseline))
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// NewAdaptive returns a limit at Config.Start.
func NewAdaptive(config Config) (*Adaptive, error) {
	config, err := config.check()
	if err != nil {
		return nil, fmt.Errorf("limit: config: %w", err)
	}
	return &Adaptive{config: config, limit: float64(config.Start)}, nil
}

// State returns the last decision.
func (a *Adaptive) State() State {
	return State{Limit: int(a.limit), Phase: a.phase, Latency: a.latency, Baseline: time.Duration(a.baseline)}
}

// Step takes one more window of calls and returns the limit until the next.
func (a *Adaptive) Step(c Calls) State {
	a.pending = a.pending.add(c)
	c = a.pending
	volume, enough := c.Succeeded+c.TimedOut, int64(a.config.MinVolume)
	if volume < enough && (volume < enough/4 || c.Span < time.Second) {
		if c.Span > time.Minute { // too little goes on to tell: old calls are not held against new ones
			a.pending = Calls{}
		}
		return a.State()
	}
	a.pending = Calls{}
	a.latency = c.mean()
	inUse := c.inUse()
	a.measureRate(c)
	switch latency := float64(a.latency); {
	case a.latency > a.config.Healthy || c.TimedOut*10 > c.Succeeded+c.TimedOut:
		a.phase, a.pinned = Trouble, 0
		if a.plantedBug == "trouble is learned" {
			a.learn(latency, 0.05)
		}
		a.shrink(inUse, 0.7)
	case a.baseline == 0:
		a.baseline = latency
		a.grow(c, inUse)
	case latency > a.baseline*a.config.Tolerance:
		a.queued(inUse, latency)
	default:
		a.pinned = 0
		if a.phase != Fresh {
			a.phase = Calm
		}
		if latency < a.baseline || a.rate < 0.75*a.peak || a.plantedBug == "a queue is learned" {
			a.learn(latency, 0.05)
		}
		a.grow(c, inUse)
	}
	return a.State()
}

// measureRate moves rate and peak along.
func (a *Adaptive) measureRate(c Calls) {
	if c.Span <= 0 {
		return
	}
	gain := min(float64(c.Span)/float64(rateOver), 1)
	a.rate += gain * (float64(c.Succeeded)/c.Span.Seconds() - a.rate)
	a.peak = max(a.rate, a.peak*math.Exp2(-float64(c.Span)/float64(peakHalfLife)))
}

// queued shrinks the limit by the gradient. At Min for pinAfter measurements it takes the latency as it is.
func (a *Adaptive) queued(inUse, latency float64) {
	const pinAfter = 5
	a.phase = Queued
	if a.limit > float64(a.config.Min) {
		a.pinned = 0
		a.shrink(inUse, max(a.baseline*a.config.Tolerance/latency, 0.5))
		return
	}
	if a.pinned++; a.pinned >= pinAfter {
		a.learn(latency, 0.5)
	}
}

func (a *Adaptive) learn(latency, gain float64) { a.baseline += gain * (latency - a.baseline) }

// shrink sets the limit to a part of itself, or of what is in use if that is far less: a limit that was never
// reached would take long to come down to where it matters.
func (a *Adaptive) shrink(inUse, by float64) {
	a.limit = min(a.limit, max(2*inUse, float64(a.config.Min)))
	a.limit = max(a.limit*by, float64(a.config.Min))
}

// grow raises a limit that is used.
func (a *Adaptive) grow(c Calls, inUse float64) {
	// Calls come in bursts: one that a Poisson process has once in an hour must fit into the share of normal calls.
	burst := (inUse + 4*math.Sqrt(inUse) + 3) / Normal.share()
	if max(2*inUse, burst) < a.limit && c.Refused == 0 {
		return
	}
	step := math.Sqrt(a.limit)
	if a.phase == Fresh {
		step = a.limit
	}
	a.limit = min(a.limit+step, float64(a.config.Max))
}
