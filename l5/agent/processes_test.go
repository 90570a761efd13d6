package agent_test

import (
	"encoding/json"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// An agent is asked why, and asks the processes that call the service, also while no server answers.
func TestProcessesExplain(t *testing.T) {
	t.Parallel()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "a", Addr: "127.0.0.1:1", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	a, _ := l5test.Agent(t, s.Target(), nil)
	for _, caller := range []string{"shop.web", "shop.app", "idle"} {
		client := l5test.Client(t, a.Target(), func(c *l5.Config) { c.Caller = caller })
		if caller == "idle" {
			continue
		}
		route, err := client.Route(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		route.Done(l5.Outcome{Latency: time.Millisecond})
	}
	httpClient, base, err := transport.Dial(transport.DialConfig{Target: a.Target()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(httpClient.CloseIdleConnections)
	explain := func() []*l5pb.Process {
		t.Helper()
		response, err := l5pbconnect.NewNameServiceClient(httpClient, base).Explain(t.Context(), connect.NewRequest(&l5pb.ExplainRequest{Service: "a", Processes: true}))
		if err != nil {
			t.Fatal(err)
		}
		return response.Msg.GetProcesses()
	}
	for _, server := range []string{"there", "gone"} {
		callers := make(map[string]bool)
		for _, process := range explain() {
			var e l5.Explanation
			if err := json.Unmarshal(process.GetExplanation(), &e); err != nil {
				t.Fatalf("%s: %v: %q", process.GetPeer(), err, process.GetExplanation())
			}
			callers[e.Caller] = len(e.Instances) == 1 && e.Instances[0].Successes == 1 && process.GetPeer() != ""
		}
		if len(callers) != 2 || !callers["shop.web"] || !callers["shop.app"] {
			t.Errorf("with the server %s: %v", server, callers)
		}
		s.Kill()
	}
}
