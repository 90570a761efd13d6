package tools_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
)

// log is a tool's stderr.
type log func([]byte)

func (l log) Write(p []byte) (int, error) {
	l(p)
	return len(p), nil
}

// The step that hands devices to gray says what the rollout waits for, with its verdict, for as long as it waits.
func TestAFlowSaysWhatItsRolloutWaitsFor(t *testing.T) {
	t.Parallel()
	w := world(t)
	hold(t, w)
	w.Outcomes.Hush(true)
	known := flow.NewTools()
	known.Handle(flow.Manifest{Name: "l5.callee.join", Effect: flow.Keyed}, func(ctx context.Context, call flow.Call) flow.Result {
		env := map[string]string{"ZHIYUN_SERVER": w.Target, "ZHIYUN_KEY": call.Key, "ZHIYUN_EXECUTION": "e1", "ZHIYUN_STEP": call.Step}
		var stdout bytes.Buffer
		if exit := tools.Run(ctx, call.Tool, bytes.NewReader(call.Input), &stdout, log(call.Log), func(name string) string { return env[name] }); exit != 0 {
			return flow.Result{Error: &flow.Error{Code: flow.CodeExit, Message: stdout.String()}}
		}
		return flow.Result{Output: stdout.Bytes()}
	})
	engine := controltest.Must(flow.New(flow.Config{Store: memstore.New(), Tools: known}))(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }() // awaited below
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	controltest.Must(engine.Save(t.Context(), []byte("flow: join\nparams: {services: any, devices: any}\n"+
		"steps: [{name: online, tool: l5.callee.join, with: {module: shop.cart, services: \"${params.services}\", devices: \"${params.devices}\"}}]\n")))(t)
	id := controltest.Must(engine.Start(t.Context(), "join", map[string]any{
		"services": json.RawMessage(cartService), "devices": json.RawMessage("[" + d1 + "," + d2 + "]"),
	}))(t)
	said := ""
	for event, err := range engine.Watch(t.Context(), id) {
		if err != nil || event.Kind == flow.EventFailed {
			x, _ := engine.Get(t.Context(), id)
			t.Fatalf("%v, %v: %v", event, err, x.Error)
		}
		if event.Kind == flow.EventAttemptWaits && strings.Contains(event.Text, "at 10 %: ") {
			said = event.Text
			break
		}
	}
	rollouts := controltest.Must(w.Gray.List(t.Context()))(t)
	if len(rollouts) != 1 || !strings.HasPrefix(said, "the rollout of shop.cart is "+string(rollouts[0].Status.State)+" at 10 %: ") || strings.HasSuffix(said, ": ") {
		t.Errorf("it says %q of %+v", said, rollouts)
	}
	if x := controltest.Must(engine.Get(t.Context(), id))(t); x.Waiting != "step online: "+said || x.Steps[0].Tasks[0].Waits != said {
		t.Errorf("it waits for %q and %q, and says %q", x.Waiting, x.Steps[0].Tasks[0].Waits, said)
	}
	w.Outcomes.Hush(false)
	if x := controltest.Must(engine.Wait(t.Context(), id))(t); x.State != flow.Done || x.Waiting != "" || x.Steps[0].Tasks[0].Waits != "" {
		t.Errorf("it is %s: %v, and waits for %q", x.State, x.Error, x.Waiting)
	}
}
