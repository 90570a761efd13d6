//go:build unix

package sqlitestore

import (
	"fmt"
	"os"
	"syscall"
)

// lockFile keeps other processes from opening the same store: two engines would undo each other's work.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another process has the store open (%s is locked: %w); stop it first", path, err)
	}
	return file, nil
}
