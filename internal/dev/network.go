package dev

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// networks is how many environments can run on a machine at a time, each with addresses of its own.
const networks = 251

// Network is a part of 127/8 that no other environment on this machine takes until Close.
type Network struct {
	Number int // as Places takes it
	held   net.Listener
}

// Claim takes a network: that of the number, if it is free, or else the first that is. What holds it is a listener at its end, which the kernel takes back
// however this process ends. Where 127/8 is not this machine's as it comes, there is one network, and nobody holds it.
func Claim(number int) (*Network, error) {
	if number < 0 || number >= networks {
		return nil, fmt.Errorf("dev: network %d: want 0 to %d", number, networks-1)
	}
	if runtime.GOOS != "linux" {
		return &Network{}, nil
	}
	for i := range networks {
		n := (number + i) % networks
		held, err := net.Listen("tcp4", fmt.Sprintf("127.%d.255.254:47127", n))
		switch {
		case err == nil:
			return &Network{n, held}, nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, fmt.Errorf("dev: hold a network for the devices: %w", err)
		}
	}
	return nil, fmt.Errorf("dev: all %d networks of 127/8 are taken by other environments on this machine: end one", networks)
}

// ClaimFor is Claim of the network that an environment in the folder had last, so that its devices keep their addresses; it is noted there.
func ClaimFor(dir string) (*Network, error) {
	file := filepath.Join(dir, "network")
	last := 0
	if content, err := os.ReadFile(file); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil && n >= 0 && n < networks {
			last = n
		}
	}
	claimed, err := Claim(last)
	if err != nil {
		return nil, err
	}
	err = os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(file, fmt.Appendln(nil, claimed.Number), 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dev: note the network: %w", err), claimed.Close())
	}
	return claimed, nil
}

// String is the network's addresses.
func (n *Network) String() string { return fmt.Sprintf("127.%d.0.0/16", n.Number) }

// Close lets others take the network. It may be called twice.
func (n *Network) Close() error {
	if n.held == nil {
		return nil
	}
	if err := n.held.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
