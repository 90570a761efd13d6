package transport

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// NewServerWithin is NewServer with other bounds for bodies, and for peers of direct streams that are silent.
func NewServerWithin(handler http.Handler, body, silence time.Duration) *Server {
	return newServer(handler, body, silence)
}

// NewOldServer is a server that knows of no direct streams.
func NewOldServer(handler http.Handler) *Server {
	s := NewServer(handler)
	s.http.Handler = handler
	return s
}

// SendRecords sends a body until stop, as the client of a direct stream does.
func SendRecords(conn net.Conn, body io.ReadCloser, every time.Duration) (stop func()) {
	return sendRecords(conn, body, every).stop
}

// ReadRecords reads one, as the server does.
func ReadRecords(conn net.Conn, silence time.Duration) io.Reader {
	return &recordReader{silence: silence, in: bufio.NewReader(conn), conn: conn}
}

// Direct serves direct streams below a server of net/http that goes on; drain is what a Server does with them when it stops.
func Direct(next http.Handler) (handler http.Handler, drain func(context.Context)) {
	d := newDirect(next, PingAfter+PingTimeout)
	return d, d.drain
}
