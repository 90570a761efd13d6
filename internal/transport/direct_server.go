package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// protocolDirect is what an Upgrade header calls a stream that has a connection to itself (RFC 9110, section 7.8). A request
// that asks for it has no body. What the handler reads comes as records, see recordWriter, after the answer 101; what it
// writes is sent as it is, until the connection is closed. Whatever the handler says before it reads, other than 200, is an
// answer as any: who may not have the stream is told so in HTTP.
//
// An HTTP/2 stream costs a server three goroutines, their buffers, and for each message several turns of these; a direct one
// has the handler's goroutine and the buffers of HTTP/1.1, and a message is one write.
const protocolDirect = "zhiyun-direct"

// direct serves direct streams: to next they look like streams of HTTP/2.
type direct struct {
	next    http.Handler
	silence time.Duration // after which a peer that sends nothing is gone, and one that takes nothing is cut

	mu     sync.Mutex
	open   map[*directStream]context.CancelFunc // guarded by mu
	closed bool                                 // guarded by mu; no more are let in
	idle   chan struct{}                        // closed when closed, and none is open
}

func newDirect(next http.Handler, silence time.Duration) *direct {
	return &direct{next: next, silence: silence, open: make(map[*directStream]context.CancelFunc), idle: make(chan struct{})}
}

// ServeHTTP implements http.Handler.
func (d *direct) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !asksDirect(r) {
		d.next.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &directStream{w: w, silence: d.silence, gone: cancel}
	if !d.begin(s, cancel) {
		http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
		return
	}
	defer d.end(s)
	defer s.close()
	r = r.WithContext(ctx)
	r.Header.Del("Connection")
	r.Header.Del("Upgrade")
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0 // both sides may speak at any time
	r.Body, r.ContentLength = (*directBody)(s), -1
	d.next.ServeHTTP(s, r)
}

// asksDirect says whether a request asks for a direct stream. Any other is served as it came: one of HTTP/1.0, one whose Upgrade
// was meant for the hop before, and one with a body, which a proxy may end elsewhere than this server does.
func asksDirect(r *http.Request) bool {
	offers := r.Header["Upgrade"]
	return r.ProtoMajor == 1 && r.ProtoMinor >= 1 && r.ContentLength == 0 && streams(r) &&
		len(offers) == 1 && strings.EqualFold(offers[0], protocolDirect) &&
		slices.ContainsFunc(r.Header["Connection"], func(line string) bool {
			return slices.ContainsFunc(strings.Split(line, ","), func(option string) bool {
				return strings.EqualFold(strings.TrimSpace(option), "Upgrade")
			})
		})
}

func (d *direct) begin(s *directStream, cancel context.CancelFunc) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.open[s] = cancel
	return true
}

func (d *direct) end(s *directStream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, s)
	if d.closed && len(d.open) == 0 {
		close(d.idle)
	}
}

// drain lets no more streams in, waits until all have ended, and ends those that are left when ctx does: net/http forgets
// connections that were taken from it.
func (d *direct) drain(ctx context.Context) {
	d.mu.Lock()
	if !d.closed && len(d.open) == 0 {
		close(d.idle)
	}
	d.closed = true
	d.mu.Unlock()
	select {
	case <-d.idle:
		return
	case <-ctx.Done():
	}
	d.mu.Lock()
	for s, cancel := range d.open {
		cancel()
		s.cut()
	}
	d.mu.Unlock()
	<-d.idle
}

// directStream is one direct stream, as the http.ResponseWriter of its handler.
//
//	            the handler reads, or answers 200
//	asked for ------------------------------------> switched: 101 is sent
//	    |       answers anything else                    | cut: the connection is closed
//	    +------------------> plain: HTTP/1.1             v
//	    +------------------------------------------> severed: it is never switched
//	                     cut
type directStream struct {
	silence time.Duration
	gone    func()         // ends the handler's context
	rest    sync.WaitGroup // awaits the end of a peer that says no more; close waits for it

	mu      sync.Mutex
	w       http.ResponseWriter
	plain   bool          // guarded by mu
	shut    bool          // guarded by mu; the handler has closed the body
	severed bool          // guarded by mu; it is cut, now or as soon as it would be switched
	fault   error         // guarded by mu; why it cannot be switched
	conn    net.Conn      // guarded by mu; set when it is switched
	out     *bufio.Writer // set with conn; owned by the one who writes
	reader  *recordReader // set with conn
	ended   bool          // the peer has ended its body; owned by who reads
}

