package l5_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// listening is a name service with service "a" that passes doubts on.
func listening(doubts chan<- *l5pb.Doubt) *liar {
	return &liar{say: func(stream *connect.BidiStream[l5pb.WatchRequest, l5pb.WatchResponse]) error {
		for _, message := range []*l5pb.WatchResponse{
			{Kind: &l5pb.WatchResponse_Health{Health: &l5pb.Health{}}},
			{Kind: &l5pb.WatchResponse_Verdict{Verdict: &l5pb.Verdict{Service: "a", Caller: "test.caller", Allowed: true}}},
			{Kind: &l5pb.WatchResponse_Snapshot{Snapshot: &l5pb.Snapshot{
				Service: "a", Epoch: "e", Revision: 1, Instances: []*l5pb.Instance{{Addr: "127.0.0.1:1", Weight: 100}, {Addr: "127.0.0.1:2", Weight: 100}},
			}}},
		} {
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		for {
			request, err := stream.Receive()
			if err != nil {
				return nil
			}
			for _, d := range request.GetDoubts() {
				doubts <- d
			}
		}
	}}
}

// A call that waits for far longer than others took is told before it is over, and taken back when it is.
func TestWaitIsToldAndTakenBack(t *testing.T) {
	t.Parallel()
	doubts := make(chan *l5pb.Doubt, 100)
	c := l5test.Client(t, serve(t, listening(doubts)), func(c *l5.Config) { c.TickEvery = 5 * time.Millisecond })
	next := func() *l5pb.Doubt {
		select {
		case d := <-doubts:
			return d
		case <-within(t).Done():
			t.Fatal("no doubt came")
			return nil
		}
	}
	for range 20 {
		route(t, c, "a")
	}
	r, err := c.Route(within(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	d := next()
	if d.GetKind() != l5pb.Doubt_KIND_STALLED || d.GetService() != "a" || d.GetAddr() != r.Addr() || d.GetRow() != 1 || d.GetText() == "" {
		t.Errorf("told while it waits: %v", d)
	}
	r.Done(l5.Outcome{Latency: time.Second})
	if d := next(); d.GetKind() != l5pb.Doubt_KIND_STALLED || d.GetAddr() != r.Addr() || d.GetRow() != 0 {
		t.Errorf("told when it is over: %v", d)
	}
}
