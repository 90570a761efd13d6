package flow

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
)

// tail keeps the last bytes written to it.
type tail struct {
	limit   int
	forward func([]byte)

	mu   sync.Mutex // guards what follows
	data []byte
	lost bool
}

func (t *tail) Write(p []byte) (int, error) {
	if t.forward != nil {
		t.forward(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data, t.lost = append(t.data[:0], t.data[over:]...), true
	}
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom, with a buffer of the size of what tools write: io.Copy takes 32 KiB for each.
func (t *tail) ReadFrom(from io.Reader) (int64, error) { return pour(t, from) }

func pour(to io.Writer, from io.Reader) (n int64, err error) {
	buffer := make([]byte, 4<<10)
	for {
		got, err := from.Read(buffer)
		n += int64(got)
		_, _ = to.Write(buffer[:got]) // to memory: never fails
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// cutMark stands before the end of a log whose beginning is not kept.
const cutMark = "...\n"

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.ToValidUTF8(string(t.data), "?")
	if t.lost {
		return cutMark + text
	}
	return text
}

// limited keeps the first bytes written to it and drops the rest.
type limited struct {
	buffer   bytes.Buffer // not embedded: io.Copy would find its ReadFrom and pass the limit by
	limit    int
	overflow bool
}

// ReadFrom implements io.ReaderFrom, as that of tail.
func (l *limited) ReadFrom(from io.Reader) (int64, error) { return pour(l, from) }

func (l *limited) Write(p []byte) (int, error) {
	if room := l.limit - l.buffer.Len(); len(p) > room {
		l.overflow = true
		l.buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.buffer.Write(p)
}
