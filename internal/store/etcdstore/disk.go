package etcdstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrDisk says that the member's disk failed or is full. Nothing was acknowledged that is not on it.
var ErrDisk = errors.New("etcdstore: the disk of the data folder failed")

// diskError names the disk that holds the data folder, and what to do.
func (m *Member) diskError(verb string, cause error) error {
	mend := "mend it and start again"
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT):
		mend = "it is full: free some space and start again; every acknowledged write is kept"
	case errors.Is(cause, os.ErrPermission):
		mend = "make it writable for this user and start again"
	}
	return fmt.Errorf("%w: could not %s %s on %s: %w; %s", ErrDisk, verb, m.config.Dir, disk(m.config.Dir), cause, mend)
}

// disk names the file system that holds dir, as the operator knows it: its device and where it is mounted. Where
// the system does not tell (outside of Linux), it is "its file system".
func disk(dir string) string {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "its file system"
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "its file system"
	}
	return mountOf(path, string(table))
}

// mountOf finds in a table of the form of /proc/self/mountinfo the mount that path is on.
func mountOf(path, table string) string {
	best, name := "", "its file system"
	for line := range strings.Lines(table) {
		// 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw
		left, right, found := strings.Cut(line, " - ")
		place, source := strings.Fields(left), strings.Fields(right)
		if !found || len(place) < 5 || len(source) < 2 {
			continue
		}
		at := unescape(place[4])
		below := path == at || strings.HasPrefix(path, strings.TrimSuffix(at, "/")+"/")
		if below && len(at) >= len(best) {
			best, name = at, fmt.Sprintf("%s (%s, mounted at %s)", unescape(source[1]), source[0], at)
		}
	}
	return name
}

// unescape undoes the kernel's octal escapes of blanks in names.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
