package auth_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
)

// book is a Verifier that knows what it was told.
type book struct {
	mu  *sync.Mutex
	ids map[string]auth.Identity // guarded by mu
}

func newBook() book { return book{new(sync.Mutex), make(map[string]auth.Identity)} }

func (b book) burn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.ids)
}

func (b book) issue(role auth.Role, name string) string {
	token := auth.NewToken()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids[token.ID] = auth.Identity{Role: role, Name: name, Via: "token " + token.ID, Credential: token.ID}
	return token.String()
}

func (b book) Token(token auth.Token) (auth.Identity, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id, ok := b.ids[token.ID]; ok {
		return id, nil
	}
	return auth.Identity{}, auth.ErrToken
}

func (b book) Certificate(*x509.Certificate) (auth.Identity, bool, error) {
	return auth.Identity{}, false, nil
}

func TestTokensAreReadBack(t *testing.T) {
	t.Parallel()
	token := auth.NewToken()
	for _, pin := range []string{"", strings.Repeat("0a", 32)} {
		token.Pin = pin
		got, err := auth.ParseToken(token.String() + "\n")
		if err != nil || got != token {
			t.Errorf("ParseToken = %v, %v", got, err)
		}
	}
	if !token.Matches(token.Hash()) || token.Matches(auth.NewToken().Hash()) {
		t.Error("a token matches another's hash, or not its own")
	}
	token.Pin = ""
	text := token.String()
	for name, bad := range map[string]string{
		"empty": "", "another form": strings.Replace(text, "zy2", "zy3", 1), "one letter lost": text[:len(text)-1],
		"one letter changed": flip(text), "no secret": "zy2." + token.ID + ".", "an empty pin": text + ".",
		"a short pin": text + ".abcd", "more": text + "." + strings.Repeat("0a", 32) + ".x",
	} {
		if _, err := auth.ParseToken(bad); !errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: %v, want ErrToken", name, err)
		} else if strings.Contains(err.Error(), token.Secret[:8]) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
	if _, err := auth.ParseToken("zy1:operator:admin:00"); !errors.Is(err, auth.ErrOldToken) {
		t.Errorf("a token of the first version: %v", err)
	}
}

// flip changes a letter in the middle of the secret.
func flip(text string) string {
	at := len(text) - 20
	if text[at] == 'A' {
		return text[:at] + "B" + text[at+1:]
	}
	return text[:at] + "A" + text[at+1:]
}

func FuzzParseToken(f *testing.F) {
	f.Add(auth.NewToken().String())
	f.Add("zy2..")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := auth.ParseToken(text); err == nil && token.String() != strings.TrimSpace(text) {
			t.Errorf("%q was read as %q", text, token)
		}
	})
}

func TestTokenFileOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := auth.WriteSecret(path, []byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if token, err := auth.ReadToken(path); err != nil || token != "x" {
		t.Fatalf("ReadToken = %q, %v", token, err)
	}
	os.Chmod(path, 0o640)
	if _, err := auth.ReadToken(path); err == nil {
		t.Error("a token file of mode 640 was accepted")
	}
}

func TestWhoMayActAsWhom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		role   auth.Role
		name   string
		actor  string
		denied bool
	}{
		{auth.Operator, "admin", "admin", false},
		{auth.Operator, "admin", "operator:li", false},
		{auth.Operator, "admin", "li", false},
		{auth.Operator, "local", "demo", false},
		{auth.Operator, "admin", "scale", true},
		{auth.Operator, "admin", "Scale", true},
		{auth.Operator, "scale", "scale", true},
		{auth.Operator, "admin", "gray:x", true},
		{auth.Operator, "admin", "agent:d1", true},
		{auth.Operator, "admin", "tool:flow", true},
		{auth.Tool, "flow", "scale", false},
		{auth.Tool, "flow", "operator:li", false},
		{auth.Agent, "d1", "agent:d1", false},
		{auth.Agent, "d1", "d1", false},
		{auth.Agent, "d1", "scale", true},
		{auth.Agent, "scale", "scale", true},
		{auth.Agent, "d1", "agent:d2", true},
		{auth.Agent, "d1", "operator:li", true},
		{auth.Metrics, "m", "li", true},
		{auth.Viewer, "v", "li", true},
		{auth.Enrol, "d1", "li", true},
	} {
		err := auth.MayClaim(auth.Identity{Role: tc.role, Name: tc.name}, tc.actor)
		if errors.Is(err, auth.ErrDenied) != tc.denied {
			t.Errorf("%s:%s as %q: %v", tc.role, tc.name, tc.actor, err)
		}
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
	k := newBook()
	operator, agent := k.issue(auth.Operator, "admin"), k.issue(auth.Agent, "d-01")
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
				Verifier: k, Hosts: []string{"ops.example"}, Open: []string{"/healthz"},
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

// Who cannot prove itself is soon told no more than that; who can is not held up by it.
func TestFailuresAreLimited(t *testing.T) {
	t.Parallel()
	k := newBook()
	good := k.issue(auth.Operator, "admin")
	now := time.Unix(1000, 0)
	refused := map[string]int{}
	guard := &auth.Guard{
		Verifier: k, Allow: func(auth.Identity, *http.Request) error { return nil }, Conn: func(context.Context) net.Conn { return conn{network: "tcp"} },
		OnRefuse: func(name string) { refused[name]++ }, Now: func() time.Time { return now },
	}
	handler := guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	call := func(token, remote string) int {
		request := httptest.NewRequest("POST", "http://127.0.0.1/x", nil)
		request.RemoteAddr = remote
		request.Header.Set("Authorization", "Bearer "+token)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder.Code
	}
	counts := map[int]int{}
	for range 100 {
		counts[call(auth.NewToken().String(), "10.0.0.9:1")]++
	}
	if counts[401] != 20 || counts[429] != 80 || refused["token"] != 20 || refused["rate"] != 80 {
		t.Errorf("answers %v, refusals %v; want 20 of 401 and 80 of 429", counts, refused)
	}
	if got := call(good, "10.0.0.9:2"); got != 200 {
		t.Errorf("a good token of the same host: %d", got)
	}
	if got := call(auth.NewToken().String(), "10.0.0.8:1"); got != 401 {
		t.Errorf("another host: %d", got)
	}
	now = now.Add(time.Second)
	if got := call(auth.NewToken().String(), "10.0.0.9:1"); got != 401 {
		t.Errorf("a second later: %d", got)
	}
}

// A stream ends when its credential does.
func TestAStreamEndsWithItsCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newBook()
		token := k.issue(auth.Agent, "d-01")
		guard := &auth.Guard{Verifier: k, Allow: func(auth.Identity, *http.Request) error { return nil }, Conn: func(context.Context) net.Conn { return conn{network: "tcp"} }}
		began := time.Now()
		handler := guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		time.AfterFunc(40*time.Second, k.burn)
		request := httptest.NewRequest("POST", "http://127.0.0.1/x", nil)
		request.Header.Set("Authorization", "Bearer "+token)
		handler.ServeHTTP(httptest.NewRecorder(), request)
		if took := time.Since(began); took != 45*time.Second {
			t.Errorf("the stream ended after %v, want 45s: revoked at 40 s, looked at each 15 s", took)
		}
	})
}
