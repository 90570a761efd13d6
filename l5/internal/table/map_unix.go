//go:build unix

package table

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// load maps the file at path. Release ends that.
func load(path string) (data []byte, release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() < headerSize || info.Size() > maxSegmentSz {
		return nil, nil, fmt.Errorf("%w (%s, %d bytes)", ErrDamaged, info.Mode(), info.Size())
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", path, err)
	}
	return data, func() { unix.Munmap(data) }, nil
}

// ours reports whether a file belongs to this process's own user.
func ours(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
