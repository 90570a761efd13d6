package l5http_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// A dead instance costs no request; one that breaks connections costs only those that must not be made twice.
func TestTries(t *testing.T) {
	t.Parallel()
	var broken, fine atomic.Int64
	abort := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		broken.Add(1)
		panic(http.ErrAbortHandler)
	})
	breaks := httptest.NewServer(abort)
	defer breaks.Close()
	another := httptest.NewServer(abort)
	defer another.Close()
	works := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fine.Add(1)
		io.Copy(w, r.Body)
	}))
	defer works.Close()
	s := l5test.NewServer(t, nil)
	addr := func(server *httptest.Server) string { return strings.TrimPrefix(server.URL, "http://") }
	if err := s.Name().Register(t.Context(), []l5.Instance{
		{Service: "half.dead", Addr: "127.0.0.1:1", Share: 100}, {Service: "half.dead", Addr: addr(works), Share: 100},
		{Service: "half.broken", Addr: addr(breaks), Share: 100}, {Service: "half.broken", Addr: addr(works), Share: 100},
		{Service: "broken", Addr: addr(breaks), Share: 100}, {Service: "broken", Addr: addr(another), Share: 100},
	}); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), func(c *l5.Config) { c.Failures, c.Refused = 1000, 1000 })
	web := &http.Client{Transport: l5http.NewTransport(client)}
	send := func(method, url string, body io.Reader) error {
		request, err := http.NewRequestWithContext(t.Context(), method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := web.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if body != nil && string(got) != "hello" {
			t.Errorf("%s %s: %q came back", method, url, got)
		}
		return err
	}
	for range 20 {
		for _, err := range []error{
			send("GET", "http://half.dead/", nil),
			send("POST", "http://half.dead/", bytes.NewReader([]byte("hello"))), // nobody was reached
			send("GET", "http://half.broken/", nil),
			send("PUT", "http://half.broken/", bytes.NewReader([]byte("hello"))),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	tries := func(method string, body io.Reader) int64 {
		before := broken.Load()
		if err := send(method, "http://broken/", body); err == nil {
			t.Errorf("a %s to a service that breaks off had no error", method)
		}
		return broken.Load() - before
	}
	if n := tries("PUT", bytes.NewReader([]byte("hello"))); n < 2 {
		t.Errorf("a PUT was made %d times, want again elsewhere", n)
	}
	if n := tries("POST", bytes.NewReader([]byte("hello"))); n != 1 {
		t.Errorf("a POST was made %d times", n)
	}
	if n := tries("PUT", io.MultiReader(strings.NewReader("hello"))); n != 1 {
		t.Errorf("a body that can be read once was sent %d times", n)
	}
	for _, service := range []string{"half.dead", "half.broken", "broken"} {
		for _, i := range client.Explain(service).Instances {
			if i.InFlight != 0 {
				t.Errorf("%s has %d calls in flight", i.Addr, i.InFlight)
			}
		}
	}
	if _, err := web.Post("http://nobody/", "", strings.NewReader("x")); !errors.Is(err, l5.ErrNoInstance) {
		t.Errorf("a service without instances: %v", err)
	}
}

// HTTP/2 without TLS, and a body that streams: the call is over when the body is.
func TestStream(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto+" "+r.Host)
		http.NewResponseController(w).Flush()
		<-release
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: strings.TrimPrefix(server.URL, "http://"), Share: 100}}); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), nil)
	base := &http.Transport{Protocols: server.Config.Protocols}
	defer base.CloseIdleConnections()
	web := &http.Client{Transport: l5http.NewTransport(client, l5http.WithBase(base))}
	response, err := web.Get("http://shop.cart/")
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("HTTP/2.0 shop.cart"))
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "HTTP/2.0 shop.cart" {
		t.Errorf("%q, %v", first, err)
	}
	if got := client.Explain("shop.cart").Instances[0].InFlight; got != 1 {
		t.Errorf("%d calls in flight while the body streams, want 1", got)
	}
	close(release)
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Error(err)
	}
	if got := client.Explain("shop.cart").Instances[0].InFlight; got != 0 {
		t.Errorf("%d calls in flight after the body, want 0", got)
	}
	response.Body.Close()
}

// Beside the bare transport.
func BenchmarkRoundTrip(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer backend.Close()
	s := l5test.NewServer(b, nil)
	if err := s.Name().Register(b.Context(), []l5.Instance{{Service: "shop.cart", Addr: strings.TrimPrefix(backend.URL, "http://"), Share: 100}}); err != nil {
		b.Fatal(err)
	}
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	client := l5test.Client(b, s.Target(), nil)
	for _, way := range []struct {
		name, url string
		transport http.RoundTripper
	}{{"l5", "http://shop.cart/", l5http.NewTransport(client, l5http.WithBase(base))}, {"bare", backend.URL, base}} {
		b.Run(way.name, func(b *testing.B) {
			web := &http.Client{Transport: way.transport}
			b.ReportAllocs()
			for b.Loop() {
				response, err := web.Get(way.url)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		})
	}
}
