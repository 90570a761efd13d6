package device

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keepJournals is how long a finished call can be undone.
const keepJournals = 7 * 24 * time.Hour

// journal is what a call found before it changed anything, below var/zhiyun/undo/KEY/TOOL/. It is written
// before the change, so that whoever comes after a kill can put everything back.
//
//	(none) --begin--> intent --finish--> done
//	  ^                 |                  |
//	  +----rollback-----+------undo--------+
type journal struct {
	root *os.Root
	dir  string
	rec  record
}

type record struct {
	Tool   string          `json:"tool"`
	Key    string          `json:"key"`
	Input  string          `json:"input"` // digest of the input: a key stands for one input
	At     time.Time       `json:"at"`
	Done   bool            `json:"done"`
	Output json.RawMessage `json:"output,omitempty"`
	Images []image         `json:"images,omitempty"`
	Note   json.RawMessage `json:"note,omitempty"` // what else the tool needs to undo
}

// image is a path as it was.
type image struct {
	Path  string      `json:"path"`
	Kind  string      `json:"kind"` // absent, parent (absent, and removed only when empty), file, link, dir, tree (dir with nothing else below), moved
	Mode  fs.FileMode `json:"mode,omitempty"`
	Link  string      `json:"link,omitempty"`
	Saved string      `json:"saved,omitempty"`
	Time  time.Time   `json:"time,omitzero"`
}

// keyDir is the folder name of a key.
func keyDir(key string) string {
	if len(key) <= 80 && !strings.HasPrefix(key, ".") && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256-" + hex.EncodeToString(sum[:])
}

func openJournal(root *os.Root, tool, key string) (*journal, error) {
	j := &journal{root: root, dir: path.Join(own, "undo", keyDir(key), tool), rec: record{Tool: tool, Key: key}}
	data, err := root.ReadFile(path.Join(j.dir, "journal.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &j.rec); err != nil {
		return nil, fail("journal.damaged", "%s/journal.json: %v; look at it and move it away", j.dir, err)
	}
	return j, nil
}

func (j *journal) exists() bool { return !j.rec.At.IsZero() }

func (j *journal) begin(input []byte) error {
	if err := j.root.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	moment()
	if err := j.root.RemoveAll(path.Join(j.dir, "saved")); err != nil {
		return err
	}
	if err := j.root.Mkdir(path.Join(j.dir, "saved"), 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256(input)
	j.rec = record{Tool: j.rec.Tool, Key: j.rec.Key, Input: hex.EncodeToString(sum[:]), At: time.Now().UTC()}
	return j.write()
}

func (j *journal) write() error {
	if planted == "late journal" && !j.rec.Done && len(j.rec.Images) > 0 {
		return nil
	}
	data, err := json.Marshal(j.rec)
	if err != nil {
		return err
	}
	_, err = put(j.root, path.Join(j.dir, "journal.json"), strings.NewReader(string(data)), 0o600, "")
	return err
}

// save keeps each path as it is now, with the folders above it that are missing. The first image of a path
// counts. It returns when everything is durable.
func (j *journal) save(paths ...string) error {
	for _, p := range paths {
		if err := j.keep(p); err != nil {
			return fmt.Errorf("keep %s as it is: %w", p, err)
		}
	}
	return j.write()
}

func (j *journal) known(p string) bool {
	return slices.ContainsFunc(j.rec.Images, func(i image) bool { return i.Path == p })
}

func (j *journal) keep(p string) error {
	if j.known(p) {
		return nil
	}
	var missing []image
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if _, err := j.root.Lstat(dir); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !j.known(dir) {
			missing = append(missing, image{Path: dir, Kind: "parent"})
		}
	}
	slices.Reverse(missing)
	j.rec.Images = append(j.rec.Images, missing...)

	info, err := j.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		j.rec.Images = append(j.rec.Images, image{Path: p, Kind: "absent"})
		return nil
	}
	if err != nil {
		return err
	}
	i := image{Path: p, Mode: info.Mode().Perm(), Time: info.ModTime()}
	switch {
	case info.Mode().IsRegular():
		i.Kind, i.Saved = "file", path.Join(j.dir, "saved", fmt.Sprint(len(j.rec.Images)))
		from, err := j.root.Open(p)
		if err != nil {
			return err
		}
		defer from.Close()
		if _, err := put(j.root, i.Saved, from, 0o600, ""); err != nil {
			return err
		}
	case info.Mode()&fs.ModeSymlink != 0:
		i.Kind = "link"
		if i.Link, err = j.root.Readlink(p); err != nil {
			return err
		}
	case info.IsDir():
		i.Kind = "dir"
	default:
		return fail("path.kind", "%s is neither file, folder nor link (%v)", p, info.Mode())
	}
	j.rec.Images = append(j.rec.Images, i)
	return nil
}

// saveTree keeps p with everything below it; whatever appears below it later is removed by the undo.
func (j *journal) saveTree(p string) error {
	if err := j.keep(p); err != nil {
		return err
	}
	if n := len(j.rec.Images) - 1; j.rec.Images[n].Path == p && j.rec.Images[n].Kind == "dir" {
		j.rec.Images[n].Kind = "tree"
		below, err := walk(j.root, p)
		if err != nil {
			return err
		}
		for _, b := range below {
			if err := j.keep(b); err != nil {
				return err
			}
		}
	}
	return j.write()
}

