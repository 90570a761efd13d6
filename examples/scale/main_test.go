package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const want = `19:30  3 -> 3  data.missing
19:30  3 -> 3  data.gap
19:30  3 -> 3  in.band
20:00  3 -> 7  load.high
         + device-3 (sz1, small)
         + device-4 (sz1, small)
         + device-6 (sz2, large)
20:00  6 -> 6  in.band
20:45  6 -> 5  load.low
         - device-6 (sz2, large)
20:45  5 -> 5  cooldown
20:55  5 -> 4  load.low
         - device-4 (sz1, small)
20:55  4 -> 4  cooldown
21:05  4 -> 3  load.low
         - device-3 (sz1, small)
21:05  3 -> 3  in.band
21:31  3 -> 3  data.stale
`

func TestOutput(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	run(&out)
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}
