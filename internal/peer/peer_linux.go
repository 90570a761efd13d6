package peer

import "golang.org/x/sys/unix"

func of(fd int) (Credentials, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{UID: c.Uid, PID: int(c.Pid)}, nil
}
