package l5http_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			io.WriteString(w, r.Host)
		case "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/absent":
			w.WriteHeader(http.StatusNotFound)
		case "/fails":
			w.WriteHeader(http.StatusBadGateway)
		case "/breaks":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		}
	}))
	defer backend.Close()
	addr := strings.TrimPrefix(backend.URL, "http://")
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: addr, Share: 100}}); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), nil)
	web := &http.Client{Transport: l5http.NewTransport(client)}
	for _, path := range []string{"/ok", "/absent", "/busy", "/fails", "/breaks"} {
		response, err := web.Get("http://shop.cart" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if (err != nil) != (path == "/breaks") {
			t.Errorf("%s: %v", path, err)
		}
		if path == "/ok" && string(body) != "shop.cart" {
			t.Errorf("the Host header was %q", body)
		}
		if response.Request.URL.Host != "shop.cart" {
			t.Errorf("the response belongs to %v", response.Request.URL)
		}
		response.Body.Close()
	}
	if i := client.Explain("shop.cart").Instances[0]; i.InFlight != 0 {
		t.Errorf("%d calls still count as in flight", i.InFlight)
	}
	l5test.Await(t, "5 calls, 2 failed, 1 rejected", func() bool {
		sum := s.Sink.Sum("shop.cart", addr)
		return sum.Requests == 5 && sum.Failures == 2 && sum.Rejected == 1
	})
	if _, err := web.Get("http://nobody/"); !errors.Is(err, l5.ErrNoInstance) {
		t.Errorf("a service without instances: %v", err)
	}
}
