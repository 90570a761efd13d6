// Package auth tells who calls: an operator, a tool of a flow, or the agent of one device. Tokens are
// HMACs under a key that only the server has, so that none needs to be stored; a unix socket of mode 0600
// speaks for its owner. Loopback is not trust: any local user or web page could reach it.
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Role says what a caller may do.
type Role string

const (
	Operator Role = "operator" // everything
	Tool     Role = "tool"     // everything, on behalf of a flow
	Agent    Role = "agent"    // what the agent of one device needs, for that device
	Metrics  Role = "metrics"  // reading metrics, and nothing else
)

// Identity is a caller that has proved who it is.
type Identity struct {
	Role Role
	Name string // of the operator, the flow or the device
}

// String is the form in which an identity stands in the audit log.
func (i Identity) String() string { return string(i.Role) + ":" + i.Name }

var (
	// ErrToken says that a token is missing, malformed or not of this server.
	ErrToken = errors.New("auth: no valid token; pass the content of the server's token file as a bearer token")
	// ErrDenied says that the caller is known and may not do this.
	ErrDenied = errors.New("auth: not allowed for this caller")
)

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// Keys issues and verifies tokens. It is safe for concurrent use.
type Keys struct {
	secret []byte
}

// Open reads the key file, or makes it with mode 0600 if it does not exist.
func Open(path string) (*Keys, error) {
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret = make([]byte, 32)
		rand.Read(secret)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("auth: make the folder of the key: %w", err)
		}
		if err := writeOnce(path, secret); err != nil {
			return nil, fmt.Errorf("auth: write the key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("auth: read the key: %w", err)
	}
	if len(secret) != 32 {
		return nil, fmt.Errorf("auth: key file %s has %d bytes, want 32; restore it, or remove it to void all tokens", path, len(secret))
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("auth: key file %s has mode %o: others can read it; chmod 600 it, and remove it first if they did", path, info.Mode().Perm())
	}
	return &Keys{secret}, nil
}

// writeOnce writes a private file and syncs it, so that a crash leaves the whole file or none.
func writeOnce(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// Token returns the token of an identity: the same one each time.
func (k *Keys) Token(id Identity) (string, error) {
	if !nameRE.MatchString(id.Name) {
		return "", fmt.Errorf("auth: name %q: want letters, digits and _.- only, 128 at most", id.Name)
	}
	switch id.Role {
	case Operator, Tool, Agent, Metrics:
		return fmt.Sprintf("zy1:%s:%s:%s", id.Role, id.Name, k.mac(id)), nil
	}
	return "", fmt.Errorf("auth: role %q: want operator, tool, agent or metrics", id.Role)
}

func (k *Keys) mac(id Identity) string {
	mac := hmac.New(sha256.New, k.secret)
	fmt.Fprintf(mac, "zy1\x00%s\x00%s", id.Role, id.Name)
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify returns whose token it is.
func (k *Keys) Verify(token string) (Identity, error) {
	parts := strings.Split(token, ":")
	if len(parts) != 4 || parts[0] != "zy1" {
		return Identity{}, ErrToken
	}
	id := Identity{Role(parts[1]), parts[2]}
	if !hmac.Equal([]byte(k.mac(id)), []byte(parts[3])) {
		return Identity{}, ErrToken
	}
	return id, nil
}

// WriteToken writes the identity's token to a file of mode 0600.
func (k *Keys) WriteToken(path string, id Identity) error {
	token, err := k.Token(id)
	if err != nil {
		return err
	}
	return writeOnce(path, []byte(token+"\n"))
}

// ReadToken reads a token file; it refuses one that others can read. An empty path is no token.
func ReadToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("auth: token file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("auth: token file %s has mode %o: others can read it; chmod 600 it", path, info.Mode().Perm())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("auth: token file: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

type identityKey struct{}

// With returns a context that carries the identity.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// From returns the identity of the caller; false where none was proved.
func From(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// Guard lets identified callers through to next. Requests over a unix socket are from its owner. Over TCP a
// bearer token is wanted, the Host must be an address of a listener or one of hosts, and an Origin, which
// browsers send, must be that same host. Paths in open (as /healthz) need no token. allow decides whether
// the identity may make the request; nil allows all.
type Guard struct {
	Keys  *Keys
	Hosts []string // host names, without port, by which clients may call; loopback names are always good
	Open  []string
	Allow func(Identity, *http.Request) error
	// Conn returns the connection of a request.
	Conn func(context.Context) net.Conn
}

// Handler wraps next.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := g.Conn(r.Context())
		if conn != nil && conn.LocalAddr().Network() == "unix" && r.Header.Get("Authorization") == "" {
			next.ServeHTTP(w, r.WithContext(With(r.Context(), Identity{Operator, "local"})))
			return
		}
		if !g.knownHost(r.Host, conn) {
			http.Error(w, fmt.Sprintf("host %q is not a name of this server; add it with --host", r.Host), http.StatusMisdirectedRequest)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
				http.Error(w, fmt.Sprintf("origin %q may not call this server", origin), http.StatusForbidden)
				return
			}
		}
		for _, path := range g.Open {
			if r.URL.Path == path {
				next.ServeHTTP(w, r)
				return
			}
		}
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		id, err := g.Keys.Verify(token)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="zhiyun"`)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		if g.Allow != nil {
			if err := g.Allow(id, r); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(With(r.Context(), id)))
	})
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
