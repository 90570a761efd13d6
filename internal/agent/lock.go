package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrRunning says that another agent keeps the device.
var ErrRunning = errors.New("agent: another agent runs on this root")

// lockRoot keeps a second agent away from a root before it touches anything there: its sockets would replace those of the
// first, and be removed with it. The lock ends with this process, however it ends.
func lockRoot(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "agent.lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is locked; stop that one first, or use another --root", ErrRunning, path)
		}
		return nil, fmt.Errorf("agent: lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}
