package agent_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// A label says how an instance is probed; what cannot be reached, does not serve or does not answer in time is down.
func TestProbe(t *testing.T) {
	t.Parallel()
	var health atomic.Int32 // grpc.health.v1 ServingStatus
	health.Store(1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://nowhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("GET /hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.Handle("/grpc.health.v1.Health/Check", connect.NewUnaryHandler("/grpc.health.v1.Health/Check",
		func(_ context.Context, request *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.Int32Value], error) {
			if request.Msg.GetValue() == "unknown" {
				return nil, connect.NewError(connect.CodeNotFound, nil)
			}
			return connect.NewResponse(wrapperspb.Int32(health.Load())), nil
		}))
	s := httptest.NewUnstartedServer(mux)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p := agent.NewProber()
	addr := s.Listener.Addr().String()
	probe := func(addr, label string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
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
		{addr, "", true}, {addr, "tcp", true}, {gone.Addr().String(), "", false}, {addr, "of the future", true},
		{addr, "http:/healthz", true}, {addr, "http:healthz", true}, {addr, "http", true}, {addr, "http:/login", true},
		{addr, "http:/broken", false}, {addr, "http:/hangs", false}, {gone.Addr().String(), "http", false},
		{secure.Listener.Addr().String(), "https:/healthz", true}, {secure.Listener.Addr().String(), "https:/broken", false},
		{addr, "grpc", true}, {addr, "grpc:shop", true}, {addr, "grpc:unknown", false}, {gone.Addr().String(), "grpc", false},
	} {
		if err := probe(test.addr, test.label); (err == nil) != test.ok {
			t.Errorf("probe %q: %v, want ok %t", test.label, err, test.ok)
		}
	}
	health.Store(2) // not serving
	if err := probe(addr, "grpc"); err == nil {
		t.Error("a server that does not serve passes")
	}
}
