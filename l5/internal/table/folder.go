package table

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// confirmedName is the file whose time of change says until when a table was known to be right.
const confirmedName = "confirmed"

// For returns the folder of the table at dir that user uid reads.
func For(dir string, uid int) string { return filepath.Join(dir, "u"+strconv.Itoa(uid)) }

// path returns the file of a segment.
func path(folder string, segment int) string {
	return filepath.Join(folder, fmt.Sprintf("%02x.routes", segment))
}

// Found is one service as a table holds it.
type Found struct {
	Entry
	// Place is where the device is; empty: not known.
	Place []byte
	// Confirmed is when the agent last knew this to be what the name service says.
	Confirmed time.Time
}

// Find returns a service if caller may call it. Folder is one of For. The error matches fs.ErrNotExist if there is no
// table, ErrUnknown, ErrDamaged or ErrVersion, and names the file.
func Find(folder, caller, service string) (Found, error) {
	file := path(folder, SegmentOf(service))
	var found Found
	err := read(file, SegmentOf(service), func(s *Segment) (err error) {
		if found.Entry, err = s.Find(caller, service); err != nil {
			return err
		}
		found.Confirmed = s.Written()
		found.Place, err = s.Place()
		return err
	})
	if err != nil {
		return Found{}, err
	}
	if at := Confirmed(folder); at.After(found.Confirmed) {
		found.Confirmed = at
	}
	return found, nil
}

// read maps a file while use uses it.
func read(file string, segment int, use func(*Segment) error) error {
	data, release, err := load(file)
	if err != nil {
		return err
	}
	defer release()
	return guard(file, func() error {
		s, err := Parse(data, segment)
		if err == nil {
			err = use(s)
		}
		return err
	})
}

// Load calls use with all that the folder of user uid holds. Segments that cannot be read are left out, as are those of
// another user than this process's own that are not as Write left them; the error names them.
func Load(folder string, uid int, use func(Entry)) error {
	read := read
	if uid != os.Geteuid() {
		s, err := readSeals(folder)
		if err != nil {
			return err
		}
		read = s.sealed
	}
	var errs []error
	for segment := range Segments {
		err := read(path(folder, segment), segment, func(s *Segment) error {
			for entry, err := range s.All() {
				if err != nil {
					return err
				}
				use(entry)
			}
			return nil
		})
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Users returns who has a folder in the table at dir.
func Users(dir string) ([]int, error) {
	found, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var users []int
	for _, entry := range found {
		if digits, ok := strings.CutPrefix(entry.Name(), "u"); ok && entry.IsDir() {
			if uid, err := strconv.Atoi(digits); err == nil {
				users = append(users, uid)
			}
		}
	}
	return users, err
}

// Confirmed returns when the table was last known to be right; the zero time if it never was.
func Confirmed(folder string) time.Time {
	info, err := os.Stat(filepath.Join(folder, confirmedName))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Confirm says that what the folder holds is right at now.
func Confirm(folder string, now time.Time) error {
	return os.Chtimes(filepath.Join(folder, confirmedName), now, now)
}

// Make makes the folder of user uid in the table at dir, and removes what a crash left there.
func Make(dir string, uid int) (folder string, err error) {
	folder = For(dir, uid)
	if err := os.MkdirAll(folder, 0o711); err != nil {
		return "", err
	}
	left, err := filepath.Glob(filepath.Join(folder, ".new-*"))
	if err != nil {
		return "", err
	}
	for _, name := range left {
		os.Remove(name)
	}
	file, err := os.OpenFile(filepath.Join(folder, confirmedName), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	return folder, file.Close()
}

// Write replaces segments of a folder by the content given, or removes those without any: each file is the old one or
// the new one at any time, a crash included. Files are readable by user uid alone; that takes the right to give files
// away, unless uid is this process's own.
func Write(folder string, uid int, segments map[int][]byte) error {
	var errs []error
	for segment, content := range segments {
		if content == nil {
			if err := os.Remove(path(folder, segment)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		errs = append(errs, replace(folder, path(folder, segment), uid, content))
	}
	if uid != os.Geteuid() && errors.Join(errs...) == nil {
		errs = append(errs, seal(folder, segments))
	}
	parent, err := os.Open(folder)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, parent.Sync(), parent.Close())...)
}

func replace(folder, file string, uid int, content []byte) (err error) {
	f, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if uid != os.Geteuid() {
		err = f.Chown(uid, -1)
	}
	_, writeErr := f.Write(content)
	if err = errors.Join(err, writeErr, f.Chmod(0o400), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s for user %d: %w", file, uid, err)
	}
	return os.Rename(f.Name(), file)
}
