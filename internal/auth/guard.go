package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// Guard lets identified callers through to what they may call. A request over a unix socket is from its owner, which the
// kernel vouches for. Over TCP a bearer token or a client certificate is wanted, the Host must be an address of a
// listener or one of Hosts, and an Origin, which browsers send, must be that same host. Paths in Open need no proof.
type Guard struct {
	Verifier Verifier
	Hosts    []string // host names, without port, by which clients may call; loopback names are always good
	Open     []string // paths that need no proof, as /healthz
	// Allow decides whether the identity may make the request. Required: Allowed is the project's own.
	Allow func(Identity, *http.Request) error
	// Conn returns the connection of a request.
	Conn func(context.Context) net.Conn
	// PeerUID returns the user behind a unix socket. Nil: only its owner can have opened it.
	PeerUID func(net.Conn) (uint32, error)
	// WantCertificate demands a client certificate of every caller over TCP, token or not. Enrolment alone is spared: it
	// is how a device gets its certificate.
	WantCertificate bool
	// OnRefuse is told the name of each refusal, for a metric: "host", "origin", "token", "expired", "revoked",
	// "certificate", "peer", "denied", "rate". Nil: not told.
	OnRefuse func(name string)
	// Recheck is how long a call may go on before its credential is looked at again, and again: a stream ends so soon after its
	// credential was revoked or has expired. Default 15 s.
	Recheck time.Duration
	// Now is the clock. Nil: time.Now.
	Now func() time.Time

	once     sync.Once
	failures *Limiter // by remote host
	errors   *connect.ErrorWriter
}

// A host may fail to prove itself so often at once, and then once per refill: each failure beyond that is answered 429, and
// goes into no log. Who proves itself is never limited by those who do not, so that one stale token cannot lock a device out.
const (
	failureBurst = 20
	failureEvery = time.Second
)

// refusal is why a request is not let through.
type refusal struct {
	status int
	name   string
	err    error
}

