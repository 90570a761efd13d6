package dev_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/dev"
)

// Whatever the system: each device has an address of its own that the machine has, or there is none for anybody and the
// error says what to type.
func TestAddressesOn(t *testing.T) {
	t.Parallel()
	all, none := func(string) bool { return true }, func(string) bool { return false }
	only := func(known ...string) func(string) bool {
		return func(addr string) bool { return strings.Contains(strings.Join(known, " ")+" ", addr+" ") }
	}
	for _, test := range []struct {
		name       string
		goos       string
		network, n int
		usable     func(string) bool
		says       string // of the error; empty: there is none
	}{
		{"linux asks nobody", "linux", 17, 600, none, ""},
		{"darwin, one device", "darwin", 17, 1, none, ""},
		{"darwin, set up", "darwin", 17, 12, all, ""},
		{"darwin, as it comes", "darwin", 0, 3, none, "for a in 127.0.1.2 127.0.1.3 127.0.1.4; do sudo ifconfig lo0 alias $a up; done"},
		{"darwin, half set up", "darwin", 0, 3, only("127.0.1.2", "127.0.1.4"), "for a in 127.0.1.3; do"},
		{"no device", "linux", 0, 0, all, "want 1 to"},
		{"a network there is not", "linux", 251, 1, all, "0 to 250"},
	} {
		got, err := dev.AddressesOn(test.goos, test.network, test.n, test.usable)
		if test.says != "" {
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v, want an error that says %q", test.name, err, test.says)
			}
			continue
		}
		seen := make(map[string]bool)
		for _, addr := range got {
			if ip, parsed := netip.ParseAddr(addr); parsed != nil || !ip.IsLoopback() || seen[addr] {
				t.Errorf("%s: address %q, seen before: %v", test.name, addr, seen[addr])
			}
			seen[addr] = true
		}
		if err != nil || len(got) != test.n {
			t.Errorf("%s: %d addresses, %v", test.name, len(got), err)
		}
	}
}

// Devices at one address have ports that do not meet, on any system.
func TestPlacesAtOneAddress(t *testing.T) {
	t.Parallel()
	places, err := dev.Places(0, 100, true)
	if err != nil {
		t.Fatal(err)
	}
	for i, place := range places {
		if place.Addr != "127.0.0.1" || place.PortOffset != 100*(i+1) {
			t.Errorf("device %d is at %+v", i, place)
		}
	}
	if _, err := dev.Places(0, 501, true); err == nil {
		t.Error("501 devices at one address")
	}
	two := []dev.Device{{Name: "a", Addr: "127.0.0.1", PortOffset: 100}, {Name: "b", Addr: "127.0.0.1", PortOffset: 100}}
	if _, err := dev.Start(t.Context(), dev.Config{Dir: "/tmp/x", Exe: "/bin/true", Devices: two}); err == nil || !strings.Contains(err.Error(), "both at 127.0.0.1") {
		t.Errorf("two devices at one place: %v", err)
	}
}

// What is planned for this machine can be listened on.
func TestAddressesHere(t *testing.T) {
	t.Parallel()
	if _, err := dev.Addresses(3, 1); err != nil {
		t.Error(err)
	}
}
