package main

import (
	"regexp"
	"strings"
	"testing"
)

// The story as it goes, whatever the number of orders that a machine's pace makes of it.
const want = `(?s)^6 devices are idle; .*` +
	`scale: out, because below\.min\n.*gray: 10 %\ngray: 50 %\n.*gray: 100 %\n.*gray: done, because stage\.green\n.*flow: out is done\n.*2 devices serve\n` +
	`the callers want 320 calls a second\n.*enough devices serve for the burst\n` +
	`somebody changes etc/cart\.conf on a device\n.*drift: etc/cart\.conf differs in its \[content\], and will be repaired\n.*drift: etc/cart\.conf is repaired\n.*` +
	`the burst is over\n.*2 devices serve, 4 are idle\n0 calls failed\n$`

func TestOutput(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("the story went otherwise:\n%s", out.String())
	}
	for _, line := range []string{"scale: out, because load.high\n", "scale: in, because load.low\n", "flow: in is done\n"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the story lacks %q:\n%s", line, out.String())
		}
	}
}
