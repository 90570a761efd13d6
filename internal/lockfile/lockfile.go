// Package lockfile keeps a second process away from a folder or a database. A lock ends with the process that took it, however
// that ends.
package lockfile

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process has the lock.
var ErrHeld = errors.New("another process has it locked")

// patience is how long a lock may outlive its owner: a process that is killed between the fork and the exec of a child leaves its open
// files to the child until that has begun.
const (
	patience = time.Second
	interval = 20 * time.Millisecond
)

// Take makes the file if it is not there, and locks it until it is closed or the process ends. ErrHeld says that another process
// has the lock; it is told after a second, in which a lock whose owner was killed is set free.
func Take(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(interval) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch held := errors.Is(err, unix.EWOULDBLOCK); {
		case err == nil:
			return file, nil
		case errors.Is(err, unix.EINTR):
		case !held:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		case time.Now().After(deadline):
			return nil, errors.Join(fmt.Errorf("%s: %w", path, ErrHeld), file.Close())
		}
	}
}
