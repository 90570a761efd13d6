package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
)

// teller writes what the controllers did into the audit record, and takes notices of it to the notification center,
// in order and without making them wait. What each did is in its own store before it is told here: this is
// for people to read, nobody goes on from it.
type teller struct {
	records *records.DB
	notify  func() *center.Notify
	logger  *slog.Logger

	mu      sync.Mutex
	waiting []func(context.Context) error // guarded by mu
	dropped int                           // guarded by mu; since the queue was last emptied
	wake    chan struct{}
}

// mostWaiting bounds what is queued while the record is slow. What comes beyond it is dropped, and that is logged: the
// controllers' own records have it all the same.
const mostWaiting = 10_000

func newTeller(db *records.DB, notify func() *center.Notify, logger *slog.Logger) *teller {
	return &teller{records: db, notify: notify, logger: logger, wake: make(chan struct{}, 1)}
}

// tell queues one entry of the audit record. It does not block.
func (t *teller) tell(actor, action, object, reason, execution string, detail any) {
	entry := records.Entry{At: time.Now(), Actor: actor, Action: action, Object: object, Reason: reason, Execution: execution}
	if detail != nil {
		if content, err := json.Marshal(detail); err == nil {
			entry.Detail = content
		}
	}
	t.queue(func(ctx context.Context) error { return t.records.Audit(ctx, entry) })
}

// notice queues one notice. It does not block.
func (t *teller) notice(notice center.Notice) {
	t.queue(func(ctx context.Context) error {
		_, err := t.notify().Deliver(ctx, notice)
		return err
	})
}

func (t *teller) queue(job func(context.Context) error) {
	t.mu.Lock()
	if len(t.waiting) < mostWaiting {
		t.waiting = append(t.waiting, job)
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
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			t.work(last)
			return nil
		case <-t.wake:
			t.work(ctx)
		}
	}
}

func (t *teller) work(ctx context.Context) {
	t.mu.Lock()
	batch, dropped := t.waiting, t.dropped
	t.waiting, t.dropped = nil, 0
	t.mu.Unlock()
	if dropped > 0 {
		t.logger.Error("the audit record is too slow: entries and notices were dropped", "dropped", dropped)
	}
	for _, job := range batch {
		if err := job(ctx); err != nil {
			t.logger.Error("write the audit record or deliver a notice", "error", err)
		}
	}
}
