package drift

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// outbox hands reports to the Reporter, the newest only, without making the agent wait. What was closed is kept
// until a report that tells of it was taken.
type outbox struct {
	reporter Reporter
	logger   *slog.Logger
	failed   func()
	wake     chan struct{} // holds one

	mu     sync.Mutex
	next   *Report   // guarded by mu
	closed []Finding // guarded by mu; not yet told, the newest maxClosed
}

// maxClosed bounds what is kept for a Reporter that does not answer.
const maxClosed = 1000

func newOutbox(r Reporter, logger *slog.Logger, failed func()) *outbox {
	return &outbox{reporter: r, logger: logger, failed: failed, wake: make(chan struct{}, 1)}
}

func (o *outbox) close(f Finding) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = append(o.closed, f)
	if len(o.closed) > maxClosed {
		o.closed = o.closed[len(o.closed)-maxClosed:]
	}
}

func (o *outbox) post(r Report) {
	o.mu.Lock()
	o.next = &r
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() (Report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next == nil {
		return Report{}, false
	}
	r := *o.next
	o.next = nil
	r.Closed, o.closed = o.closed, nil
	return r, true
}

// back puts a report that was not taken in again, unless there is a newer one.
func (o *outbox) back(r Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = append(r.Closed, o.closed...)
	if len(o.closed) > maxClosed {
		o.closed = o.closed[len(o.closed)-maxClosed:]
	}
	if o.next == nil {
		r.Closed = nil
		o.next = &r
	}
}

// run reports until ctx ends; then it tries once more for what is left.
func (o *outbox) run(ctx context.Context) {
	pause := time.Duration(0)
	for {
		if !o.wait(ctx, pause) {
			o.last(context.WithoutCancel(ctx))
			return
		}
		r, ok := o.take()
		if !ok {
			continue
		}
		err := o.reporter.Report(ctx, r)
		if err == nil {
			if pause > 0 {
				o.logger.Info("drift: reports are taken again")
			}
			pause = 0
			continue
		}
		o.back(r)
		if ctx.Err() == nil {
			if o.failed(); pause == 0 {
				o.logger.Warn("drift: a report was not taken; findings are kept and it is tried again", "error", err)
			}
			pause = min(max(2*pause, time.Second), 30*time.Second)
		}
	}
}

// wait returns when there is something to report and pause is over, or false when ctx ends.
func (o *outbox) wait(ctx context.Context, pause time.Duration) bool {
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		}
	}
	select {
	case <-ctx.Done():
		return false
	case <-o.wake:
		return true
	}
}

func (o *outbox) last(ctx context.Context) {
	r, ok := o.take()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := o.reporter.Report(ctx, r); err != nil {
		o.failed()
		o.logger.Warn("drift: the last report was not taken", "error", err, "findings", len(r.Findings))
	}
}
