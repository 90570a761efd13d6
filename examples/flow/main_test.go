package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const want = `execution.started actor=example
attempt.started acquire attempt=1
attempt.done acquire attempt=1
step.done acquire
step.fanned install items=3
attempt.started install attempt=1
attempt.done install attempt=1
attempt.started install[1] attempt=1
attempt.done install[1] attempt=1
attempt.started install[2] attempt=1
attempt.done install[2] attempt=1
step.done install
attempt.started test attempt=1
attempt.failed test attempt=1 error="failed: device-2 refuses connections"
step.failed test error="failed: device-2 refuses connections"
execution.compensating target=failed error="failed: step test: device-2 refuses connections"
undo.started install[2] attempt=1
undo.done install[2] attempt=1
undo.started install[1] attempt=1
undo.done install[1] attempt=1
undo.started install attempt=1
undo.done install attempt=1
undo.started acquire attempt=1
undo.done acquire attempt=1
execution.failed
execution.started actor=example
attempt.started acquire attempt=1
attempt.done acquire attempt=1
step.done acquire
step.fanned install items=3
attempt.started install attempt=1
attempt.done install attempt=1
attempt.started install[1] attempt=1
attempt.done install[1] attempt=1
attempt.started install[2] attempt=1
attempt.done install[2] attempt=1
step.done install
attempt.started test attempt=1
attempt.done test attempt=1
step.done test
step.noticed tell text="shop.cart has 3 more devices"
step.done tell
execution.done
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