var errSevered = errors.New("the server stopped before the stream began")

// switched takes the connection from net/http, once, and tells the peer.
func (s *directStream) switched() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.conn != nil:
		return nil
	case s.fault != nil:
		return s.fault
	case s.plain:
		return errors.New("the stream was refused")
	case s.severed:
		return errSevered
	}
	header := s.w.Header()
	header.Set("Connection", "Upgrade")
	header.Set("Upgrade", protocolDirect)
	conn, buffers, err := http.NewResponseController(s.w).Hijack()
	if err != nil {
		s.fault = err
		return err
	}
	s.conn, s.out = conn, buffers.Writer
	s.reader = &recordReader{silence: s.silence, in: buffers.Reader, conn: conn, closed: s.shut}
	s.out.Reset(&timedWriter{conn: conn, timeout: s.silence})
	_, err = s.out.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	err = errors.Join(err, header.Write(s.out))
	_, last := s.out.WriteString("\r\n")
	if err = errors.Join(err, last, s.out.Flush()); err != nil {
		conn.Close()
	}
	return err
}

// Header implements http.ResponseWriter. What is set after the stream was switched is not sent.
func (s *directStream) Header() http.Header { return s.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (s *directStream) WriteHeader(status int) {
	if status == http.StatusOK {
		_ = s.switched() // Write says why not
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		s.plain = true
		s.w.WriteHeader(status)
	}
}

// refused says whether the answer is one of HTTP/1.1.
func (s *directStream) refused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plain
}

// Write implements io.Writer.
func (s *directStream) Write(p []byte) (int, error) {
	if s.refused() {
		return s.w.Write(p)
	}
	if err := s.switched(); err != nil {
		return 0, err
	}
	return s.out.Write(p)
}

// Flush implements http.Flusher. One that fails ends the stream, which the handler hears when it reads, or writes again.
func (s *directStream) Flush() {
	if s.refused() {
		_ = http.NewResponseController(s.w).Flush()
		return
	}
	if s.switched() == nil && s.out.Flush() != nil {
		s.cut()
	}
}

// cut closes the connection under the handler. Of a stream that is not switched yet it is net/http's, which answers there, and it
// stays so.
func (s *directStream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.severed = true
	if s.conn != nil {
		s.conn.Close()
	}
}

// close ends the stream when the handler has returned.
func (s *directStream) close() {
	if s.conn != nil {
		_ = s.out.Flush() // the peer has the rest, or is gone
		s.conn.Close()
	}
	s.rest.Wait()
}

// timedWriter fails when a peer takes too long for a piece: it is slow beyond hope, and will be served what there is then when
// it connects again.
type timedWriter struct {
	conn    net.Conn
	timeout time.Duration
	until   time.Time // the deadline that is set; for one goroutine
}

const piece = 64 << 10

func (w *timedWriter) Write(p []byte) (int, error) {
	written := 0
	for {
		if err := w.arm(time.Now()); err != nil {
			return written, err
		}
		n, err := w.conn.Write(p[written:min(len(p), written+piece)])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// arm gives the peer at least the timeout, and a quarter more, so that not each of many writes in a row moves a timer.
func (w *timedWriter) arm(now time.Time) error {
	if w.until.Sub(now) >= w.timeout {
		return nil
	}
	w.until = now.Add(w.timeout + w.timeout/4)
	return w.conn.SetWriteDeadline(w.until)
}

// directBody is what the peer sends.
type directBody directStream

// Read implements io.Reader.
func (b *directBody) Read(p []byte) (int, error) {
	if err := (*directStream)(b).switched(); err != nil {
		return 0, err
	}
	n, err := b.reader.Read(p)
	if errors.Is(err, io.EOF) && !b.ended {
		b.ended = true
		b.rest.Go(func() {
			if b.reader.await() {
				b.gone()
			}
		})
	}
	return n, err
}

// Close implements io.Closer.
func (b *directBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
	if b.reader != nil {
		return b.reader.Close()
	}
	return nil
}

var (
	_ io.ReadCloser = (*directBody)(nil)
	_ http.Flusher  = (*directStream)(nil)
)
