package agent_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// A label says how an instance is probed; what cannot be reached, does not serve or does not answer in time is down.
func TestProbe(t *testing.T) {
	t.Parallel()
	state := health.NewServer()
	state.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	state.SetServingStatus("stock", healthpb.HealthCheckResponse_NOT_SERVING)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, state)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { <-served }()
	defer server.Stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://nowhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("GET /hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(mux)
	defer s.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	gone := addrtest.Free(t)
	p := agent.NewProber()
	addr, grpcAddr := s.Listener.Addr().String(), listener.Addr().String()
	probe := func(addr, label string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if label == "http:/hangs" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		}
		defer cancel()
		return p.Probe(ctx, addr, map[string]string{agent.ProbeLabel: label})
	}
	for _, test := range []struct {
		addr, label string
		ok          bool
	}{
		{addr, "", true}, {addr, "tcp", true}, {gone, "", false}, {addr, "of the future", true},
		{addr, "http:/healthz", true}, {addr, "http:healthz", true}, {addr, "http", true}, {addr, "http:/login", true},
		{addr, "http:/broken", false}, {addr, "http:/hangs", false}, {gone, "http", false},
		{secure.Listener.Addr().String(), "https:/healthz", true}, {secure.Listener.Addr().String(), "https:/broken", false},
		{grpcAddr, "grpc", true}, {grpcAddr, "grpc:shop", true}, {grpcAddr, "grpc:stock", false}, {grpcAddr, "grpc:unknown", false},
		{gone, "grpc", false}, {addr, "grpc", false},
	} {
		if err := probe(test.addr, test.label); (err == nil) != test.ok {
			t.Errorf("probe %q: %v, want ok %t", test.label, err, test.ok)
		}
	}
	state.Shutdown()
	if err := probe(grpcAddr, "grpc"); err == nil {
		t.Error("a server that is going away passes")
	}
}

// Who registers an instance writes its address and its label: agents are not sent by them to where no instance is.
func TestProbesGoToInstancesAlone(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host + " " + r.URL.String()
		w.Header().Set("Content-Length", "1000000000")
		w.WriteHeader(http.StatusOK)
	}))
	defer s.Close()
	own := s.Listener.Addr().String()
	p := agent.NewProber()
	probe := func(addr, label string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return p.Probe(ctx, addr, map[string]string{agent.ProbeLabel: label})
	}
	for _, addr := range []string{
		"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "[fd00:ec2::254]:80", "100.100.100.200:80",
	} {
		for _, label := range []string{"", "http:/latest/meta-data", "https", "grpc"} {
			if err := probe(addr, label); err == nil || label != "grpc" && !errors.Is(err, agent.ErrProbe) || !strings.Contains(err.Error(), "no service is at") {
				t.Errorf("probe of %s by %q: %v", addr, label, err)
			}
		}
	}
	if err := probe(own, "http:/"+strings.Repeat("x", 2000)); !errors.Is(err, agent.ErrProbe) {
		t.Errorf("a long path: %v", err)
	}
	for label, want := range map[string]string{
		"http://evil.example/steal":  "GET " + own + " /evil.example/steal",
		"http:@evil.example/steal":   "GET " + own + " /@evil.example/steal",
		"http:/healthz?deep=1#there": "GET " + own + " /healthz?deep=1",
		"http:/a b":                  "GET " + own + " /a%20b",
	} {
		if err := probe(own, label); err != nil {
			t.Errorf("probe by %q: %v", label, err)
			continue
		}
		if got := <-asked; got != want {
			t.Errorf("probe by %q asked %q, want %q", label, got, want)
		}
	}
	if err := probe("evil@"+own, "http:/"); err == nil {
		t.Error("an address with a user was probed")
	}
}