// Handler wraps next.
func (g *Guard) Handler(next http.Handler) http.Handler {
	g.once.Do(func() {
		if g.Now == nil {
			g.Now = time.Now
		}
		if g.Recheck == 0 {
			g.Recheck = 15 * time.Second
		}
		g.failures = NewLimiter(failureBurst, failureEvery, g.Now)
		g.errors = connect.NewErrorWriter()
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, open, refused := g.admit(r)
		if refused != nil {
			g.refuse(w, r, refused)
			return
		}
		if !open {
			if err := g.Allow(id, r); err != nil {
				g.refuse(w, r, &refusal{http.StatusForbidden, "denied", err})
				return
			}
			ctx, end := g.hold(With(r.Context(), id), r)
			defer end()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// hold ends the call's context when its credential is not in force any more.
func (g *Guard) hold(ctx context.Context, r *http.Request) (context.Context, func()) {
	if id, _ := From(ctx); id.Credential == "" {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var mu sync.Mutex // guards again and over
	var again *time.Timer
	over := false
	mu.Lock()
	again = time.AfterFunc(g.Recheck, func() {
		_, err := g.identify(r)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case over:
		case err != nil:
			cancel(connect.NewError(connect.CodeUnauthenticated, err))
			if r.ProtoMajor == 2 {
				r.Body.Close() // a handler that waits for its peer to say more hears nothing else
			}
		default:
			again.Reset(g.Recheck)
		}
	})
	mu.Unlock()
	return ctx, func() {
		mu.Lock()
		over = true
		again.Stop()
		mu.Unlock()
		cancel(nil)
	}
}

// admit proves who calls; open is true where nobody asks.
func (g *Guard) admit(r *http.Request) (id Identity, open bool, refused *refusal) {
	conn := g.Conn(r.Context())
	local := conn != nil && conn.LocalAddr().Network() == "unix"
	if local && r.Header.Get("Authorization") == "" {
		id, err := g.owner(conn)
		if err != nil {
			return id, false, &refusal{http.StatusForbidden, "peer", err}
		}
		return id, false, nil
	}
	if !g.knownHost(r.Host, conn) {
		return id, false, &refusal{http.StatusMisdirectedRequest, "host", fmt.Errorf("host %q is not a name of this server; add it with --host", r.Host)}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return id, false, &refusal{http.StatusForbidden, "origin", fmt.Errorf("origin %q may not call this server", origin)}
		}
	}
	for _, path := range g.Open {
		if r.URL.Path == path {
			return id, true, nil
		}
	}
	id, err := g.identify(r)
	if err == nil && g.WantCertificate && !local && id.Role != Enrol && !presented(r) {
		err = ErrCertificate
	}
	if err == nil {
		return id, false, nil
	}
	refused = &refusal{http.StatusUnauthorized, "token", err}
	switch {
	case errors.Is(err, ErrExpired):
		refused.name = "expired"
	case errors.Is(err, ErrRevoked):
		refused.name = "revoked"
	case errors.Is(err, ErrCertificate):
		refused.name = "certificate"
	}
	return id, false, refused
}

// owner is who calls over a unix socket: the user that this process runs as, or root.
func (g *Guard) owner(conn net.Conn) (Identity, error) {
	id := Identity{Role: Operator, Name: "local", Via: fmt.Sprintf("uid %d", os.Getuid())}
	if g.PeerUID == nil {
		return id, nil
	}
	uid, err := g.PeerUID(conn)
	if err != nil {
		return id, fmt.Errorf("who is at the other end of the socket? %w", err)
	}
	if uid != 0 && int(uid) != os.Getuid() {
		return id, fmt.Errorf("%w: the socket belongs to user %d, and user %d calls", ErrDenied, os.Getuid(), uid)
	}
	id.Via = fmt.Sprintf("uid %d", uid)
	return id, nil
}

// identify takes the token if there is one, and else the certificate.
func (g *Guard) identify(r *http.Request) (Identity, error) {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		token, err := ParseToken(bearer)
		if err != nil {
			return Identity{}, err
		}
		return g.Verifier.Token(token)
	}
	if presented(r) {
		id, known, err := g.Verifier.Certificate(r.TLS.PeerCertificates[0])
		if err != nil || known {
			return id, err
		}
	}
	return Identity{}, ErrToken
}

// presented says whether the connection brought a certificate that a CA of this server has signed.
func presented(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }

func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	if why.status == http.StatusUnauthorized {
		host, _, _ := net.SplitHostPort(r.RemoteAddr) // a socket has no remote address: all its peers share one bucket
		if !g.failures.Take(host) {
			why = &refusal{http.StatusTooManyRequests, "rate", errors.New("too many calls that prove nothing; mend the credential, and wait a second")}
			w.Header().Set("Retry-After", "1")
		} else {
			w.Header().Set("WWW-Authenticate", `Bearer realm="zhiyun"`)
		}
	}
	if g.OnRefuse != nil {
		g.OnRefuse(why.name)
	}
	if presented(r) {
		// The connection is bound to its certificate: who has another by now must connect again.
		w.Header().Set("Connection", "close")
	}
	code, ok := codes[why.status]
	if !ok || !g.errors.IsSupported(r) {
		http.Error(w, why.err.Error(), why.status)
		return
	}
	fault := connect.NewError(code, why.err)
	fault.Meta().Set("Zhiyun-Error", "caller."+why.name)
	g.errors.Write(w, r, fault) // who went away need not be told
}

// codes are what clients of the project's APIs are told in place of an HTTP status: those keep the words.
var codes = map[int]connect.Code{
	http.StatusUnauthorized:    connect.CodeUnauthenticated,
	http.StatusForbidden:       connect.CodePermissionDenied,
	http.StatusTooManyRequests: connect.CodeResourceExhausted,
}

func (g *Guard) knownHost(hostport string, conn net.Conn) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && (addr.IsLoopback() || isLocal(addr, conn)) {
		return true
	}
	if host == "localhost" {
		return true
	}
	for _, known := range g.Hosts {
		if strings.EqualFold(host, known) {
			return true
		}
	}
	return false
}

// isLocal says whether addr is the one that the connection was made to. A page that was rebound to it calls it by a name.
func isLocal(addr netip.Addr, conn net.Conn) bool {
	if conn == nil {
		return false
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return err == nil && local.Addr().Unmap().WithZone("") == addr.Unmap().WithZone("")
}
