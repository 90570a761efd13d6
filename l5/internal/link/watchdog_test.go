package link_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/link"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

func progress(messages uint64) *l5pb.WatchResponse {
	return &l5pb.WatchResponse{Kind: &l5pb.WatchResponse_Progress{Progress: &l5pb.Progress{Messages: messages}}}
}

// A stream is silent after 1.5 s without a message, from its first Progress on; a peer that never sent one is trusted. After
// streams that went silent it takes longer, and half as long with each that has proved to be of use. What takes long to apply is no silence.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		patience int
		messages []*l5pb.WatchResponse // one each second
		silent   time.Duration         // after the last; 0: never
	}{
		{"an old peer", 1, []*l5pb.WatchResponse{snapshot("e", 1), snapshot("e", 2)}, 0},
		{"a peer that stops", 1, []*l5pb.WatchResponse{progress(0), snapshot("e", 1), progress(2)}, 1500 * time.Millisecond},
		{"the second in a row", 2, []*l5pb.WatchResponse{progress(0), progress(1)}, 3 * time.Second},
		{"the second in a row, of use", 2, []*l5pb.WatchResponse{progress(0), progress(1), progress(2), progress(3)}, 1500 * time.Millisecond},
		{"the fourth in a row, of use", 8, []*l5pb.WatchResponse{progress(0), progress(1), progress(2)}, 6 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := link.New(link.Config{Logger: slog.New(slog.DiscardHandler)})
				l.SetPatience(test.patience)
				ctx, cancel := context.WithCancelCause(t.Context())
				heard, await := l.Watch(cancel)
				for i, message := range test.messages {
					if i > 0 {
						time.Sleep(time.Second)
					}
					if err := heard(message); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Second) // it is applied
					await()
				}
				begin := time.Now()
				select {
				case <-ctx.Done():
					if got := time.Since(begin); got != test.silent || !errors.Is(context.Cause(ctx), link.ErrSilent) {
						t.Errorf("ended after %v by %v, want %v", got, context.Cause(ctx), test.silent)
					}
				case <-time.After(time.Minute):
					if test.silent != 0 {
						t.Error("the silence was not noticed")
					}
				}
				cancel(nil)
			})
		})
	}
	l := link.New(link.Config{Logger: slog.New(slog.DiscardHandler)})
	heard, _ := l.Watch(func(error) {})
	if err := errors.Join(heard(progress(0)), heard(snapshot("e", 1))); err != nil {
		t.Fatal(err)
	}
	if err := heard(progress(3)); err == nil {
		t.Error("a lost message was not noticed")
	}
}
