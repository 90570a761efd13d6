package server_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// Who leaves is forgotten; who breaks off is lost until the caller is back.
func TestAudienceTellsLeavingFromBreakingOff(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	ask := []*l5pb.Subscription{{Service: "a", Caller: "c"}, {Service: "b", Caller: "c"}}
	open := func() (send func(*l5pb.WatchRequest), leave func() error) {
		t.Helper()
		stream := wire(t, s.Target()).Watch(within(t))
		send = func(request *l5pb.WatchRequest) {
			t.Helper()
			if err := stream.Send(request); err != nil {
				t.Fatal(err)
			}
		}
		send(&l5pb.WatchRequest{Subscribe: ask})
		return send, stream.CloseRequest
	}
	await := func(want ...server.Audience) {
		t.Helper()
		l5test.Await(t, fmt.Sprint("the audience is ", want), func() bool { return cmp.Equal(want, s.Name().Audience()) })
	}
	send, leave := open()
	await(server.Audience{Service: "a", Watching: 1}, server.Audience{Service: "b", Watching: 1})
	open()
	await(server.Audience{Service: "a", Watching: 2}, server.Audience{Service: "b", Watching: 2})
	send(&l5pb.WatchRequest{Unsubscribe: ask[1:]})
	send(&l5pb.WatchRequest{Unsubscribe: ask[1:]}) // twice is once
	await(server.Audience{Service: "a", Watching: 2}, server.Audience{Service: "b", Watching: 1})
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	await(server.Audience{Service: "a", Watching: 1}, server.Audience{Service: "b", Watching: 1})
	s.Cut() // the network is gone
	await(server.Audience{Service: "a", Lost: 1}, server.Audience{Service: "b", Lost: 1})
	_, leave = open() // and back
	await(server.Audience{Service: "a", Watching: 1}, server.Audience{Service: "b", Watching: 1})
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	l5test.Await(t, "nobody is left", func() bool { return len(s.Name().Audience()) == 0 })
}
