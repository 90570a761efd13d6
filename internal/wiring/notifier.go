package wiring

import (
	"context"
	"strings"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// Notifier hands what flows want told to the notification center.
type Notifier struct{ Center *center.Notify }

// Notify implements flow.Notifier. A notice that comes twice under one ID is delivered once. Flows bound neither texts nor what they call a module, the center does:
// what it would refuse for good is cut, or left out.
func (n Notifier) Notify(ctx context.Context, notice flow.Notice) error {
	out := center.Notice{
		ID: notice.ID, Kind: "flow." + notice.Kind, Severity: center.Severity(notice.Severity),
		Text: notice.Flow + " " + notice.Execution + ": " + notice.Text, At: notice.At,
	}
	if center.IsName(notice.Module) {
		out.Module = notice.Module
	}
	if len(out.Text) > center.MostText {
		out.Text = strings.ToValidUTF8(out.Text[:center.MostText-len(cutOff)], "") + cutOff
	}
	_, err := n.Center.Deliver(ctx, out)
	return err
}

// cutOff ends a text that was cut.
const cutOff = " ..."
