package drift

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch implements Watcher: it watches every directory that a declared path needs, by way of fsnotify, and
// watches anew when directories come and go.
func (c *FileCollector) Watch(ctx context.Context, changed func(Touched)) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return c.unwatched(fmt.Errorf("drift: watch directories: %w", err))
	}
	watch := &dirWatch{root: c.dir, events: events, armed: make(map[string]armedDir), logical: make(map[string][]string), gaps: make(map[string]Gap)}
	c.mu.Lock()
	c.watch, c.fault = watch, ""
	if c.index != nil {
		watch.arm(c.index)
	}
	c.mu.Unlock()
	changed(Touched{All: true, Why: "watching begins"})
	defer events.Close()
	for {
		select {
		case <-ctx.Done():
			return c.unwatched(nil)
		case event, ok := <-events.Events:
			if !ok {
				return c.unwatched(errors.New("drift: watch directories: the kernel closed the event queue"))
			}
			if subjects := watch.translate(event); len(subjects) > 0 {
				changed(Touched{Subjects: subjects})
			}
		case err, ok := <-events.Errors:
			switch {
			case !ok:
				return c.unwatched(errors.New("drift: watch directories: the kernel closed the event queue"))
			case errors.Is(err, fsnotify.ErrEventOverflow):
				c.mu.Lock()
				c.lost = time.Now()
				if c.index != nil {
					watch.armAll(c.index)
				}
				c.mu.Unlock()
				changed(Touched{All: true, Why: "the kernel's event queue overflowed"})
			default:
				return c.unwatched(fmt.Errorf("drift: watch directories: %w", err))
			}
		}
	}
}

// unwatched notes that changes are no longer noticed, and hands err on.
func (c *FileCollector) unwatched(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = nil
	if err != nil {
		c.fault = err.Error()
	}
	return err
}

// dirWatch keeps the kernel's watches in line with the directories that an index needs.
//
// A directory goes by two names: the logical one, by which a declaration names it, and the real one, with all
// links resolved, under which the kernel reports. Several logical directories may have one real directory.
type dirWatch struct {
	root   string
	events *fsnotify.Watcher

	mu      sync.Mutex
	index   *fileIndex          // guarded by mu
	dirs    []string            // guarded by mu; logical, in order
	armed   map[string]armedDir // guarded by mu; by logical directory
	logical map[string][]string // guarded by mu; by real directory, those armed
	gaps    map[string]Gap      // guarded by mu; by logical directory, those refused
}

// armedDir is a directory that is watched, as it was when the watch was set.
type armedDir struct {
	real          string
	device, inode uint64
}

// arm takes a new index, and watches what it needs.
func (w *dirWatch) arm(index *fileIndex) {
	w.mu.Lock()
	defer w.mu.Unlock()
	needed := make(map[string]bool, len(index.parents)+1)
	needed["."] = true
	for dir := range index.parents {
		if fs.ValidPath(dir) {
			needed[dir] = true
		}
	}
	for _, dir := range index.exact.Dirs {
		for ; fs.ValidPath(dir) && !needed[dir]; dir = path.Dir(dir) {
			needed[dir] = true
		}
	}
	for dir := range w.armed {
		if !needed[dir] {
			w.disarm(dir)
		}
	}
	clear(w.gaps)
	w.index, w.dirs = index, w.dirs[:0]
	for dir := range needed {
		w.dirs = append(w.dirs, dir)
	}
	slices.Sort(w.dirs)
	for _, dir := range w.dirs {
		if _, done := w.armed[dir]; !done {
			w.add(dir)
		}
	}
}

// armAll sets every watch anew.
func (w *dirWatch) armAll(index *fileIndex) {
	w.mu.Lock()
	for _, dir := range w.dirs {
		w.disarm(dir)
	}
	w.mu.Unlock()
	w.arm(index)
}

// verify sets anew the watches of directories that are no longer the ones that were armed. It mends what a lost
// race left behind.
func (w *dirWatch) verify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	watched := make(map[string]bool)
	for _, real := range w.events.WatchList() {
		watched[real] = true
	}
	for _, dir := range w.dirs {
		have, done := w.armed[dir]
		now, err := w.resolve(dir)
		if done && err == nil && now == have && watched[have.real] {
			continue
		}
		w.disarm(dir)
		w.add(dir)
	}
}

