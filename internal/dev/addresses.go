package dev

import (
	"fmt"
	"net"
	"runtime"
	"strings"
)

// Addresses returns the addresses of n devices on this machine: one each, since the ports of a module are the same on
// every device. Network, 0 to 250, tells environments apart that run at a time.
//
// On Linux all of 127/8 is this machine. Elsewhere only 127.0.0.1 is until it is told of more: the error says how.
func Addresses(network, n int) ([]string, error) {
	return addresses(runtime.GOOS, network, n, func(addr string) bool {
		listener, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err == nil && listener.Close() == nil
	})
}

// addresses is the plan: what it depends on is given.
func addresses(goos string, network, n int, usable func(addr string) bool) ([]string, error) {
	if network < 0 || network > 250 || n < 1 || n > 250*250 {
		return nil, fmt.Errorf("dev: %d devices in network %d: want 1 to 62500, in 0 to 250", n, network)
	}
	if goos != "linux" && n == 1 {
		return []string{"127.0.0.1"}, nil
	}
	if goos != "linux" {
		network = 0 // what was set up once serves every environment, one at a time
	}
	plan := make([]string, n)
	var missing []string
	for i := range plan {
		plan[i] = fmt.Sprintf("127.%d.%d.%d", network, i/250+1, i%250+2)
		if goos != "linux" && !usable(plan[i]) {
			missing = append(missing, plan[i])
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("dev: %d devices need an address each, and %s does not know %d of them. Tell it, once until the next restart of the machine:\n\n  %s\n\nor run one device",
			n, goos, len(missing), "for a in "+strings.Join(missing, " ")+"; do sudo ifconfig lo0 alias $a up; done")
	}
	return plan, nil
}
