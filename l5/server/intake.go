package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/outcome"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// intake folds the batches that reporters send and hands them to the sink, each once. While one fold is on its way to
// the sink, the batches that arrive make the next: the busier it is, the larger the folds.
//
//	batch: new ------> pending ------> flushing --sink took it--> counted (seq remembered)
//	         |                             |
//	         +--seq known: duplicate       +--sink failed--> forgotten; the reporter sends it again
type intake struct {
	sink    Sink
	metrics *metrics
	wake    chan struct{}
	exists  func(service, addr string) (ofService, ofInstance bool) // what there is: nothing is remembered of what is only told of

	mu        sync.Mutex
	reporters map[string]*reporter    // guarded by mu
	busy      map[[2]string]time.Time // guarded by mu; by service and address: see Leaving
	pending   *fold                   // guarded by mu
	stopped   bool                    // guarded by mu
}

// reporter is one run of a reporting process.
type reporter struct {
	counted uint64 // the highest seq that the sink has
	open    uint64 // the seq in a fold, 0 if none
	fold    *fold  // that fold
	seen    time.Time

	services map[string]hearing     // by service; nil until it tells of one
	told     time.Time              // when it last told of any
	busy     map[[2]string]struct{} // by service and address: of what it told then that calls are in flight
}

// fold is what goes to the sink in one call.
type fold struct {
	outcomes *outcome.Fold
	batches  map[*reporter]uint64
	done     chan struct{} // closed when err is set
	err      error
}

// errStopped refuses reports while the server stops; reporters send them again elsewhere.
var errStopped = errors.New("the server is stopping; send the report again")

// A reporter that was silent for reporterMemory is forgotten, and all of maxOutcomes is too much for one fold.
const (
	reporterMemory = 10 * time.Minute
	maxOutcomes    = 200_000
)

// errBusy refuses reports that the sink cannot keep up with.
var errBusy = errors.New("more outcomes are waiting than the sink takes; send the report again later")

// maxReporters bounds the reporters that are told apart: who reports names itself.
const maxReporters = 100_000

// maxReporterID bounds the name of one, in bytes.
const maxReporterID = 256

func newIntake(sink Sink, exists func(service, addr string) (ofService, ofInstance bool)) *intake {
	return &intake{sink: sink, exists: exists, wake: make(chan struct{}, 1), reporters: make(map[string]*reporter), busy: make(map[[2]string]time.Time), pending: newFold()}
}

func newFold() *fold {
	return &fold{outcomes: outcome.NewFold(), batches: make(map[*reporter]uint64), done: make(chan struct{})}
}

// take counts a batch and returns when the sink has it.
func (in *intake) take(ctx context.Context, request *l5pb.ReportRequest, now time.Time) (duplicate bool, err error) {
	f, duplicate, err := in.add(request, now)
	if err != nil || f == nil {
		return duplicate, err
	}
	select {
	case <-f.done:
		return duplicate, f.err
	case <-ctx.Done():
		return duplicate, context.Cause(ctx)
	}
}

// add puts a batch into a fold, and returns the fold to wait for; nil if the batch was counted long ago.
func (in *intake) add(request *l5pb.ReportRequest, now time.Time) (*fold, bool, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopped {
		return nil, false, errStopped
	}
	r := in.reporters[request.GetReporter()]
	if r == nil {
		if len(in.reporters) >= maxReporters {
			return nil, false, fmt.Errorf("reporter %q is one more than the %d that are told apart; those that are silent for %v are forgotten: send the report again later",
				request.GetReporter(), maxReporters, reporterMemory)
		}
		r = &reporter{}
		in.reporters[request.GetReporter()] = r
	}
	r.seen = now
	switch {
	case request.GetSeq() <= r.counted:
		return nil, true, nil
	case r.open != 0 && request.GetSeq() <= r.open:
		return r.fold, true, nil // a resend while the first one is under way shares its fate
	case r.open != 0:
		return nil, false, fmt.Errorf("batch %d came before batch %d was acknowledged; send one at a time", request.GetSeq(), r.open)
	case in.pending.outcomes.Len()+len(request.GetOutcomes()) > maxOutcomes:
		return nil, false, errBusy
	}
	f := in.pending
	for _, o := range request.GetOutcomes() {
		if f.outcomes.Add(o) {
			in.hear(r, o.GetService(), o.GetAddr(), o.GetRequests(), o.GetInFlight(), now)
		}
	}
	f.batches[r] = request.GetSeq()
	r.open, r.fold = request.GetSeq(), f
	select {
	case in.wake <- struct{}{}:
	default:
	}
	return f, false, nil
}

// run hands folds to the sink until ctx ends; then it flushes the last and refuses more.
func (in *intake) run(ctx context.Context) error {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			in.mu.Lock()
			in.stopped = true
			in.mu.Unlock()
			in.flush(last)
			return ctx.Err()
		case <-in.wake:
			in.flush(ctx)
		case now := <-sweep.C:
			in.forget(now)
		}
	}
}

// flush hands the pending fold to the sink and tells its reporters.
func (in *intake) flush(ctx context.Context) {
	in.mu.Lock()
	f := in.pending
	in.pending = newFold()
	in.mu.Unlock()
	var requests, failures int64
	outcomes := make([]Outcome, 0, f.outcomes.Len())
	for _, o := range f.outcomes.Outcomes() {
		outcomes = append(outcomes, Outcome{
			Caller: o.GetCaller(), Service: o.GetService(), Addr: o.GetAddr(), Device: o.GetDevice(), Requests: o.GetRequests(),
			Failures: o.GetFailures(), Rejected: o.GetRejected(), LatencySum: time.Duration(o.GetLatencySum()),
			Histogram: o.GetHistogram(), Reports: o.GetReports(),
		})
		requests += o.GetRequests()
		failures += o.GetFailures()
	}
	if in.sink != nil && len(outcomes) > 0 {
		if err := in.sink.Outcomes(ctx, outcomes); err != nil {
			f.err = fmt.Errorf("the sink did not take the outcomes: %w", err)
		}
	}
	in.mu.Lock()
	for r, seq := range f.batches {
		if f.err == nil {
			r.counted = seq
		}
		r.open, r.fold = 0, nil
	}
	in.mu.Unlock()
	close(f.done)
	if f.err == nil {
		in.metrics.requests.Add(float64(requests))
		in.metrics.failures.Add(float64(failures))
	}
}

// forget drops reporters that have been silent.
func (in *intake) forget(now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for name, r := range in.reporters {
		if r.open == 0 && now.Sub(r.seen) > reporterMemory {
			delete(in.reporters, name)
		}
	}
	in.forgetHeard(now)
}
