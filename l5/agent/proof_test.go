package agent_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

var errStranger = errors.New("nobody here has started it")

// proving starts an agent whose programs are what standing says.
func proving(t *testing.T, standing agent.Standing, fault error) (*agent.Agent, *prometheus.Registry) {
	t.Helper()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(within(t), []l5.Instance{{Service: "shop.cart", Addr: "127.0.0.1:1", Share: 100, State: l5.StateUp}}); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	a, _ := l5test.Agent(t, s.Target(), func(c *agent.Config) {
		c.Metrics = registry
		c.Prove = func(_ context.Context, p agent.Process) (agent.Standing, error) {
			if p.PID != os.Getpid() || int(p.UID) != os.Getuid() {
				t.Errorf("the kernel names %+v, want this process", p)
			}
			return standing, fault
		}
	})
	return a, registry
}

// refusals counts what was refused, by what was asked.
func refusals(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, family := range families {
		if family.GetName() == "zhiyun_l5_agent_refused_total" {
			for _, m := range family.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}

func wire(t *testing.T, a *agent.Agent) l5pbconnect.NameServiceClient {
	t.Helper()
	client, base, err := transport.Dial(transport.DialConfig{Target: a.Target()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return l5pbconnect.NewNameServiceClient(client, base)
}

func routeAs(t *testing.T, a *agent.Agent, caller string) error {
	t.Helper()
	client, err := l5.New(l5.Config{Target: a.Target(), Caller: caller})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r, err := client.Route(ctx, "shop.cart")
	if err == nil {
		r.Done(l5.Outcome{Err: context.Canceled})
	}
	return err
}

// A process gets routes, reports and registers as its own module, and as no other; what is refused is named and counted.
func TestAProcessSpeaksForItsOwnModule(t *testing.T) {
	t.Parallel()
	a, registry := proving(t, agent.Standing{Module: "shop.web"}, nil)
	if err := routeAs(t, a, "shop.web"); err != nil {
		t.Errorf("its own module: %v", err)
	}
	if err := routeAs(t, a, "shop.pay"); !errors.Is(err, l5.ErrDenied) || !strings.Contains(err.Error(), `of module "shop.web", and cannot speak for "shop.pay"`) {
		t.Errorf("another module: %v", err)
	}
	names := wire(t, a)
	report := func(seq uint64, callers ...string) error {
		q := &l5pb.ReportRequest{Reporter: "p", Seq: seq}
		for _, caller := range callers {
			q.Outcomes = append(q.Outcomes, &l5pb.Outcome{Caller: caller, Service: "shop.cart", Addr: "127.0.0.1:1", Requests: 1, Reports: 1})
		}
		_, err := names.Report(within(t), connect.NewRequest(q))
		return err
	}
	if err := report(1, "shop.web"); err != nil {
		t.Errorf("a report of its own calls: %v", err)
	}
	if err := report(2, "shop.web", "shop.pay"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a report of another's calls: %v", err)
	}
	stream := names.Register(within(t))
	defer stream.CloseResponse()
	defer stream.CloseRequest()
	seq := uint64(0)
	ask := func(q *l5pb.RegisterRequest) string {
		t.Helper()
		seq++
		q.Owner, q.Seq = "p", seq
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetFault()
	}
	own := &l5pb.Instance{Service: "shop.web", Addr: "127.0.0.1:7"}
	if fault := ask(&l5pb.RegisterRequest{Put: []*l5pb.Instance{own}}); fault != "" {
		t.Errorf("its own instance: %s", fault)
	}
	if err := a.Register(within(t), l5.Instance{Service: "shop.pay", Addr: "127.0.0.1:8", Share: 100}); err != nil {
		t.Fatal(err)
	}
	key := []*l5pb.Key{{Service: "shop.pay", Addr: "127.0.0.1:8"}}
	for what, q := range map[string]*l5pb.RegisterRequest{
		"registers as another": {Put: []*l5pb.Instance{{Service: "shop.pay", Addr: "127.0.0.1:9", Module: "shop.pay"}}},
		"takes over":           {Put: []*l5pb.Instance{{Service: "shop.pay", Addr: "127.0.0.1:8"}}},
		"removes":              {Remove: key},
		"drains":               {Drain: key},
	} {
		if fault := ask(q); !strings.Contains(fault, "cannot speak for") {
			t.Errorf("a process %s what is another's: %q", what, fault)
		}
	}
	if got := refusals(t, registry); got["route"] == 0 || got["report"] != 1 || got["register"] != 1 || got["change"] != 3 {
		t.Errorf("counted %v", got)
	}
}

func TestAProcessThatNobodyVouchesForGetsNothing(t *testing.T) {
	t.Parallel()
	a, _ := proving(t, agent.Standing{}, errStranger)
	if err := routeAs(t, a, "shop.web"); !errors.Is(err, l5.ErrDenied) || !strings.Contains(err.Error(), errStranger.Error()) {
		t.Errorf("a route: %v", err)
	}
	_, err := wire(t, a).Report(within(t), connect.NewRequest(&l5pb.ReportRequest{Reporter: "p", Seq: 1, Outcomes: []*l5pb.Outcome{{Caller: "shop.web"}}}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a report: %v", err)
	}
	believed, _ := proving(t, agent.Standing{Any: true}, nil)
	if err := routeAs(t, believed, "shop.pay"); err != nil {
		t.Errorf("where it is believed: %v", err)
	}
}
