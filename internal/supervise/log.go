package supervise

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

func (s *Supervisor) logDir() string { return filepath.Join(s.config.Dir, "log") }

func (s *Supervisor) logPath(i *instance) string { return s.LogPath(i.unit, i.number) }

// LogPath is where the output of an instance goes; the older half stands beside it with ".1" at the end.
func (s *Supervisor) LogPath(name string, instance int) string {
	return filepath.Join(s.logDir(), name+"."+strconv.Itoa(instance)+".log")
}

// rotate moves a log that has grown too large aside. The process holds the file open for appending, so it is
// copied and cut, not renamed. The caller holds mu.
func (s *Supervisor) rotate(i *instance) {
	path := s.logPath(i)
	info, err := os.Stat(path)
	if err != nil || info.Size() <= s.config.LogBytes {
		return
	}
	if err := cut(path, s.config.LogBytes); err != nil {
		s.log.Error("cannot rotate a log", "path", path, "error", err)
	}
}

// cut copies the last keep bytes of path to path.1 and empties path.
func cut(path string, keep int64) error {
	from, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	if size, err := from.Seek(0, io.SeekEnd); err != nil {
		return err
	} else if _, err := from.Seek(max(0, size-keep), io.SeekStart); err != nil {
		return err
	}
	to, err := os.OpenFile(path+".1", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.LimitReader(from, keep))
	return errors.Join(err, to.Close(), from.Truncate(0))
}

// digests remembers the digest of each executable seen, so that a large one is read once.
type digests struct {
	mu    sync.Mutex // guards known
	known map[string]string
}

// of returns the digest of what pid runs, or "" if it is gone.
func (d *digests) of(pid int, path string) string {
	file, err := openExe(pid, path)
	if err != nil {
		return ""
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	key := fmt.Sprint(stat.Dev, stat.Ino, info.Size(), info.ModTime().UnixNano())
	d.mu.Lock()
	defer d.mu.Unlock()
	if digest, ok := d.known[key]; ok {
		return digest
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return ""
	}
	if d.known == nil || len(d.known) > 1000 {
		d.known = map[string]string{}
	}
	d.known[key] = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return d.known[key]
}
