package dev

import (
	"fmt"
	"net"
	"runtime"
	"strings"
)

// portStep is how far the ports of two devices at one address are apart: as many as a module may use.
const portStep = 100

// OneAddress says whether devices share an address where nothing else is asked for: everywhere but on Linux, other loopback
// addresses have to be set up first.
func OneAddress() bool { return runtime.GOOS != "linux" }

// Places gives n devices a place each: an address of their own, see Addresses, or, on any system, ports of their own at
// 127.0.0.1. They are not named. Environments at one address cannot run at a time.
func Places(network, n int, one bool) ([]Device, error) {
	places := make([]Device, n)
	if one {
		if n < 1 || n*portStep > 50_000 {
			return nil, fmt.Errorf("dev: %d devices at one address: want 1 to %d", n, 50_000/portStep)
		}
		for i := range places {
			places[i] = Device{Addr: "127.0.0.1", PortOffset: portStep * (i + 1)}
		}
		return places, nil
	}
	addresses, err := Addresses(network, n)
	if err != nil {
		return nil, err
	}
	for i, addr := range addresses {
		places[i].Addr = addr
	}
	return places, nil
}

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
		return nil, fmt.Errorf("dev: %d devices need an address each, and %s does not know %d of them. Tell it, once until the next restart of the machine:\n\n  %s\n\nor let them share one: --one-address",
			n, goos, len(missing), "for a in "+strings.Join(missing, " ")+"; do sudo ifconfig lo0 alias $a up; done")
	}
	return plan, nil
}
