package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxRate is the highest rate of one generator, in requests per second.
const MaxRate = 100_000

// Call sends one request. An error is a request that failed. ctx ends after Config.Timeout.
type Call func(ctx context.Context) error

// Get is a Call that gets a URL and reads the answer; anything but 200 is a failure.
func Get(client *http.Client, url string) Call {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", url, response.Status)
		}
		return nil
	}
}

// Config of a Generator.
type Config struct {
	// Call sends a request; it is called from many goroutines. Required.
	Call Call
	// Seed of the schedule. Default: 0, a seed like any other.
	Seed uint64
	// Even spaces requests evenly. Default: at random (Poisson).
	Even bool
	// Timeout of a call. Default: 10 s.
	Timeout time.Duration
	// MaxOutstanding calls are in flight at most. Default: 10,000.
	MaxOutstanding int
	// OnFailure, if set, hears of each call that failed. It must not block.
	OnFailure func(error)
}

// Phase is a stretch of constant load.
type Phase struct {
	Name string  `json:"name"`
	Rate float64 `json:"rate"` // requests per second; 0 is silence
}

// PhaseReport is what happened to the requests that were scheduled in one phase.
type PhaseReport struct {
	Phase
	Start   time.Time  `json:"start"`
	End     time.Time  `json:"end,omitzero"` // zero while it lasts
	Sent    int64      `json:"sent"`         // ok, failed and those in flight
	OK      int64      `json:"ok"`           //
	Failed  int64      `json:"failed"`       //
	Dropped int64      `json:"dropped"`      // not sent, since too many were outstanding
	Latency *Histogram `json:"latency"`      // of the ok ones, from the scheduled moment
	Errors  []string   `json:"errors"`       // the first of each text, ten at most
	known   map[string]bool
}

// Report is what happened so far.
type Report struct {
	Phases []PhaseReport `json:"phases"`
}

// Phase returns the sum of all phases of that name; those that came again count together.
func (r Report) Phase(name string) PhaseReport {
	sum := PhaseReport{Phase: Phase{Name: name}, Latency: &Histogram{}}
	for _, p := range r.Phases {
		if p.Name == name {
			if sum.Start.IsZero() {
				sum.Start = p.Start
			}
			sum.Rate, sum.End = p.Rate, p.End
			sum.add(p)
		}
	}
	return sum
}

// Total returns the sum of all phases.
func (r Report) Total() PhaseReport {
	sum := PhaseReport{Latency: &Histogram{}}
	for _, p := range r.Phases {
		sum.add(p)
	}
	return sum
}

func (p *PhaseReport) add(o PhaseReport) {
	p.Sent, p.OK, p.Failed, p.Dropped = p.Sent+o.Sent, p.OK+o.OK, p.Failed+o.Failed, p.Dropped+o.Dropped
	p.Latency.Merge(o.Latency)
	p.Errors = append(p.Errors, o.Errors[:min(len(o.Errors), max(0, 10-len(p.Errors)))]...)
}

// Generator sends requests. Its methods are safe for concurrent use.
type Generator struct {
	config Config
	wake   chan struct{}  // capacity 1: the schedule changed
	calls  sync.WaitGroup // Run waits for it

	mu          sync.Mutex // guards what follows
	schedule    *Schedule
	start       time.Time // zero before Run
	running     bool      // Run sends
	phases      []*PhaseReport
	outstanding int
}

// New checks config. It sends nothing.
func New(config Config) (*Generator, error) {
	var faults []error
	if config.Call == nil {
		faults = append(faults, errors.New("load: Config.Call is missing; give the function that sends a request"))
	}
	if config.Timeout < 0 {
		faults = append(faults, fmt.Errorf("load: Config.Timeout %v is negative; leave it zero for 10 s", config.Timeout))
	}
	if config.MaxOutstanding < 0 {
		faults = append(faults, fmt.Errorf("load: Config.MaxOutstanding %d is negative; leave it zero for 10000", config.MaxOutstanding))
	}
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Second
	}
	if config.MaxOutstanding == 0 {
		config.MaxOutstanding = 10_000
	}
	return &Generator{config: config, wake: make(chan struct{}, 1), schedule: NewSchedule(config.Seed, !config.Even)}, errors.Join(faults...)
}

