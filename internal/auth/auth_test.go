package auth_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
)

func keys(t *testing.T) *auth.Keys {
	t.Helper()
	k, err := auth.Open(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTokenNamesItsOwner(t *testing.T) {
	t.Parallel()
	k := keys(t)
	want := auth.Identity{Role: auth.Agent, Name: "d-01"}
	token, err := k.Token(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Verify(token)
	if err != nil || got != want {
		t.Fatalf("Verify = %v, %v; want %v", got, err, want)
	}
	for name, bad := range map[string]string{
		"empty":          "",
		"other server":   strings.Replace(token, token[len(token)-4:], "0000", 1),
		"other device":   strings.Replace(token, "d-01", "d-02", 1),
		"other role":     strings.Replace(token, "agent", "operator", 1),
		"other version":  strings.Replace(token, "zy1", "zy2", 1),
		"too many parts": token + ":x",
	} {
		if _, err := k.Verify(bad); !errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: Verify = %v, want ErrToken", name, err)
		}
	}
	for _, id := range []auth.Identity{{Role: auth.Agent, Name: "a:b"}, {Role: auth.Agent}, {Role: "root", Name: "x"}} {
		if _, err := k.Token(id); err == nil {
			t.Errorf("Token(%v) was issued", id)
		}
	}
}

func TestKeyFileIsPrivateAndStable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "key")
	first, err := auth.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	token, _ := first.Token(auth.Identity{Role: auth.Operator, Name: "admin"})
	second, err := auth.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Verify(token); err != nil {
		t.Errorf("a token is void after a restart: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.Open(path); err == nil {
		t.Error("a key file that others can read was accepted")
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o600)
	if _, err := auth.Open(path); err == nil {
		t.Error("a truncated key file was accepted")
	}
}

func TestTokenFileOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := keys(t).WriteToken(path, auth.Identity{Role: auth.Operator, Name: "admin"}); err != nil {
		t.Fatal(err)
	}
	if token, err := auth.ReadToken(path); err != nil || token == "" {
		t.Fatalf("ReadToken = %q, %v", token, err)
	}
	os.Chmod(path, 0o640)
	if _, err := auth.ReadToken(path); err == nil {
		t.Error("a token file of mode 640 was accepted")
	}
}

type conn struct {
	net.Conn
	network string
}

func (c conn) LocalAddr() net.Addr { return c }
func (c conn) Network() string     { return c.network }
func (c conn) String() string      { return "10.0.0.5:7070" }

func TestGuard(t *testing.T) {
	t.Parallel()
	k := keys(t)
	operator, _ := k.Token(auth.Identity{Role: auth.Operator, Name: "admin"})
	agent, _ := k.Token(auth.Identity{Role: auth.Agent, Name: "d-01"})
	for name, tc := range map[string]struct {
		network, host, origin, token, path string
		want                               int
		who                                string
	}{
		"socket needs no token":     {"unix", "localhost", "", "", "/x", 200, "operator:local"},
		"loopback needs one":        {"tcp", "127.0.0.1:1", "", "", "/x", 401, ""},
		"operator":                  {"tcp", "127.0.0.1:1", "", operator, "/x", 200, "operator:admin"},
		"agent where it may":        {"tcp", "127.0.0.1:1", "", agent, "/x", 200, "agent:d-01"},
		"agent where it may not":    {"tcp", "127.0.0.1:1", "", agent, "/admin", 403, ""},
		"rebound name":              {"tcp", "evil.example:1", "", operator, "/x", 421, ""},
		"given name":                {"tcp", "ops.example:1", "", operator, "/x", 200, "operator:admin"},
		"another page":              {"tcp", "127.0.0.1:1", "http://evil.example", operator, "/x", 403, ""},
		"our own page":              {"tcp", "127.0.0.1:1", "http://127.0.0.1:1", operator, "/x", 200, "operator:admin"},
		"health is open":            {"tcp", "127.0.0.1:1", "", "", "/healthz", 200, ""},
		"health for a rebound name": {"tcp", "evil.example", "", "", "/healthz", 421, ""},
		"token on a socket counts":  {"unix", "localhost", "", agent, "/admin", 403, ""},
		"the listener's address":    {"tcp", "10.0.0.5:7070", "", operator, "/x", 200, "operator:admin"},
		"another address":           {"tcp", "10.0.0.6:7070", "", operator, "/x", 421, ""},
		"IPv6 loopback":             {"tcp", "[::1]:80", "", operator, "/x", 200, "operator:admin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guard := &auth.Guard{
				Keys: k, Hosts: []string{"ops.example"}, Open: []string{"/healthz"},
				Conn: func(context.Context) net.Conn { return conn{network: tc.network} },
				Allow: func(id auth.Identity, r *http.Request) error {
					if id.Role == auth.Agent && r.URL.Path == "/admin" {
						return auth.ErrDenied
					}
					return nil
				},
			}
			handler := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if id, ok := auth.From(r.Context()); ok {
					w.Write([]byte(id.String()))
				}
			}))
			request := httptest.NewRequest("POST", "http://"+tc.host+tc.path, nil)
			if tc.origin != "" {
				request.Header.Set("Origin", tc.origin)
			}
			if tc.token != "" {
				request.Header.Set("Authorization", "Bearer "+tc.token)
			}
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			if recorder.Code != tc.want || (tc.who != "" && recorder.Body.String() != tc.who) {
				t.Errorf("got %d %q, want %d %q", recorder.Code, recorder.Body, tc.want, tc.who)
			}
		})
	}
}
