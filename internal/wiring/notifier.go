package wiring

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// Notifier hands what flows want told to the notification center.
type Notifier struct{ Center *center.Notify }

// Notify implements flow.Notifier. A notice that comes twice under one ID is delivered once.
func (n Notifier) Notify(ctx context.Context, notice flow.Notice) error {
	_, err := n.Center.Deliver(ctx, center.Notice{
		ID: notice.ID, Kind: "flow." + notice.Kind, Severity: center.Severity(notice.Severity),
		Text: notice.Flow + " " + notice.Execution + ": " + notice.Text, At: notice.At,
	})
	return err
}
