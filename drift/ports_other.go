//go:build !linux

package drift

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// listening finds out by connecting: the declared TCP ports only, and not who listens.
func listening(ctx context.Context, _ string, device netip.Addr, _ []string, want []Port) ([]socket, string, []Gap, error) {
	var out []socket
	dialer := net.Dialer{Timeout: time.Second}
	for _, p := range want {
		if p.proto() != "tcp" {
			continue
		}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(device.String(), strconv.Itoa(p.Port)))
		if err != nil {
			continue
		}
		conn.Close()
		out = append(out, socket{proto: "tcp", addr: device, port: uint16(p.Port)})
	}
	why := "this system has neither sock_diag nor /proc/net"
	return out, "connect", []Gap{
		{What: "ports that are not declared", Why: why},
		{What: "UDP ports", Why: why},
		{What: "which process listens", Why: why},
	}, ctx.Err()
}
