package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// VIP is a load balancer whose real servers change at run time. Its methods are safe for concurrent use.
type VIP interface {
	// Add puts server (host:port) behind the virtual address with a weight from 1 to 256. One that is there
	// gets the weight, and serves again if it was being removed.
	Add(ctx context.Context, vip, server string, weight int) error
	// Remove drains the server and returns when it is gone. One that is not there is no error. When ctx ends
	// before, the server still gets no new connection; Remove again to see the end.
	Remove(ctx context.Context, vip, server string) error
	// Servers lists what is behind the virtual address, by address; none if it is not known.
	Servers(ctx context.Context, vip string) ([]Server, error)
}

// State of a real server.
type State string

const (
	Up       State = "up"
	Down     State = "down"     // it refuses connections
	Draining State = "draining" // it is being removed
)

// Server is one real server.
type Server struct {
	Addr        string `json:"addr"`
	Weight      int    `json:"weight"`
	State       State  `json:"state"`
	Connections int    `json:"connections"` // now
	Total       int64  `json:"total"`       // since it was added
}

// MaxWeight is the largest weight of a real server; HAProxy's own bound.
const MaxWeight = 256

// ErrInvalid says that a call or a config is wrong; nothing was changed.
var ErrInvalid = errors.New("vip: invalid")

func checkServer(addr string, weight int) error {
	var faults []error
	if err := checkAddr(addr); err != nil {
		faults = append(faults, fmt.Errorf("%w: server %q: %w; give host:port", ErrInvalid, addr, err))
	}
	if weight < 1 || weight > MaxWeight {
		faults = append(faults, fmt.Errorf("%w: weight %d of %s; give 1 to %d", ErrInvalid, weight, addr, MaxWeight))
	}
	return errors.Join(faults...)
}

func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if host == "" {
		return errors.New("the host is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return nil
}
