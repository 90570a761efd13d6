package flow_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/flowtest"
)

// However a log is cut into pieces, what comes out is what striking it out as a whole gives: nothing of a secret, and all of the rest.
func TestSecretsAreStruckOutOfPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[ab"]{4,7}`).Draw(t, "secret")
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{secret, secret[:3], secret[1:], "a", "b", "\"", "\n", "x"})).Draw(t, "text"), "")
		quoted := strings.ReplaceAll(secret, `"`, `\"`)
		want := strings.ReplaceAll(text, secret, "******")
		if quoted != secret {
			want = strings.ReplaceAll(strings.ReplaceAll(text, quoted, "******"), secret, "******")
		}
		var out strings.Builder
		w := flow.NewStriker(&out, []string{secret})
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			if _, err := w.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want || strings.Contains(got, secret) {
			t.Fatalf("%q in pieces is %q, want %q", text, got, want)
		}
	})
}

// Programs escape what they write into JSON in their own ways. However they do, what reads as the secret is struck out.
func TestSecretsAreStruckOutHoweverTheyAreEscaped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ secret, escaped string }{
		"as Python does":     {"密码-staple", `\u5bc6\u7801-staple`},
		"in capitals":        {"密码-staple", `\u5BC6\u7801-staple`},
		"beyond 16 bits":     {"key😀s", `key\ud83d\ude00s`},
		"as PHP does":        {"a/b/cdef", `a\/b\/cdef`},
		"both":               {"é/cdef", `\u00e9\/cdef`},
		"for HTML":           {"<a&b>", `\u003ca\u0026b\u003e`},
		"as JavaScript does": {`<a"&b>`, `<a\"&b>`},
		"for no reason":      {"password1", `\u0070assword1`},
		"in short":           {"a/b", `a\/b`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flowtest.Run(t, func(w *flowtest.World) {
				text := func(x string) string {
					return `{"text": "` + x + `", "list": [{"` + x + `": 1}], "said": "in {\"a\": \"b\"}"}`
				}
				w.Fake(flow.Manifest{Name: "say", Effect: flow.Pure}, flowtest.Returns(text(c.escaped)))
				id := w.Start("flow: f\nparams: {pw: secret}\nsteps: [{name: say, tool: say, with: {pw: \"${params.pw}\"}}]\n", map[string]any{"pw": c.secret})
				x := w.End(id)
				shown := []any{x}
				for event, err := range w.Engine.History(w.Context(), id) {
					if err != nil {
						w.Fatal(err)
					}
					shown = append(shown, event)
				}
				for _, one := range shown {
					var value any
					data, err := json.Marshal(one)
					if err == nil {
						err = json.Unmarshal(data, &value)
					}
					if read := fmt.Sprint(value); err != nil || strings.Contains(read, "text:"+c.secret) || len(c.secret) > 3 && strings.Contains(read, c.secret) {
						w.Errorf("shown: %s, %v", data, err)
					}
				}
				if got := string(x.Steps[0].Output); !strings.Contains(got, `"text":"******"`) || !strings.Contains(got, `"in {\"a\": \"b\"}"`) {
					w.Errorf("the output is shown as %s", got)
				}
			})
		})
	}
}

// A text that a tool writes to its log is that of some program, too.
func TestSecretsAreStruckOutOfLogsHoweverTheyAreEscaped(t *testing.T) {
	t.Parallel()
	for secret, texts := range map[string][]string{
		"密码-staple": {"密码-staple", `\u5bc6\u7801-staple`},
		`a/"<b>"c`:  {`a/"<b>"c`, `a/\"\u003cb\u003e\"c`, `a/\"<b>\"c`, `a\/\"<b>\"c`},
		"plain123":  {"plain123"},
	} {
		for _, text := range texts {
			var out strings.Builder
			w := flow.NewStriker(&out, []string{"plain", secret})
			if _, err := w.Write([]byte("in " + text + " out")); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil || out.String() != "in ****** out" {
				t.Errorf("%s: %q, %v", text, out.String(), err)
			}
		}
	}
}

// A secret that is the beginning of another leaves nothing of that one, whichever of them comes first.
func TestSecretsWithinSecretsAreStruckOut(t *testing.T) {
	t.Parallel()
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		flowtest.Run(t, func(w *flowtest.World) {
			w.Fake(flow.Manifest{Name: "say", Effect: flow.Pure}, flowtest.Fails("bad", "abcd1234efgh is wrong"))
			id := w.Start("flow: f\nparams: {a: secret, b: secret}\nsteps: [{name: say, tool: say}]\n", map[string]any{names[0]: "abcd1234", names[1]: "abcd1234efgh"})
			if x := w.End(id); x.Error.Message != "step say: ****** is wrong" {
				w.Errorf("shown: %q", x.Error.Message)
			}
		})
	}
}

// What was a secret of the version from which an execution was moved stays one, and what is one of the version to which it goes is struck out of
// all that was before.
func TestSecretsOfAllVersionsAreStruckOut(t *testing.T) {
	t.Parallel()
	flowtest.Run(t, func(w *flowtest.World) {
		w.Fake(flow.Manifest{Name: "say", Effect: flow.Pure}, flowtest.Returns(`{}`))
		steps := "steps:\n  - {name: say, tool: say, with: {old: \"${params.old}\", new: \"${params.new}\"}}\n  - {name: ask, approve: {text: well}}\n"
		id := w.Start("flow: f\nparams: {old: secret, new: string}\n"+steps, map[string]any{"old": "was-secret", "new": "is-secret"})
		w.Until(id, flow.EventStepParked)
		if _, err := w.Engine.Save(w.Context(), []byte("flow: f\nparams: {old: string, new: secret}\n"+steps)); err != nil {
			w.Fatal(err)
		}
		if err := w.Engine.Migrate(w.Context(), id, flow.Intervention{Actor: "ann"}); err != nil {
			w.Fatal(err)
		}
		export, err := w.Engine.Export(w.Context(), id)
		if err != nil {
			w.Fatal(err)
		}
		shown := []any{w.Get(id), export}
		for event, err := range w.Engine.History(w.Context(), id) {
			shown = append(shown, event, fmt.Sprint(err))
		}
		for _, one := range shown {
			if data, err := json.Marshal(one); err != nil || strings.Contains(string(data), "-secret") {
				w.Errorf("%T shows it: %s, %v", one, data, err)
			}
		}
	})
}
