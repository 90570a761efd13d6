package drift

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// FileCollector observes files, their modes and links under one root folder, and notices their changes. Make it
// with Files. It is safe for concurrent use.
//
// All access goes through os.Root: a path that leaves the root, by whatever link, is observed as Outside and never
// followed. (A link with an absolute target counts as leaving.) Content is hashed only if inode, size, mtime or
// ctime have changed since it was hashed last.
type FileCollector struct {
	dir string

	mu      sync.Mutex
	index   *fileIndex        // guarded by mu
	hashed  map[string]hashed // guarded by mu; by path
	unknown map[string]Gap    // guarded by mu; paths that could not be read when last looked at
	watch   *dirWatch         // guarded by mu; nil while Watch does not run
	fault   string            // guarded by mu; why Watch ended, "" if it did not or runs again
	swept   time.Time         // guarded by mu; when the last full look began
	lost    time.Time         // guarded by mu; when events were lost last, until the files were looked at again
}

// Files returns a collector for the files under root. It opens nothing yet.
func Files(root string) *FileCollector {
	return &FileCollector{dir: root, hashed: make(map[string]hashed), unknown: make(map[string]Gap)}
}

// Kinds implements Collector.
func (c *FileCollector) Kinds() []Kind { return []Kind{KindFile, KindConfig, KindPackage} }

// fileIndex is what a declaration means for the collector.
type fileIndex struct {
	files   map[string]File
	exact   Exact
	names   []string        // declared paths that stay inside the root, in order
	parents map[string]bool // directories that declared paths need
}

// everythingBelow as the end of a subject given to Collect means all that is not declared below a directory.
const everythingBelow = "/..."

func newFileIndex(want State) *fileIndex {
	index := &fileIndex{files: want.Files, exact: want.Exact, parents: declaredParents(want.Files)}
	for name := range want.Files {
		index.names = append(index.names, name)
	}
	slices.Sort(index.names)
	return index
}

// same says whether the index was made from want. States do not change, so identity is enough.
func (x *fileIndex) same(want State) bool {
	return x != nil && reflect.ValueOf(x.files).Pointer() == reflect.ValueOf(want.Files).Pointer() &&
		len(x.files) == len(want.Files) && slices.Equal(x.exact.Dirs, want.Exact.Dirs)
}

// Collect implements Collector. Each subject in only is a path, or an exact directory followed by "/...".
func (c *FileCollector) Collect(ctx context.Context, want State, only []string) (State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.index.same(want) {
		c.index = newFileIndex(want)
		c.forget()
		if c.watch != nil {
			c.watch.arm(c.index)
		}
	}
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return State{}, fmt.Errorf("drift: open the device's root folder: %w", err)
	}
	defer root.Close()
	names := only
	if only == nil {
		names = c.index.names
		for _, dir := range c.index.exact.Dirs {
			names = append(slices.Clip(names), dir+everythingBelow)
		}
	}
	look := &looking{FileCollector: c, root: root, files: make(map[string]File, len(names))}
	defer look.leave()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return State{}, err
		}
		if dir, all := strings.CutSuffix(name, everythingBelow); all {
			look.walk(dir)
		} else {
			look.at(name)
		}
	}
	return State{Files: look.files, Coverage: []Coverage{c.coverage()}}, nil
}

// sweepBegins and sweepEnds frame a full look: the watches are checked first, and what was lost before is then made
// good.
func (c *FileCollector) sweepBegins() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.swept = time.Now()
	if c.watch != nil {
		c.watch.verify()
	}
}

func (c *FileCollector) sweepEnds() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost.Before(c.swept) {
		c.lost = time.Time{}
	}
}

// forget drops what is remembered of paths that are no longer declared.
func (c *FileCollector) forget() {
	for name := range c.hashed {
		if _, declared := c.index.files[name]; !declared {
			delete(c.hashed, name)
		}
	}
	for name := range c.unknown {
		if _, declared := c.index.files[name]; !declared {
			delete(c.unknown, name)
		}
	}
}

// looking is one call of Collect. It keeps the directory of the last path open: declared paths come in order.
type looking struct {
	*FileCollector
	root  *os.Root
	files map[string]File

	dir     string // of which the next three speak; "" before the first
	handle  *os.Root
	err     error
	outside bool
}

func (l *looking) leave() {
	if l.handle != nil && l.handle != l.root {
		l.handle.Close()
	}
	l.handle = nil
}

func (l *looking) enter(dir string) {
	if l.dir == dir && (l.handle != nil || l.err != nil) {
		return
	}
	l.leave()
	l.dir, l.outside = dir, false
	if dir == "." {
		l.handle, l.err = l.root, nil
		return
	}
	l.handle, l.err = l.root.OpenRoot(filepath.FromSlash(dir))
	if l.err != nil {
		l.handle = nil
		if !absent(l.err) && !errors.Is(l.err, fs.ErrPermission) {
			var none bool
			if none, l.outside = obstacle(l.root, dir); none {
				l.err = fs.ErrNotExist
			}
		}
	}
}

