// Package socket opens unix sockets that only their owner can connect to.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Listen opens the unix socket at path with mode 0600. The socket is made in a folder that only this user can enter
// and then moved to its place, so that nobody else can connect before the mode is set. Release removes it.
func Listen(path string) (listener net.Listener, release func(), err error) {
	if err := clearStale(path); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".l5")
	if err != nil {
		return nil, nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("make the socket %s (a path has at most about 80 bytes): %w", path, err)
	}
	unix.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		unix.Close()
		return nil, nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	mine, err := os.Lstat(path)
	if err != nil {
		unix.Close()
		return nil, nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	return unix, func() {
		unix.Close()
		if now, err := os.Lstat(path); err == nil && os.SameFile(now, mine) {
			os.Remove(path)
		}
	}, nil
}

// clearStale makes sure that path is free: a socket on which nobody listens is left over and may be replaced.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look for the socket %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is no socket; remove it or choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process serves %s; stop it or choose another path", path)
	}
	return nil
}
