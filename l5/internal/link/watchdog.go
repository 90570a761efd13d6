package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// errSilent ends a stream on which the peer is no longer heard.
var errSilent = errors.New("the name service is silent although its stream is open")

// maxPatience bounds how many times the silence that ends a stream may have doubled: a slow server is not to be run over by
// those that connect again because it is slow.
const maxPatience = 8

// watchdog listens to one stream.
//
//	          first Progress                  no message for 1.5 times Config.ProgressEvery, times patience
//	trusting ----------------> watching ---------------------------------------------------------> errSilent
//	                              |   fewer messages than were sent
//	                              +-----------------------------------> an error that says so
type watchdog struct {
	link     *Link
	messages uint64 // received
	progress int    // how many of them were Progress
	timer    *time.Timer
}

// watchdog returns one that ends a stream by cancel.
func (l *Link) watchdog(cancel context.CancelCauseFunc) *watchdog {
	w := &watchdog{link: l}
	w.timer = time.AfterFunc(time.Hour, func() { cancel(errSilent) })
	w.timer.Stop()
	return w
}

// heard takes a message, and returns why the stream is of no use any more. Until await is called nothing is: what comes while a message is applied waits in
// the socket, and is no silence.
func (w *watchdog) heard(response *l5pb.WatchResponse) error {
	w.timer.Stop()
	w.messages++
	if progress := response.GetProgress(); progress != nil {
		if before := w.messages - 1; before < progress.GetMessages() {
			return fmt.Errorf("the stream lost messages: %d of %d came", before, progress.GetMessages())
		}
		if w.progress++; w.progress == 3 {
			w.link.patience = max(1, w.link.patience/2) // by and by: a server that has a moment is not yet at rest
		}
	}
	return nil
}

// await gives the peer its time to say the next.
func (w *watchdog) await() {
	if w.progress > 0 {
		w.timer.Reset(w.link.config.ProgressEvery * 3 / 2 * time.Duration(w.link.patience))
	}
}
