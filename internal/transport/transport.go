// Package transport connects Zhiyun's processes: HTTP/2 over a unix socket, loopback, or TLS, and direct streams beside it
// where HTTP/2 would cost too much. Every client and every server of the project is made here, so that what is safe is
// decided in one place.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/certs"
)

// A silent peer is found within PingAfter + PingTimeout: 10 s.
const (
	PingAfter   = 5 * time.Second
	PingTimeout = 5 * time.Second
)

// MaxStreams is how many calls one HTTP/2 connection may carry at a time.
const MaxStreams = 10_000

// DialConfig says where a server is and how to be known to it.
type DialConfig struct {
	// Target is "unix:///path/to.sock", "http://127.0.0.1:7070" (loopback only) or "https://host:port", or several of
	// them with commas in between: servers that serve the same, of which any may die. Required.
	Target string
	// Token is sent as a bearer token; "@/path" sends what the file holds, read anew when it changes, so that a token that is
	// renewed needs no restart. Default: none.
	Token string
	// TLS is used for https targets. Default: the system's roots.
	TLS *tls.Config
	// Direct are paths of Connect streams that get a connection to themselves, without HTTP/2, where the server offers it: a
	// message of theirs then costs either side one system call, and a stream half of the memory. For streams that stay open
	// and are many at one server, and on which that server is heard often enough to be missed: it is not asked whether it
	// lives, as over HTTP/2. Default: none.
	Direct []string
	// From is the local address of connections over TCP. Default: the system chooses.
	From net.Addr
}

// Dial returns a client for the target and the base URL to call. It opens no connection. The client has no
// overall timeout, since streams outlive any: bound each call by its context. Close idle connections with
// client.CloseIdleConnections.
func Dial(config DialConfig) (*http.Client, string, error) {
	if list := strings.Split(config.Target, ","); len(list) > 1 {
		return dialSeveral(config, list)
	}
	target, err := url.Parse(config.Target)
	if err != nil {
		return nil, "", fmt.Errorf("target %q: %w", config.Target, err)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	dial, connect, base := dialer.DialContext, (*http.Protocols).SetUnencryptedHTTP2, ""
	var trust *tls.Config
	switch target.Scheme {
	case "unix":
		path := target.Path
		if target.Host != "" || !filepath.IsAbs(path) {
			return nil, "", fmt.Errorf("target %q: a unix target is unix:// and an absolute path, as in unix:///run/zhiyun/l5.sock", config.Target)
		}
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		base = "http://localhost"
	case "http":
		if !loopback(target.Hostname()) {
			return nil, "", fmt.Errorf("target %q: plain http is for loopback addresses only; use https", config.Target)
		}
		dialer.LocalAddr = config.From
		base = "http://" + target.Host
	case "https":
		dialer.LocalAddr = config.From
		connect = (*http.Protocols).SetHTTP2
		trust = certs.ForHost(config.TLS, target.Hostname())
		base = "https://" + target.Host
	default:
		return nil, "", fmt.Errorf("target %q: want unix:///path, http://127.0.0.1:port or https://host:port", config.Target)
	}
	if target.Scheme != "unix" && (target.Host == "" || strings.Trim(target.Path, "/") != "" || target.User != nil) {
		return nil, "", fmt.Errorf("target %q: want scheme, host and port alone", config.Target)
	}
	over := func(protocol func(*http.Protocols, bool)) *http.Transport {
		protocols := new(http.Protocols)
		protocol(protocols, true)
		return &http.Transport{
			DialContext:         dial,
			Protocols:           protocols,
			TLSClientConfig:     trust.Clone(),
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     90 * time.Second,
			TLSHandshakeTimeout: 5 * time.Second,
			HTTP2: &http.HTTP2Config{
				SendPingTimeout:      PingAfter,
				PingTimeout:          PingTimeout,
				MaxReadFrameSize:     1 << 20,
				MaxConcurrentStreams: MaxStreams,
			},
		}
	}
	two := over(connect)
	var transport roundTripper = two
	if len(config.Direct) > 0 {
		one := over((*http.Protocols).SetHTTP1)
		one.ResponseHeaderTimeout = PingAfter + PingTimeout
		transport = &directly{Transport: two, single: one, paths: config.Direct, every: PingAfter}
	}
	if config.Token != "" {
		transport = &bearer{roundTripper: transport, token: config.Token}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, base, nil
}

// roundTripper is what http.Client makes use of.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// bearer adds the token to each request.
type bearer struct {
	roundTripper
	token string

	mu   sync.Mutex
	read string      // guarded by mu; what the file held when it was read last
	seen os.FileInfo // guarded by mu; the file as it was then
}

func (b *bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	token, err := b.current()
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+token)
	return b.roundTripper.RoundTrip(request)
}

// current is the token to send now.
func (b *bearer) current() (string, error) {
	path, file := strings.CutPrefix(b.token, "@")
	if !file {
		return b.token, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen != nil && os.SameFile(b.seen, info) && b.seen.ModTime().Equal(info.ModTime()) && b.seen.Size() == info.Size() {
		return b.read, nil
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token file %s has mode %o: others can read it; chmod 600 it", path, info.Mode().Perm())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	b.read, b.seen = strings.TrimSpace(string(content)), info
	return b.read, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// Server serves one handler on any number of listeners, HTTP/1.1 and HTTP/2 with and without TLS.
type Server struct {
	http   *http.Server
	direct *direct
}

// NewServer returns a server for handler. A TLS listener is made by the caller with tls.NewListener and "h2"
// among the config's NextProtos.
func NewServer(handler http.Handler) *Server {
	return newServer(handler, BodyTimeout, PingAfter+PingTimeout)
}

func newServer(handler http.Handler, body, silence time.Duration) *Server {
	direct := newDirect(timely(handler, body), silence)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &Server{direct: direct, http: &http.Server{
		Handler:           direct,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:      PingAfter,
			PingTimeout:          PingTimeout,
			MaxReadFrameSize:     1 << 20,
			MaxConcurrentStreams: MaxStreams,
		},
	}}
}

type connKey struct{}

// Conn returns the connection on which a request of a Server arrived, or nil.
func Conn(ctx context.Context) net.Conn {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	return conn
}

// Serve serves the listener until ctx ends, then gives calls in flight the grace period and closes what is left.
func (s *Server) Serve(ctx context.Context, listener net.Listener, grace time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if s.http.Shutdown(stop) != nil {
		s.http.Close()
	}
	s.direct.drain(stop)
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
