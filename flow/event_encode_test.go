package flow_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// What is written by hand reads as what encoding/json would have written.
func TestEventsSurviveTheirEncoding(t *testing.T) {
	t.Parallel()
	object := rapid.Custom(func(t *rapid.T) json.RawMessage {
		data, err := json.Marshal(map[string]any{"text": rapid.String().Draw(t, "text"), "n": rapid.IntRange(0, 9).Draw(t, "n")})
		if err != nil {
			t.Fatal(err)
		}
		return data
	})
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) flow.Event {
			text := func(name string) string { return rapid.OneOf(rapid.Just(""), rapid.String()).Draw(t, name) }
			e := flow.Event{
				Kind: flow.EventKind(text("kind")), Step: text("step"), Item: rapid.IntRange(0, 3).Draw(t, "item"), Items: rapid.IntRange(0, 3).Draw(t, "items"),
				Attempt: rapid.IntRange(0, 3).Draw(t, "attempt"), Again: rapid.Bool().Draw(t, "again"), Device: text("device"), Tool: text("tool"),
				Logs: text("logs"), Target: flow.State(text("target")), Actor: text("actor"), Reason: text("reason"), Text: text("said"), Severity: text("severity"),
				Flow: text("flow"), Version: rapid.IntRange(0, 3).Draw(t, "version"), Key: text("key"), Parent: text("parent"),
			}
			if rapid.Bool().Draw(t, "data") {
				e.Input, e.Output = object.Draw(t, "input"), object.Draw(t, "output")
				e.Error = &flow.Error{Code: text("code"), Message: text("message"), Unknown: true}
				e.Params = map[string]any{"p": text("param")}
				e.RetryAt = time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 123_456_000).UTC()
			}
			return e
		}), 1, 4).Draw(t, "events")
		want, err := json.Marshal(events)
		if err != nil {
			t.Fatal(err)
		}
		var wanted []flow.Event
		if err := json.Unmarshal(want, &wanted); err != nil {
			t.Fatal(err)
		}
		got, err := flow.DecodeEvents("", flow.Record{Body: flow.EncodeEvents(events)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i].Seq = 0
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// So does a value of an expression, to the byte: digests and keys may be made of it.
func TestValuesSurviveTheirEncoding(t *testing.T) {
	t.Parallel()
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(v bool) any { return v }), rapid.Map(rapid.Int64(), func(v int64) any { return v }),
		rapid.Map(rapid.String(), func(v string) any { return v }), rapid.Map(rapid.Float64Range(-1e30, 1e30), func(v float64) any { return v }),
	)
	value := rapid.Deferred(func() *rapid.Generator[any] {
		list := rapid.Map(rapid.SliceOfN(scalar, 0, 4), func(v []any) any { return append([]any{}, v...) })
		object := rapid.Map(rapid.MapOfN(rapid.String(), rapid.OneOf(scalar, list), 0, 4), func(v map[string]any) any { return v })
		return rapid.OneOf(scalar, list, object)
	})
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := flow.AppendValue(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}
