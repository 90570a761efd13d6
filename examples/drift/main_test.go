package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOutput(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	want := `The device as it is found:
  config etc/shop.conf: missing: expected file sha256:caa882f8683f 0640, actual nothing
  file etc/debug.conf: unexpected: expected nothing, actual file 0644
  package bin/current: missing: expected link -> shop-1.2, actual nothing
The agent:
  the three differences are repaired
  somebody sets workers = 1
  config etc/shop.conf: repaired
  it says workers = 8
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}
