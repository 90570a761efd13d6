package drift

import (
	"io/fs"
	"syscall"
)

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.device, s.ctime = sys.Ino, uint64(sys.Dev), syscall.TimespecToNsec(sys.Ctim)
	}
	return s
}
