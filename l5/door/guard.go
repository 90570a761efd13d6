package door

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Guard lets through who may use an HTTP door on TCP. Loopback is not trust: any web page has the browser on this
// machine send requests there. So the Host must be an address or localhost or one of hosts, an Origin must be of that Host,
// and with a token the request must bear it. On a unix socket the socket's mode decides, and nothing is asked.
func Guard(next http.Handler, token string, hosts []string) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn := transport.Conn(r.Context()); conn != nil && conn.LocalAddr().Network() == "unix" {
			next.ServeHTTP(w, r)
			return
		}
		if err := sameSite(r, hosts); err != nil {
			Fail(w, http.StatusForbidden, err)
			return
		}
		bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if got := sha256.Sum256([]byte(bearer)); token != "" && (!ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			Fail(w, http.StatusUnauthorized, errors.New("no valid token; send the content of the door's token file as a bearer token"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func sameSite(r *http.Request, hosts []string) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && host != "localhost" && !slices.Contains(hosts, host) {
		return fmt.Errorf("host %q is not one of this door's; call it by its address", host)
	}
	origin := r.Header.Get("Origin")
	if from, err := url.Parse(origin); origin != "" && (err != nil || from.Host != r.Host) {
		return fmt.Errorf("origin %q is another site", origin)
	}
	return nil
}

// Hurry gives the client ten seconds to take what is written from now on; without it a reader that stopped would hold its
// connection for ever. A writer that cannot keeps its server's limits.
func Hurry(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(10 * time.Second))
}

// Fail answers with an error as JSON: {"error": "..."}.
func Fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // a client that is gone
}
