package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/internal/outcome"
	"github.com/zhiyun-ops/zhiyun/l5/internal/stall"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// maxPending bounds the sums that wait for upstream. Beyond it the programs' reports are refused; they keep counting,
// which costs them nothing, and report the sum later.
const maxPending = 100_000

// reporterMemory is how long a program's last seq is remembered.
const reporterMemory = 10 * time.Minute

var errFull = errors.New("the agent holds as many outcomes as it may while no server takes them; keep counting and report later")

// forward folds the reports of the device's programs and sends them upstream: one batch at a time, sent again under
// its seq until it is acknowledged, while the next one folds.
type forward struct {
	wire    l5pbconnect.NameServiceClient
	id      string
	config  Config
	metrics *metrics

	mu        sync.Mutex
	pending   *outcome.Fold       // guarded by mu
	pool      stall.Pool          // guarded by mu
	reporters map[string]reporter // guarded by mu

	batch *l5pb.ReportRequest // owned by run; not acknowledged
	seq   uint64              // owned by run
}

type reporter struct {
	seq  uint64
	seen time.Time
}

func newForward(wire l5pbconnect.NameServiceClient, id string, config Config, m *metrics) *forward {
	return &forward{wire: wire, id: id, config: config, metrics: m, pending: outcome.NewFold(), reporters: make(map[string]reporter)}
}

// take folds a report in, and says for how long the calls that it tells of may be in flight before that is evidence.
func (f *forward) take(request *l5pb.ReportRequest, now time.Time) (*l5pb.ReportResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.reporters[request.GetReporter()]; request.GetSeq() <= last.seq {
		return &l5pb.ReportResponse{Duplicate: true}, nil
	}
	if f.pending.Len()+len(request.GetOutcomes()) > maxPending {
		return nil, errFull
	}
	f.reporters[request.GetReporter()] = reporter{seq: request.GetSeq(), seen: now}
	response := &l5pb.ReportResponse{}
	for _, o := range request.GetOutcomes() {
		if f.pending.Add(o) {
			f.pool.Add(now, o.GetCaller(), o.GetService(), o.GetHistogram())
		}
	}
	for _, o := range request.GetOutcomes() {
		if patience := f.pool.Patience(o.GetCaller(), o.GetService(), l5.LatencyBound); patience > 0 {
			if response.PatienceMs == nil {
				response.PatienceMs = make(map[string]int64, 1)
			}
			response.PatienceMs[o.GetService()] = max(response.PatienceMs[o.GetService()], patience.Milliseconds())
		}
	}
	return response, nil
}

func (f *forward) run(ctx context.Context) error {
	ticker := time.NewTicker(f.config.ReportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			f.flush(last)
			return ctx.Err()
		case <-ticker.C:
			f.flush(ctx)
			f.forget(f.config.now())
		}
	}
}

// flush sends the batch that waits for an answer, if any, and then what was folded since.
func (f *forward) flush(ctx context.Context) {
	if f.batch != nil && !f.send(ctx) {
		return
	}
	f.mu.Lock()
	sums := f.pending.Outcomes()
	f.pending = outcome.NewFold()
	f.mu.Unlock()
	if len(sums) == 0 {
		return
	}
	f.seq++
	f.batch = &l5pb.ReportRequest{Reporter: f.id, Seq: f.seq, Outcomes: sums}
	f.send(ctx)
}

// send sends the batch, and reports whether it is settled.
func (f *forward) send(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, max(2*f.config.ReportEvery, 2*time.Second))
	defer cancel()
	answer, err := f.wire.Report(ctx, connect.NewRequest(f.batch))
	switch {
	case err == nil:
		f.metrics.reports.Inc()
		for caller, reason := range answer.Msg.GetRefused() {
			f.metrics.refused.WithLabelValues("upstream").Inc()
			f.config.Logger.Warn("l5/agent: the server does not take this device's word for a caller's outcomes", "caller", caller, "reason", reason)
		}
	case connect.CodeOf(err) == connect.CodeInvalidArgument:
		f.config.Logger.Error("l5/agent: the server does not take a report; its outcomes are dropped", "error", err)
	default:
		f.metrics.reportFailures.Inc()
		return false
	}
	f.batch = nil
	return true
}

func (f *forward) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pool.Forget(now)
	for name, r := range f.reporters {
		if now.Sub(r.seen) > reporterMemory {
			delete(f.reporters, name)
		}
	}
}