// resolve finds the real directory of a logical one, which must lie inside the root.
func (w *dirWatch) resolve(dir string) (armedDir, error) {
	root, err := filepath.EvalSymlinks(w.root)
	if err != nil {
		return armedDir{}, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(dir)))
	if err != nil {
		return armedDir{}, err
	}
	if real != root && !strings.HasPrefix(real, strings.TrimSuffix(root, string(filepath.Separator))+string(filepath.Separator)) {
		return armedDir{}, fmt.Errorf("drift: %s leaves the root: %w", dir, fs.ErrNotExist)
	}
	info, err := os.Stat(real)
	if err != nil {
		return armedDir{}, err
	}
	if !info.IsDir() {
		return armedDir{}, fmt.Errorf("drift: %s: %w", dir, syscall.ENOTDIR)
	}
	s := stampOf(info)
	return armedDir{real: real, device: s.device, inode: s.inode}, nil
}

// add watches one logical directory, if it is there. The caller holds mu.
func (w *dirWatch) add(dir string) {
	delete(w.gaps, dir)
	now, err := w.resolve(dir)
	if err == nil && len(w.logical[now.real]) == 0 {
		err = w.events.Add(now.real)
	}
	switch {
	case err == nil:
		w.armed[dir] = now
		w.logical[now.real] = append(w.logical[now.real], dir)
	case absent(err): // its parent is watched, and tells when it comes
	case errors.Is(err, syscall.ENOSPC):
		w.gaps[dir] = Gap{Subject: dir, What: "changes between two rescans", Since: time.Now(),
			Why: "the kernel's limit of directory watches is reached; raise fs.inotify.max_user_watches"}
	default:
		w.gaps[dir] = Gap{Subject: dir, What: "changes between two rescans", Since: time.Now(), Why: err.Error()}
	}
}

// disarm ends the watch of one logical directory. The caller holds mu.
func (w *dirWatch) disarm(dir string) {
	have, ok := w.armed[dir]
	if !ok {
		return
	}
	delete(w.armed, dir)
	rest := slices.DeleteFunc(w.logical[have.real], func(other string) bool { return other == dir })
	if w.logical[have.real] = rest; len(rest) > 0 {
		return
	}
	delete(w.logical, have.real)
	_ = w.events.Remove(have.real) // it fails if the directory is gone, and its watch with it
}

// refused lists the directories that could not be watched.
func (w *dirWatch) refused() []Gap {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Gap
	for _, dir := range w.dirs {
		if gap, ok := w.gaps[dir]; ok {
			out = append(out, gap)
		}
	}
	return out
}

// translate turns an event of the kernel into the subjects that it may concern, after watching anew what it moved.
func (w *dirWatch) translate(event fsnotify.Event) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if event.Name == "" || w.index == nil {
		return nil
	}
	var touched []string
	for _, dir := range w.logical[filepath.Dir(event.Name)] {
		touched = append(touched, path.Join(dir, filepath.Base(event.Name)))
	}
	touched = append(touched, w.logical[event.Name]...) // of the directory itself
	var subjects []string
	for _, name := range touched {
		_, declared := w.index.files[name]
		if declared || !w.index.parents[name] && w.index.exact.covers(name) {
			subjects = append(subjects, name)
		}
		if event.Has(fsnotify.Create) || event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
			subjects = append(subjects, w.moved(name)...)
		} else if event.Has(fsnotify.Chmod) && w.armed[name].real != "" {
			subjects = append(subjects, w.index.below(name)...) // it may have become readable, or no longer be
		}
	}
	return subjects
}

// moved watches anew every directory at and below one that came or went, and returns what is declared there. The
// caller holds mu.
func (w *dirWatch) moved(name string) []string {
	from, _ := slices.BinarySearch(w.dirs, name)
	any := false
	for _, dir := range w.dirs[from:] {
		if dir != name && !below(dir, name) {
			if !strings.HasPrefix(dir, name) {
				break
			}
			continue
		}
		any = true
		w.disarm(dir)
		w.add(dir)
	}
	if !any {
		return nil
	}
	return w.index.below(name)
}

// below lists the declared paths below dir, and the exact directories at or below it.
func (x *fileIndex) below(dir string) []string {
	from, _ := slices.BinarySearch(x.names, dir+"/")
	if dir == "." {
		from = 0
	}
	var out []string
	for _, name := range x.names[from:] {
		if !below(name, dir) {
			break
		}
		out = append(out, name)
	}
	for _, exact := range x.exact.Dirs {
		if exact == dir || below(exact, dir) {
			out = append(out, exact+everythingBelow)
		}
	}
	return out
}
