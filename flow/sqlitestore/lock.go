//go:build unix

package sqlitestore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPatience is how long a lock may be held by a process that is gone: one that was killed between the fork and the exec of a tool leaves
// its files to the child until that has begun.
const lockPatience = time.Second

// lockFile keeps other processes from opening the same store: two engines would undo each other's work.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockPatience)
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(deadline) {
		time.Sleep(lockPatience / 50)
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("another process has the store open (%s is locked: %w); stop it first", path, err)
	}
	return file, nil
}
