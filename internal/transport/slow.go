package transport

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// BodyTimeout is how long the body of a request may take to arrive; that of a stream, which may be silent for as long as
// it likes, to begin. Whoever sends more slowly holds a connection and its buffers for nothing.
const BodyTimeout = time.Minute

// timely bounds how long the bodies of requests take, so that nobody holds the server by sending them byte by byte.
func timely(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			control := http.NewResponseController(w)
			if control.SetReadDeadline(time.Now().Add(timeout)) == nil {
				r.Body = &awaited{ReadCloser: r.Body, streams: streams(r), arrived: func() { _ = control.SetReadDeadline(time.Time{}) }}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// streams says whether the request's body is a stream of messages, by Connect's and gRPC's types of content.
func streams(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return strings.HasPrefix(kind, "application/connect+") || strings.HasPrefix(kind, "application/grpc")
}

// awaited is a body that is read against a deadline.
type awaited struct {
	io.ReadCloser
	streams bool
	once    sync.Once
	arrived func() // lifts the deadline: what the handler does with the body is its own affair
}

func (a *awaited) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil || a.streams && n > 0 {
		a.once.Do(a.arrived)
	}
	return n, err
}
