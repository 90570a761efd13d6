package flow_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// What a tool says that it waits for is shown with its step while that is so, without secrets, and stored nowhere.
func TestAToolSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		flow.Func(w.Tools, "join", func(ctx context.Context, _ struct{}) (struct{}, error) {
			for _, text := range []string{"begins", "waits: the rollout holds: sesame-open", "looks again", "waits:", "goes on", "waits: " + strings.Repeat("x", 9000)} {
				flow.Logf(ctx, "%s", text)
				time.Sleep(time.Hour)
			}
			return struct{}{}, nil
		}, flow.WithEffect(flow.Keyed))
		id := w.Start("flow: f\nparams: {token: secret}\nsteps: [{name: join, tool: join, timeout: 24h}]\n", map[string]any{"token": "sesame-open"})
		var said []string
		for range 6 {
			time.Sleep(30 * time.Minute)
			x := w.Get(id)
			said = append(said, x.Steps[0].Tasks[0].Waits)
			if got := x.Wake.For; x.Steps[0].Tasks[0].Waits != strings.TrimPrefix(got, "step join: ") {
				w.Errorf("it waits for %q", got)
			}
			time.Sleep(30 * time.Minute)
		}
		x := w.End(id)
		said = append(said, x.Steps[0].Tasks[0].Waits)
		const holds = "the rollout holds: ******"
		if diff := cmp.Diff([]string{"", holds, holds, "", "", strings.Repeat("x", 1017), ""}, said); diff != "" {
			w.Errorf("it said (-want +got):\n%s", diff)
		}
	})
}
