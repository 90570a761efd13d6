// Package scripttest plays scripts with recorded outcomes against pure cores: a test of a package says what its commands do,
// and the files below its testdata hold commands and what came of them when they were last recorded and reviewed.
//
//	func TestScripts(t *testing.T) {
//		scripttest.Run(t, *update, func(t *testing.T, text string) string {
//			s := script{now: start}
//			return scripttest.Lines(text, func(words []string) []string { return s.run(t, words) })
//		})
//	}
package scripttest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Run plays each testdata/*.txt as a subtest. Play returns the script with the outcome of now; what differs from the file is
// a failure, or, with update, the file's new content.
func Run(t *testing.T, update bool, play func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			Recorded(t, update, file, play(t, string(text)))
		})
	}
}

// Recorded compares an outcome with the file that holds the recorded one, or records it.
func Recorded(t *testing.T, update bool, file, got string) {
	t.Helper()
	if update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-recorded +now); look at it, and record it by -update:\n%s", file, diff)
	}
}

// Lines plays a script in which each command is a line, followed by its outcome in lines that begin with ">". Empty lines and
// those that begin with "#" are kept as they are.
func Lines(text string, run func(words []string) (outcome []string)) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		out.WriteString(line)
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, outcome := range run(strings.Fields(line)) {
			out.WriteString("> " + outcome + "\n")
		}
	}
	return out.String()
}

// Blocks plays a script of blocks with an empty line in between: commands, a line of four dashes, and the outcome of all of
// them. Run is given the lines of commands of a block but those that begin with "#"; its outcome ends with a line break, or is
// empty.
func Blocks(text string, run func(commands []string) (outcome string)) string {
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		head, _, _ := strings.Cut(block, "\n----")
		var commands []string
		for line := range strings.SplitSeq(head, "\n") {
			if !strings.HasPrefix(line, "#") {
				commands = append(commands, line)
			}
		}
		out.WriteString(head + "\n----\n" + run(commands) + "\n")
	}
	return strings.TrimSpace(out.String()) + "\n"
}

// Settings reads words of the form name=value; one without "=" has the value "".
func Settings(words []string) map[string]string {
	out := make(map[string]string, len(words))
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		out[name] = value
	}
	return out
}

// Number reads a number; no text is 0.
func Number(t testing.TB, text string) float64 {
	t.Helper()
	if text == "" {
		return 0
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Int reads a whole number; no text is 0.
func Int(t testing.TB, text string) int {
	t.Helper()
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Duration reads a duration, as 1m30s.
func Duration(t testing.TB, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
