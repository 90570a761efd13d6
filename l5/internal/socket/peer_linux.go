package socket

import (
	"net"

	"golang.org/x/sys/unix"
)

// PeerOf returns who is at the other end of a unix socket, as the kernel says; false if it does not.
func PeerOf(conn net.Conn) (Peer, bool) {
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, false
	}
	raw, err := local.SyscallConn()
	if err != nil {
		return Peer{}, false
	}
	var credentials *unix.Ucred
	failed := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if failed != nil || err != nil {
		return Peer{}, false
	}
	return Peer{UID: int(credentials.Uid), PID: int(credentials.Pid)}, true
}
