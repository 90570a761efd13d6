package link

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// ErrSilent is why a watchdog ends a stream.
var ErrSilent = errSilent

// Watch returns what a stream's watchdog does with each message, and what it does when that has been applied; cancel is called if the stream goes silent.
func (l *Link) Watch(cancel context.CancelCauseFunc) (heard func(*l5pb.WatchResponse) error, await func()) {
	w := l.watchdog(cancel)
	return w.heard, w.await
}

// SetPatience makes the link as patient as it is after streams that went silent.
func (l *Link) SetPatience(n int) { l.patience = n }
