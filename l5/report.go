package l5

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// report sends outcomes at their pace until ctx ends, and then once more.
func (c *Client) report(ctx context.Context) error {
	ticker := time.NewTicker(c.config.ReportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			c.sendReports(last)
			return ctx.Err()
		case <-ticker.C:
			c.sendReports(ctx)
		}
	}
}

// sendReports sends what was counted since the last batch, or first the batch that got no answer. That one is kept
// and sent again under its seq; meanwhile counters go on counting, so nothing is lost and nothing grows.
func (c *Client) sendReports(ctx context.Context) {
	resend := c.batch != nil
	if !resend && !c.fillBatch() || !c.sendBatch(ctx) {
		return
	}
	if resend && c.fillBatch() {
		c.sendBatch(ctx)
	}
}

// fillBatch makes a batch of what was counted, if anything was.
func (c *Client) fillBatch() bool {
	var outcomes []*l5pb.Outcome
	now := c.config.now()
	for _, s := range *c.services.Load() {
		outcomes = append(outcomes, s.outcomes(now)...)
	}
	if len(outcomes) == 0 {
		return false
	}
	c.seq++
	c.batch = &l5pb.ReportRequest{Reporter: c.id, Seq: c.seq, Outcomes: outcomes}
	return true
}

// sendBatch sends the batch, and reports whether it is settled.
func (c *Client) sendBatch(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, max(c.config.ReportEvery, time.Second))
	defer cancel()
	answer, err := c.wire.Report(ctx, connect.NewRequest(c.batch))
	switch {
	case err == nil:
		c.metrics.reports.Inc()
		c.onPatience(answer.Msg.GetPatienceMs())
	case connect.CodeOf(err) == connect.CodeInvalidArgument:
		c.config.Logger.Error("l5: the name service does not take a report; its outcomes are dropped", "error", err)
	default:
		c.metrics.reportFailures.Inc()
		return false
	}
	c.batch = nil
	return true
}
