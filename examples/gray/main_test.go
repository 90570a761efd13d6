package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const want = `a good build:
  queued     0%  created
  running   10%  started
  running   10%  stage.in_force
  running   50%  stage.green
  running   50%  stage.in_force
  running  100%  stage.green
  running  100%  stage.in_force
  done     100%  stage.green
a bad build:
  queued     0%  created
  running   10%  started
  running   10%  stage.in_force
  aborting   0%  success.low
  aborted    0%  rolled_back
shares: map[10.0.0.1:100 10.0.0.2:100 10.0.0.7:100 10.0.0.8:0]
`

func TestOutput(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}
