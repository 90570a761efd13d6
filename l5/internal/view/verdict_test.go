package view_test

import (
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
)

// The sum stands on the wire: peers of all versions make the same.
func TestVerdictSum(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		allowed bool
		reason  string
		want    uint64
	}{
		{true, "", 0xaf63bc4c8601b62c}, {false, "", 0xaf63bd4c8601b7df}, {false, "no grant", 0x8140de0684dfb332},
	} {
		if got := view.VerdictSum(test.allowed, test.reason); got != test.want {
			t.Errorf("%t %q: %#x, want %#x", test.allowed, test.reason, got, test.want)
		}
	}
}
