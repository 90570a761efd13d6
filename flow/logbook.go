package flow

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// logbook keeps what attempts write to stderr: a folder per execution, a file per attempt, named by when it began.
type logbook struct {
	dir   string
	limit int64
	log   *slog.Logger

	grown bells // rung when a file of the execution has grown or is complete

	mu   sync.Mutex // guards what follows
	live map[string]int
}

func newLogbook(dir string, limit int64, log *slog.Logger) *logbook {
	if limit == 0 {
		limit = DefaultLogLimit
	}
	return &logbook{dir: dir, limit: limit, log: log, live: map[string]int{}}
}

// stampLayout sorts as text by time.
const stampLayout = "20060102T150405.000000Z"

// folder is that of an execution.
func (b *logbook) folder(execution string) (string, error) {
	if execution == "" || execution[0] == '.' || strings.ContainsAny(execution, `/\`) || !filepath.IsLocal(execution) {
		return "", fmt.Errorf("%w: %q is no ID of one", ErrNotFound, execution)
	}
	return filepath.Join(b.dir, execution), nil
}

// open begins the log of an attempt. Nothing is made before there is something to write. nil if no logs are kept.
func (b *logbook) open(call *Call, secrets []string, at time.Time) *logPage {
	if b.dir == "" {
		return nil
	}
	folder, err := b.folder(call.Execution)
	if err != nil {
		return nil // an ID that is no name of a folder
	}
	kind := ""
	switch {
	case call.Undo:
		kind = "undo"
	case call.Probe:
		kind = "probe"
	}
	page := &logPage{book: b, execution: call.Execution, folder: folder, left: b.limit}
	page.path = filepath.Join(folder, fmt.Sprintf("%s~%s.%d.%d.%s.log", at.Format(stampLayout), call.Step, call.Item, call.Attempt, kind))
	page.striker = newStriker((*logFile)(page), secrets)
	b.mu.Lock()
	b.live[page.path]++
	b.mu.Unlock()
	return page
}

// logPage is the log of one attempt while that runs.
type logPage struct {
	book            *logbook
	execution, path string
	folder          string

	mu      sync.Mutex // guards what follows
	striker *striker
	file    *os.File
	left    int64
	written bool
	dropped int64
	failed  bool
}

// write adds a piece. What cannot be written is dropped: a full disk ends no step.
func (p *logPage) write(data []byte) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.written = p.written || len(data) > 0
	_, err := p.striker.Write(data)
	p.fail(err)
	p.mu.Unlock()
	p.book.grown.ring(p.execution)
}

// fail notes that the log cannot be written, once.
func (p *logPage) fail(err error) {
	if err != nil && !p.failed {
		p.failed = true
		p.book.log.Warn("a log cannot be kept; the step goes on", "file", p.path, "error", err)
	}
}

// close ends the log. rest is the end of what was written, for one of which nothing has come before.
func (p *logPage) close(rest string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	if !p.written && rest != "" {
		_, err := p.striker.Write([]byte(rest))
		p.fail(err)
	}
	err := p.striker.Close()
	if p.dropped > 0 && p.file != nil {
		_, more := fmt.Fprintf(p.file, "\n[%d bytes more were not kept]\n", p.dropped)
		err = errors.Join(err, more)
	}
	if p.file != nil {
		err = errors.Join(err, p.file.Close())
		p.file = nil
	}
	p.fail(err)
	p.mu.Unlock()
	p.book.mu.Lock()
	if p.book.live[p.path]--; p.book.live[p.path] == 0 {
		delete(p.book.live, p.path)
	}
	p.book.mu.Unlock()
	p.book.grown.ring(p.execution)
}

// logFile is the file below a page. Its page's mu is held.
type logFile logPage

func (f *logFile) Write(data []byte) (int, error) {
	n := len(data)
	if int64(n) > f.left {
		f.dropped += int64(n) - f.left
		data = data[:f.left]
	}
	f.left -= int64(len(data))
	if len(data) == 0 || f.failed {
		return n, nil
	}
	if f.file == nil {
		if err := os.MkdirAll(f.folder, 0o700); err != nil {
			return 0, err
		}
		var err error
		if f.file, err = os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return 0, err
		}
	}
	_, err := f.file.Write(data)
	return n, err
}

// pages lists the files of an execution by when they began.
func (b *logbook) pages(execution string) ([]LogPiece, []string, error) {
	folder, err := b.folder(execution)
	if err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var out []LogPiece
	var paths []string
	for _, entry := range entries {
		if piece, ok := parsePage(entry.Name()); ok {
			out, paths = append(out, piece), append(paths, filepath.Join(folder, entry.Name()))
		}
	}
	return out, paths, nil
}

// parsePage reads the name of a log file.
func parsePage(name string) (LogPiece, bool) {
	stamp, rest, found := strings.Cut(strings.TrimSuffix(name, ".log"), "~")
	parts := strings.Split(rest, ".")
	if !found || len(parts) != 4 || !strings.HasSuffix(name, ".log") {
		return LogPiece{}, false
	}
	at, err := time.Parse(stampLayout, stamp)
	item, bad := strconv.Atoi(parts[1])
	attempt, worse := strconv.Atoi(parts[2])
	if errors.Join(err, bad, worse) != nil {
		return LogPiece{}, false
	}
	return LogPiece{Step: parts[0], Item: item, Attempt: attempt, Kind: parts[3], Began: at.UTC()}, true
}

// isLive reports whether the file may still grow.
func (b *logbook) isLive(path string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.live[path] > 0
}

// read returns what a file has after an offset: whole lines, unless it is complete or a line is very long.
func (b *logbook) read(path string, offset int64, complete bool) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // pruned meanwhile
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data := make([]byte, maxPiece)
	n, err := file.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	data = data[:n]
	if end := strings.LastIndexByte(string(data), '\n') + 1; end > 0 && end < n && (n == maxPiece || !complete) {
		data = data[:end]
	} else if end == 0 && !complete && n < maxPiece {
		data = nil
	}
	return data, nil
}

// maxPiece bounds a piece of a log.
const maxPiece = 64 << 10

// remove deletes all logs of an execution.
func (b *logbook) remove(execution string) error {
	if b.dir == "" {
		return nil
	}
	folder, err := b.folder(execution)
	if err != nil {
		return nil
	}
	return os.RemoveAll(folder)
}
