package scripttest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/scripttest"
)

// A script that is played again is the same: what was recorded is replaced, and everything else stays.
func TestPlayedAgainItIsTheSame(t *testing.T) {
	t.Parallel()
	lines := func(text string) string {
		sum := 0
		return scripttest.Lines(text, func(words []string) []string {
			if words[0] == "quiet" {
				return nil
			}
			sum += scripttest.Int(t, scripttest.Settings(words[1:])["n"])
			return []string{fmt.Sprint("sum ", sum), "told"}
		})
	}
	const script = "# a comment\nadd n=2\n> sum of old\n\nquiet\nadd n=3\n"
	const want = "# a comment\nadd n=2\n> sum 2\n> told\n\nquiet\nadd n=3\n> sum 5\n> told\n"
	if got := lines(script); got != want || lines(got) != want {
		t.Errorf("lines:\n%s", got)
	}
	blocks := func(text string) string {
		return scripttest.Blocks(text, func(commands []string) string { return strings.ToUpper(strings.Join(commands, "+")) + "\n" })
	}
	const played = "# about\na\nb\n----\nA+B\n\nc\n----\nC\n"
	if got := blocks("# about\na\nb\n----\nold\n\nc\n"); got != played || blocks(got) != played {
		t.Errorf("blocks:\n%s", got)
	}
}
