package etcdstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/etcdstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// What was registered is there after a restart over the same folder (I9).
func TestRegistryOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	round := func(use func(ctx context.Context, s *server.Server)) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		store, closeStore, err := etcdstore.Open(ctx, etcdstore.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer closeStore()
		s, err := server.New(server.Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(running) }()
		if err := s.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		use(ctx, s)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	round(func(ctx context.Context, s *server.Server) {
		if err := s.Register(ctx, []l5.Instance{{Service: "a", Addr: "127.0.0.1:1"}, {Service: "a", Addr: "[::1]:2"}}); err != nil {
			t.Fatal(err)
		}
		if err := s.SetShare(ctx, "a", map[string]int{"[::1]:2": 50}, server.Fence(3)); err != nil {
			t.Fatal(err)
		}
		if err := s.Deregister(ctx, "a", "127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
	})
	round(func(ctx context.Context, s *server.Server) {
		if got := s.Instances("a"); len(got) != 1 || got[0].Share != 50 {
			t.Errorf("after a restart: %+v", got)
		}
		if err := s.SetShare(ctx, "a", map[string]int{"[::1]:2": 0}, server.Fence(2)); err == nil {
			t.Error("the fence did not outlive the restart")
		}
	})
}
