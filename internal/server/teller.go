package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// teller writes what executions and the watch over devices did into the audit record, in order and without making them
// wait. What is lost with the process, or for want of room, is not lost for good: executions keep their own events, and
// behind writes those that are missing, when the process starts and whenever the queue has overflowed.
type teller struct {
	records *records.DB
	behind  func(context.Context) error
	logger  *slog.Logger

	mu      sync.Mutex
	waiting []records.Entry // guarded by mu
	dropped int             // guarded by mu; since the queue was last emptied
	wake    chan struct{}
}

// mostWaiting bounds what is queued while the record is slow.
const mostWaiting = 10_000

func newTeller(db *records.DB, behind func(context.Context) error, logger *slog.Logger) *teller {
	return &teller{records: db, behind: behind, logger: logger, wake: make(chan struct{}, 1)}
}

// tell queues one entry of the audit record. It does not block.
func (t *teller) tell(entry records.Entry) {
	if entry.At.IsZero() {
		entry.At = time.Now()
	}
	t.mu.Lock()
	if len(t.waiting) < mostWaiting {
		t.waiting = append(t.waiting, entry)
	} else {
		t.dropped++
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends, and then a second more on what is left.
func (t *teller) run(ctx context.Context) error {
	t.catchUp(ctx)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			t.work(last)
			return nil
		case <-t.wake:
			if t.work(ctx) {
				t.catchUp(ctx)
			}
		}
	}
}

func (t *teller) catchUp(ctx context.Context) {
	if err := t.behind(ctx); err != nil && ctx.Err() == nil {
		t.logger.Error("the audit record may lack what executions did before this; the next start writes it", "error", err)
	}
}

// work writes what waits, and says whether something was dropped.
func (t *teller) work(ctx context.Context) bool {
	t.mu.Lock()
	batch, dropped := t.waiting, t.dropped
	t.waiting, t.dropped = nil, 0
	t.mu.Unlock()
	for _, entry := range batch {
		if err := t.records.Audit(ctx, entry); err != nil {
			t.logger.Error("write the audit record", "entry", entry.Action, "object", entry.Object, "error", err)
			dropped++
		}
	}
	if dropped > 0 {
		t.logger.Error("the audit record is too slow: what executions did is written again from their events", "dropped", dropped)
	}
	return dropped > 0
}