// take moves p, with all that is below it, into the journal.
func (j *journal) take(p string) error {
	saved := path.Join(j.dir, "saved", fmt.Sprint(len(j.rec.Images)))
	j.rec.Images = append(j.rec.Images, image{Path: p, Kind: "moved", Saved: saved})
	if err := j.write(); err != nil {
		return err
	}
	if err := j.root.Rename(p, saved); err != nil {
		return err
	}
	moment()
	return sync(j.root, path.Dir(p))
}

// note keeps what the tool needs beside the images.
func (j *journal) note(v any) (err error) {
	if j.rec.Note, err = json.Marshal(v); err != nil {
		return err
	}
	return j.write()
}

func (j *journal) finish(output json.RawMessage) error {
	j.rec.Done, j.rec.Output = true, output
	return j.write()
}

// restore puts every image back, last first. It may be repeated.
func (j *journal) restore() error {
	for _, i := range slices.Backward(j.rec.Images) {
		if err := j.restoreOne(i); err != nil {
			return fmt.Errorf("put %s back: %w", i.Path, err)
		}
		moment()
	}
	return nil
}

func (j *journal) restoreOne(i image) error {
	if err := j.root.RemoveAll(tempOf(i.Path)); err != nil { // of a call that was killed while it wrote
		return err
	}
	now, err := j.root.Lstat(i.Path)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return err
	}
	if i.Kind == "absent" || i.Kind == "parent" {
		if gone {
			return nil
		}
		if i.Kind == "absent" {
			err = j.root.RemoveAll(i.Path)
		} else if err = j.root.Remove(i.Path); errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return nil // somebody else uses it by now
		}
		return err
	}
	if err := j.root.MkdirAll(path.Dir(i.Path), 0o755); err != nil {
		return err
	}
	if !gone && now.IsDir() && (i.Kind == "file" || i.Kind == "link") || !gone && !now.IsDir() && (i.Kind == "dir" || i.Kind == "tree") {
		if err := j.root.RemoveAll(i.Path); err != nil {
			return err
		}
		gone = true
	}
	switch i.Kind {
	case "file":
		from, err := j.root.Open(i.Saved)
		if err != nil {
			return err
		}
		defer from.Close()
		if _, err := put(j.root, i.Path, from, i.Mode, ""); err != nil {
			return err
		}
		return j.root.Chtimes(i.Path, i.Time, i.Time)
	case "link":
		return link(j.root, i.Path, i.Link)
	case "moved":
		if _, err := j.root.Lstat(i.Saved); errors.Is(err, fs.ErrNotExist) {
			return nil // never moved, or back already
		}
		if !gone {
			if err := j.root.RemoveAll(i.Path); err != nil {
				return err
			}
		}
		return j.root.Rename(i.Saved, i.Path)
	case "dir", "tree":
		if gone {
			if err := j.root.Mkdir(i.Path, i.Mode); err != nil {
				return err
			}
		}
		if i.Kind == "tree" {
			if err := j.prune(i.Path); err != nil {
				return err
			}
		}
		return j.root.Chmod(i.Path, i.Mode)
	}
	return fail("journal.damaged", "%s: unknown kind %q", j.dir, i.Kind)
}

// prune removes what appeared below a tree.
func (j *journal) prune(p string) error {
	below, err := walk(j.root, p)
	if err != nil {
		return err
	}
	for _, b := range slices.Backward(below) {
		if !j.known(b) {
			if err := j.root.RemoveAll(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove forgets the call: the key is free again.
func (j *journal) remove() error {
	// The record goes last: without it nobody knows what the saved files were.
	if err := j.root.Remove(path.Join(j.dir, "journal.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	moment()
	if err := j.root.RemoveAll(j.dir); err != nil {
		return err
	}
	if err := j.root.Remove(path.Dir(j.dir)); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j.rec = record{Tool: j.rec.Tool, Key: j.rec.Key}
	return nil
}

// lock keeps other calls of one key away, in this process and in others. The file is handed to what the call
// starts, so that the lock outlives a call that was killed for as long as its work goes on.
func lock(ctx context.Context, root *os.Root, key string) (*os.File, error) {
	dir := path.Join(own, "lock")
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(key))
	file, err := root.OpenFile(path.Join(dir, hex.EncodeToString(sum[:2])[:3]), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the key: %w", err), file.Close())
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, later("key.busy", "another call of key %s is still at work: %v", key, ctx.Err())
		case <-tick.C:
		}
	}
}

// unlock lets the next call in, whoever else still holds the file.
func unlock(file *os.File) error {
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}

// expire removes the journals of calls that finished long ago.
func expire(root *os.Root, now time.Time) error {
	stale, err := root.Open(path.Join(own, "undo"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer stale.Close()
	for {
		entries, err := stale.ReadDir(100)
		for _, entry := range entries {
			info, err := entry.Info()
			if err == nil && now.Sub(info.ModTime()) > keepJournals {
				if err := root.RemoveAll(path.Join(own, "undo", entry.Name())); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