// SetPhase ends the phase before and begins one, now or, before Run, when Run begins.
func (g *Generator) SetPhase(p Phase) error {
	if !(p.Rate >= 0 && p.Rate <= MaxRate) {
		return fmt.Errorf("load: phase %q: rate %v; give 0 to %d requests per second", p.Name, p.Rate, MaxRate)
	}
	if p.Name == "" || strings.ContainsAny(p.Name, " \t\n") {
		return fmt.Errorf("load: phase %q: give a name without spaces", p.Name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running {
		g.sendDue() // what is due belongs to the phase that ends
	}
	now := time.Now()
	if n := len(g.phases); n > 0 {
		g.phases[n-1].End = now
	}
	g.phases = append(g.phases, &PhaseReport{Phase: p, Start: now, Latency: &Histogram{}, known: map[string]bool{}})
	if !g.start.IsZero() {
		g.schedule.SetRate(now.Sub(g.start), p.Rate)
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return nil
}

// Control reads phases from lines "NAME RATE" until the end of r. A line that is wrong is an error.
func (g *Generator) Control(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return fmt.Errorf("load: line %q: want NAME RATE, as in: burst 300", lines.Text())
		}
		rate, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return fmt.Errorf("load: line %q: rate: %w", lines.Text(), err)
		}
		if err := g.SetPhase(Phase{fields[0], rate}); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("load: read phases: %w", err)
	}
	return nil
}

// Run sends requests as scheduled until ctx ends, and returns when none is outstanding.
func (g *Generator) Run(ctx context.Context) error {
	g.mu.Lock()
	if !g.start.IsZero() {
		g.mu.Unlock()
		return errors.New("load: Run was called before; make a new generator")
	}
	g.start, g.running = time.Now(), true
	if n := len(g.phases); n > 0 {
		g.phases[n-1].Start = g.start
		g.schedule.SetRate(0, g.phases[n-1].Rate)
	}
	g.mu.Unlock()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		g.mu.Lock()
		timer.Reset(g.sendDue())
		g.mu.Unlock()
		select {
		case <-ctx.Done():
			g.mu.Lock()
			g.running = false
			g.mu.Unlock()
			g.calls.Wait()
			return nil
		case <-g.wake:
		case <-timer.C:
		}
	}
}

// sendDue sends everything whose moment has come, and returns how long it is to the next. The caller holds mu.
func (g *Generator) sendDue() time.Duration {
	for {
		at, ok := g.schedule.Next()
		if !ok {
			return time.Hour
		}
		due := g.start.Add(at)
		if wait := time.Until(due); wait > 0 {
			return wait
		}
		g.schedule.Advance()
		phase := g.phases[len(g.phases)-1]
		if g.outstanding >= g.config.MaxOutstanding {
			phase.Dropped++
			continue
		}
		phase.Sent++
		g.outstanding++
		g.calls.Go(func() { g.send(phase, due) })
	}
}

// send makes one call. It is not cut short when Run's context ends: the service is owed its chance to answer.
func (g *Generator) send(phase *PhaseReport, due time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Timeout)
	err := g.config.Call(ctx)
	took := time.Since(due)
	cancel()
	if err != nil && g.config.OnFailure != nil {
		g.config.OnFailure(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outstanding--
	if err == nil {
		phase.OK++
		phase.Latency.Add(took)
		return
	}
	phase.Failed++
	if text := err.Error(); len(phase.Errors) < 10 && !phase.known[text] {
		phase.known[text] = true
		phase.Errors = append(phase.Errors, text)
	}
}

// Report returns what happened so far; it is the caller's own.
func (g *Generator) Report() Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	report := Report{Phases: []PhaseReport{}}
	for _, p := range g.phases {
		own := *p
		latency := *p.Latency
		own.Latency, own.known = &latency, nil
		own.Errors = append([]string{}, p.Errors...)
		report.Phases = append(report.Phases, own)
	}
	return report
}
