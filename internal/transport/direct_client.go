package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// directly sends the streams of some paths on direct connections, see protocolDirect, and all else over HTTP/2. A server that
// does not know of them, or a proxy that does not pass them on, is sent these over HTTP/2 too: it has seen no more than a
// request without a body.
type directly struct {
	*http.Transport                 // over HTTP/2
	single          *http.Transport // over HTTP/1.1
	paths           []string
	every           time.Duration // so often a silent stream says that it lives
}

// RoundTrip implements http.RoundTripper.
func (d *directly) RoundTrip(request *http.Request) (*http.Response, error) {
	if !slices.Contains(d.paths, request.URL.Path) {
		return d.Transport.RoundTrip(request)
	}
	response, err := d.ask(request)
	switch {
	case err == nil:
		return response, nil
	case request.Context().Err() != nil, dialing(err):
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	return d.Transport.RoundTrip(request)
}

// CloseIdleConnections closes those of both protocols; http.Client calls it.
func (d *directly) CloseIdleConnections() {
	d.Transport.CloseIdleConnections()
	d.single.CloseIdleConnections()
}

// dialing says whether err is that nobody is there: over HTTP/2 nobody would be either.
func dialing(err error) bool {
	var fault *net.OpError
	return errors.As(err, &fault) && fault.Op == "dial"
}

var errNotDirect = errors.New("the server did not switch protocols")

// ask asks for a direct stream.
func (d *directly) ask(request *http.Request) (*http.Response, error) {
	asking := request.Clone(request.Context())
	asking.Body, asking.ContentLength = nil, 0
	asking.Header.Set("Connection", "Upgrade")
	asking.Header.Set("Upgrade", protocolDirect)
	answer, err := d.single.RoundTrip(asking)
	if err != nil {
		return nil, err
	}
	conn, ok := answer.Body.(io.ReadWriteCloser)
	if answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Upgrade") != protocolDirect || !ok {
		answer.Body.Close()
		return nil, errNotDirect
	}
	answer.Header.Del("Connection")
	answer.Header.Del("Upgrade")
	sent := request.Body
	if sent == nil {
		sent = http.NoBody
	}
	sending := sendRecords(conn, sent, d.every)
	end := sync.OnceValue(func() error {
		err := conn.Close()
		sending.stop()
		return err
	})
	detach := context.AfterFunc(request.Context(), func() { _ = end() })
	body := &directResponse{in: bufio.NewReader(conn), end: func() error { detach(); return end() }}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, // both sides may speak at any time
		Header: answer.Header, Body: body, ContentLength: -1, Request: request, TLS: answer.TLS,
	}, nil
}

// directResponse is what the server sends.
type directResponse struct {
	in  *bufio.Reader
	end func() error // once
}

// Read implements io.Reader.
func (r *directResponse) Read(p []byte) (int, error) { return r.in.Read(p) }

// Close implements io.Closer: it ends the stream, and a Read that waits.
func (r *directResponse) Close() error { return r.end() }
