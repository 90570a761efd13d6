package haproxy_test

import (
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/gray/haproxy"
)

// Whatever a HAProxy answers, it is read or refused, and a share is never negative.
func FuzzParse(f *testing.F) {
	f.Add("1\n# be_id be_name srv_id srv_name srv_uweight srv_iweight\n2 shop.cart 1 old1 50 100")
	f.Add("Can't find backend.")
	f.Add("# srv_name srv_uweight srv_iweight\na 1")
	f.Add("# srv_name srv_uweight srv_iweight\na NaN 1\nb 1 Inf\nc -1 3")
	f.Fuzz(func(t *testing.T, text string) {
		shares, err := haproxy.Parse("b", strings.Split(text, "\n"))
		for member, share := range shares {
			if err == nil && (share < 0 || member == "") {
				t.Errorf("member %q has share %d", member, share)
			}
		}
	})
}