// absent says whether an error means that nothing is at a path.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// obstacle says why dir, which is there, cannot be entered: a component is no directory, so that nothing can lie
// below it, or is a link, of which os.Root refuses only those that lead outside.
func obstacle(root *os.Root, dir string) (none, outside bool) {
	for at := dir; at != "."; at = path.Dir(at) {
		info, err := root.Lstat(filepath.FromSlash(at))
		if err != nil {
			continue
		}
		outside = outside || info.Mode()&fs.ModeSymlink != 0
		none = none || !info.IsDir() && info.Mode()&fs.ModeSymlink == 0
	}
	return none, outside && !none
}

// at observes one path.
func (l *looking) at(name string) {
	delete(l.unknown, name)
	want, declared := l.index.files[name]
	if !declared && l.index.parents[name] {
		return // a directory that is needed
	}
	if !fs.ValidPath(name) {
		l.unknown[name] = Gap{Subject: name, What: "the path", Why: "it is not relative, clean and inside the root", Since: time.Now(), Unknown: true}
		return
	}
	l.enter(path.Dir(name))
	switch {
	case l.outside:
		l.files[name] = File{Kind: want.Kind, Type: Outside}
		return
	case l.err != nil:
		l.cannot(name, l.err)
		return
	}
	base := path.Base(name)
	info, err := l.handle.Lstat(base)
	if err != nil {
		l.cannot(name, err)
		return
	}
	have, err := l.describe(name, base, want, info)
	if err != nil {
		l.cannot(name, err)
		return
	}
	l.files[name] = have
}

// cannot notes a path of which nothing could be learnt, unless the reason is that nothing is there.
func (l *looking) cannot(name string, err error) {
	delete(l.hashed, name)
	if !absent(err) {
		l.unknown[name] = Gap{Subject: name, What: "the file", Why: err.Error(), Since: time.Now(), Unknown: true}
	}
}

// describe turns what lies at a path into a File.
func (l *looking) describe(name, base string, want File, info fs.FileInfo) (File, error) {
	have := File{Kind: want.Kind, PerDevice: want.PerDevice, Mode: PermOf(info.Mode())}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		have.Size = info.Size()
		if want.Digest == "" {
			return have, nil
		}
		var err error
		have.Digest, err = l.digest(name, base, info)
		return have, err
	case mode.IsDir():
		have.Type = Dir
	case mode&fs.ModeSymlink != 0:
		target, err := l.handle.Readlink(base)
		if err != nil {
			return File{}, err
		}
		have.Type, have.Link, have.Mode = Link, filepath.ToSlash(target), 0
	default:
		have.Type = Special
	}
	return have, nil
}

// walk observes all that is not declared below an exact directory.
func (l *looking) walk(dir string) {
	for name := range l.unknown {
		if _, declared := l.index.files[name]; !declared && below(name, dir) {
			delete(l.unknown, name)
		}
	}
	err := fs.WalkDir(l.root.FS(), dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil && absent(err):
			return nil
		case err != nil:
			l.unknown[name] = Gap{Subject: name, What: "what lies below", Why: err.Error(), Since: time.Now(), Unknown: true}
			return fs.SkipDir
		case name == dir || l.index.parents[name]:
			return nil
		}
		if _, declared := l.index.files[name]; declared {
			return nil
		}
		l.at(name)
		if entry.IsDir() {
			return fs.SkipDir // the directory itself is not declared: one finding is enough
		}
		return nil
	})
	if err != nil && !absent(err) {
		l.unknown[dir] = Gap{Subject: dir, What: "what lies below", Why: err.Error(), Since: time.Now(), Unknown: true}
	}
}

// coverage is the collector's statement. The caller holds mu.
func (c *FileCollector) coverage() Coverage {
	cov := Coverage{Collector: "files", Kinds: c.Kinds(), Via: "rescan", At: time.Now()}
	if c.watch != nil {
		cov.Via, cov.Events = "fsnotify+rescan", true
		for _, dir := range c.watch.refused() {
			cov.gap(dir)
		}
	} else if c.fault != "" {
		cov.gap(Gap{What: "changes between two rescans", Why: c.fault})
	}
	if !c.lost.IsZero() {
		cov.gap(Gap{What: "changes since then", Why: "the kernel's event queue overflowed; a rescan is due", Since: c.lost})
	}
	cov.gap(Gap{What: "owner, extended attributes and capabilities", Why: "they are not compared"})
	cov.gap(Gap{What: "who changed a file", Why: "directory watches do not tell"})
	cov.gap(Gap{What: "changes through another hard link or a shared memory map, until the next rescan", Why: "directory watches do not tell"})
	for _, gap := range c.unknown {
		cov.gap(gap)
	}
	return cov
}
