package agent_test

import (
	"sync"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// BenchmarkFanOut is one change from the server's store, through an agent, to 10 processes of its device, each of which decodes it.
func BenchmarkFanOut(b *testing.B) {
	const processes, addr = 10, "127.0.0.1:1"
	s := l5test.NewServer(b, nil)
	if err := s.Name().Register(b.Context(), []l5.Instance{{Service: "a", Addr: addr}}); err != nil {
		b.Fatal(err)
	}
	device, _ := l5test.Agent(b, s.Target(), nil)
	var arrived sync.WaitGroup
	for range processes {
		client, base, err := transport.Dial(transport.DialConfig{Target: device.Target(), Direct: []string{l5pbconnect.NameServiceWatchProcedure}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(client.CloseIdleConnections)
		stream := l5pbconnect.NewNameServiceClient(client, base).Watch(b.Context())
		b.Cleanup(func() { stream.CloseResponse() })
		if err := stream.Send(&l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{{Service: "a", Caller: "c"}}}); err != nil {
			b.Fatal(err)
		}
		arrived.Add(1)
		go func() { // ends with its stream
			for {
				response, err := stream.Receive()
				if err != nil {
					return
				}
				if response.GetSnapshot() != nil || response.GetDelta() != nil {
					arrived.Done()
				}
			}
		}()
	}
	arrived.Wait()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		arrived.Add(processes)
		if err := s.Name().SetShare(b.Context(), "a", map[string]int{addr: 1 + i%99}); err != nil {
			b.Fatal(err)
		}
		arrived.Wait()
	}
}
