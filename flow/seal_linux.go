package flow

import (
	"fmt"
	"io/fs"
	"syscall"
)

// identity changes whenever a file is written, replaced, or has its mode changed: nobody but the kernel sets ctime.
func identity(path string, info fs.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%s %d %d %d %d.%d", path, s.Dev, s.Ino, s.Size, s.Ctim.Sec, s.Ctim.Nsec)
	}
	return fmt.Sprintf("%s %d %d %s", path, info.Size(), info.ModTime().UnixNano(), info.Mode())
}
