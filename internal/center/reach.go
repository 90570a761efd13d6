package center

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// errBarred says that a sink stands where none is called.
var errBarred = errors.New("center: barred for sinks; --sink-network allows it")

// barred are networks in which no sink stands, and something else may: the metadata services of clouds, which give whoever is on the machine its
// credentials, answer at link-local addresses (RFC 3927, RFC 4291) and the few others here.
var barred = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"),          // AWS: metadata, and the credentials of containers
	netip.MustParsePrefix("fd20:ce::254/128"),       // Google
	netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), // Oracle
	netip.MustParsePrefix("168.63.129.16/32"),       // Azure: what it hands to its agent
	netip.MustParsePrefix("100.100.100.200/32"),     // Alibaba
	netip.MustParsePrefix("192.0.0.192/32"),         // Oracle
	netip.MustParsePrefix("0.0.0.0/8"),              // connects to this machine
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("ff00::/8"),
}

// Networks whose addresses hold one of IPv4: nat64 are those by which hosts without IPv4 reach it, in their last four bytes (RFC 6052, RFC 8215),
// and sixToFour has it behind the first two (RFC 3056).
var (
	nat64     = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}
	sixToFour = netip.MustParsePrefix("2002::/16")
)

// reach is where sinks may be called: everywhere but in barred, and in allowed nevertheless.
type reach struct{ allowed []netip.Prefix }

// check refuses an address.
func (r reach) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	switch bytes := addr.As16(); {
	case slices.ContainsFunc(nat64, func(p netip.Prefix) bool { return p.Contains(addr) }):
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	case sixToFour.Contains(addr):
		addr = netip.AddrFrom4([4]byte(bytes[2:6]))
	}
	in := func(p netip.Prefix) bool { return p.Contains(addr) }
	if slices.ContainsFunc(barred, in) && !slices.ContainsFunc(r.allowed, in) {
		return fmt.Errorf("%w: %s", errBarred, addr)
	}
	return nil
}

// dial connects to where a name leads: the address is looked at once it is known, so that no answer of a name server, and no redirection, leads elsewhere.
func (r reach) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: sinkTimeout, KeepAlive: 30 * time.Second,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("center: %q is no address: %w", address, err)
			}
			return r.check(to.Addr())
		},
	}
	return dialer.DialContext(ctx, network, address)
}

// client returns an HTTP client that goes no further. A proxy of the environment is used, and looks at names itself.
func (r reach) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: r.dial, ForceAttemptHTTP2: true,
		MaxIdleConns: 16, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: sinkTimeout,
	}}
}
