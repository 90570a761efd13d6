package agent

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/zhiyun-ops/zhiyun/internal/lockfile"
)

// ErrRunning says that another agent keeps the device.
var ErrRunning = errors.New("agent: another agent runs on this root")

// lockRoot keeps a second agent away from a root before it touches anything there: its sockets would replace those of the
// first, and be removed with it. The lock ends with this process, however it ends.
func lockRoot(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "agent.lock")
	file, err := lockfile.Take(path)
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, fmt.Errorf("%w: %s is locked; stop that one first, or use another --root", ErrRunning, path)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: lock: %w", err)
	}
	return func() { file.Close() }, nil
}
