package flow_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/flow"
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
