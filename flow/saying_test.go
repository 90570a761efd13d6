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

// What a tool says that it waits for is shown with its step, and its execution, while that is so, without secrets.
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
			if got := x.Waiting; x.Steps[0].Tasks[0].Waits != strings.TrimPrefix(got, "step join: ") {
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

// A tool that talks does not fill the history: what it says is stored at once, then less and less often, and never forgotten in the end.
func TestATalkativeToolIsHeardNowAndThen(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		flow.Func(w.Tools, "talk", func(ctx context.Context, _ struct{}) (struct{}, error) {
			for n := range 36_000 {
				flow.Logf(ctx, "waits: %d of 36000", n+1)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Hour)
			return struct{}{}, nil
		}, flow.WithEffect(flow.Keyed))
		id := w.Start("flow: f\nsteps: [{name: talk, tool: talk, timeout: 24h}]\n", nil)
		time.Sleep(90 * time.Minute)
		if x := w.Get(id); x.Waiting != "step talk: 36000 of 36000" {
			w.Errorf("it waits for %q", x.Waiting)
		}
		w.End(id)
		heard := 0
		for event, err := range w.Engine.History(w.Context(), id) {
			if err != nil {
				w.Fatal(err)
			}
			if event.Kind == flow.EventAttemptWaits {
				heard++
			}
		}
		if heard < 60 || heard > 70 { // once a minute, after the first
			w.Errorf("it was heard %d times in an hour", heard)
		}
	})
}
