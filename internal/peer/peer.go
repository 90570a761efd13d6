// Package peer asks the kernel which process is at the other end of a unix socket. The answer was fixed when the socket
// was connected, and no message can change it.
package peer

import (
	"errors"
	"fmt"
	"net"
)

// Credentials are those of the process that connected.
type Credentials struct {
	UID uint32
	PID int // 0 where the kernel does not tell it, or the process lives in another pid namespace
}

// ErrNotUnix says that the connection is no unix socket: nobody vouches for who is at its other end.
var ErrNotUnix = errors.New("peer: the connection is no unix socket")

// Of returns who is at the other end of a unix socket.
func Of(conn net.Conn) (Credentials, error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return Credentials{}, ErrNotUnix
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return Credentials{}, fmt.Errorf("peer: %w", err)
	}
	var c Credentials
	var fault error
	if err := raw.Control(func(fd uintptr) { c, fault = of(int(fd)) }); err != nil {
		return c, fmt.Errorf("peer: %w", err)
	}
	if fault != nil {
		return c, fmt.Errorf("peer: ask the kernel: %w", fault)
	}
	return c, nil
}
