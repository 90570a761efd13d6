package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// A direct stream's client sends records: two bytes, big endian, and so many bytes of its body. Two numbers say something else.
const (
	recordAlive = 0      // nothing but that the client lives
	recordEnd   = 0xffff // the body ends here; a connection that ends before it was cut
	recordMost  = 2 << 10
)

// recordWriter sends a body as records. In silence it says every so often that it lives.
type recordWriter struct {
	body  io.ReadCloser
	every time.Duration

	mu    sync.Mutex // held while a record is written
	conn  io.Writer  // guarded by mu
	ended sync.WaitGroup

	pace    sync.Mutex
	timer   *time.Timer // guarded by pace
	stopped bool        // guarded by pace
}

// sendRecords starts to send body. Stop it.
func sendRecords(conn io.Writer, body io.ReadCloser, every time.Duration) *recordWriter {
	w := &recordWriter{body: body, every: every, conn: conn}
	w.pace.Lock()
	w.timer = time.AfterFunc(every, w.alive)
	w.pace.Unlock()
	w.ended.Go(w.copy)
	return w
}

// copy sends the body until that ends, or is closed, or the connection breaks: whoever reads from it says so, and who writes
// into the body must not wait for it.
func (w *recordWriter) copy() {
	defer w.body.Close()
	buffer := make([]byte, 2+recordMost)
	for {
		n, err := w.body.Read(buffer[2:])
		if n > 0 {
			binary.BigEndian.PutUint16(buffer, uint16(n))
			if w.write(buffer[:2+n]) != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = w.write(binary.BigEndian.AppendUint16(nil, recordEnd)) // as above
		}
		if err != nil {
			return
		}
	}
}

func (w *recordWriter) alive() {
	err := w.write(binary.BigEndian.AppendUint16(nil, recordAlive))
	w.pace.Lock()
	defer w.pace.Unlock()
	if err == nil && !w.stopped {
		w.timer.Reset(w.every)
	}
}

func (w *recordWriter) write(record []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.conn.Write(record)
	return err
}

// stop ends it; the connection must be closed by then.
func (w *recordWriter) stop() {
	w.pace.Lock()
	w.stopped = true
	w.timer.Stop()
	w.pace.Unlock()
	w.body.Close()
	w.ended.Wait()
}

// errCut says that the peer did not end the stream.
var errCut = fmt.Errorf("the connection was cut: %w", io.ErrUnexpectedEOF)

// recordReader is the body that a recordWriter sends. A peer that is silent for long is gone.
type recordReader struct {
	silence time.Duration
	in      *bufio.Reader // of conn
	left    int           // of the record; owned by Read
	end     error         // owned by Read

	mu     sync.Mutex
	conn   net.Conn // guarded by mu; for its deadline
	closed bool     // guarded by mu
}

// Read implements io.Reader. It returns io.EOF when the peer has ended the body, and not when the connection breaks.
func (r *recordReader) Read(p []byte) (int, error) {
	for r.left == 0 && r.end == nil {
		r.left, r.end = r.next()
	}
	if r.end != nil {
		return 0, r.end
	}
	if err := r.arm(); err != nil {
		return 0, err
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, r.why(err)
}

// next reads the head of a record.
func (r *recordReader) next() (int, error) {
	if err := r.arm(); err != nil {
		return 0, err
	}
	head, err := r.in.Peek(2)
	if err != nil {
		return 0, r.why(err)
	}
	n := int(binary.BigEndian.Uint16(head))
	if _, err := r.in.Discard(2); err != nil {
		return 0, err
	}
	switch {
	case n == recordEnd:
		return 0, io.EOF
	case n > recordMost:
		return 0, fmt.Errorf("a record of %d bytes: at most %d are allowed", n, recordMost)
	}
	return n, nil
}

// await reads on behind the end of the body, where a peer says no more than that it lives, until that one is gone: then it is
// true, and false if Close has ended it.
func (r *recordReader) await() bool {
	for {
		if n, err := r.next(); err != nil || n > 0 {
			return !errors.Is(err, http.ErrBodyReadAfterClose)
		}
	}
}

// arm lets the next read wait for as long as a peer may be silent.
func (r *recordReader) arm() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return http.ErrBodyReadAfterClose
	}
	_ = r.conn.SetReadDeadline(time.Now().Add(r.silence)) // of a connection that is broken: the read says so
	return nil
}

// why says in the stream's words why a read failed.
func (r *recordReader) why(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case r.closed:
		return http.ErrBodyReadAfterClose
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("nothing was heard of the peer for %v", r.silence)
	case errors.Is(err, io.EOF):
		return errCut
	}
	return err
}

// Close implements io.Closer: it ends a Read that waits. What is written to the connection still goes out.
func (r *recordReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	_ = r.conn.SetReadDeadline(time.Unix(1, 0)) // of a connection that is closed: then no Read waits
	return nil
}
