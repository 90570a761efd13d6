package l5_test

import (
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// What a listener on all addresses says of itself is no address at which callers reach it, and a place has one address.
func TestAddressOfAnInstance(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"10.0.0.7:80": "", "[2001:db8::7]:80": "", "[::1]:80": "", "127.0.0.1:80": "", "cart.example:80": "", "[fe80::1%eth0]:80": "",
		"0.0.0.0:80": "of no host", "[::]:80": "of no host", "[::ffff:0.0.0.0]:80": "of no host", "224.0.0.1:80": "of no host", "[ff02::1%eth0]:80": "of no host",
		"[0:0::1]:80": `write it as "[::1]:80"`, "[2001:DB8::7]:80": `write it as "[2001:db8::7]:80"`, "[::ffff:10.0.0.7]:80": `write it as "10.0.0.7:80"`,
		"10.0.0.7:080": `write it as "10.0.0.7:80"`, "cart.example:0080": `write it as "cart.example:80"`, "[cart.example]:80": `write it as "cart.example:80"`,
		":80": "want host:port", "2001:db8::7:80": "want host:port", "10.0.0.7": "want host:port", "10.0.0.7:0": "want host:port",
	} {
		err := l5.Instance{Service: "shop.cart", Addr: addr}.Check()
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", addr, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
}
