package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// state is a service with one instance at that port.
func state(t rapid.TB, service string, port int) known {
	view := agent.View{Service: service, Members: []agent.Member{{Instance: l5.Instance{Addr: fmt.Sprintf("10.0.0.1:%d", port)}, Weight: 1}}}
	packed, err := endpoints(view, "site")
	if err != nil {
		t.Fatal(err)
	}
	return known{endpoints: packed}
}

// show is a response in one line.
func show(r *discoverypb.DiscoveryResponse) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%s v%s: %d", r.GetTypeUrl()[strings.LastIndexByte(r.GetTypeUrl(), '.')+1:], r.GetVersionInfo(), len(r.GetResources()))
}

func TestSession(t *testing.T) {
	t.Parallel()
	s := newSession([]string{"shop.cart", "shop.pay"}, 3)
	ask := func(url, nonce string, names ...string) string {
		t.Helper()
		r, nack, err := s.request(&discoverypb.DiscoveryRequest{TypeUrl: url, ResponseNonce: nonce, ResourceNames: names})
		if err != nil || nack != nil {
			t.Fatal(err, nack)
		}
		return show(r)
	}
	learn := func(service string, k known) string {
		t.Helper()
		all, err := s.learn(service, k)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range all {
			out = append(out, show(r))
		}
		return strings.Join(out, ", ")
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("a type of the future", ask("type.googleapis.com/envoy.Novel", ""), "-")
	check("a listener is there before anything is known", ask(listenerType, "", "shop.cart"), "Listener v1: 1")
	check("endpoints wait for it", ask(endpointType, "", "shop.cart"), "-")
	check("they come", learn("shop.cart", state(t, "shop.cart", 1)), "ClusterLoadAssignment v1: 1")
	check("the ACK", ask(listenerType, "1", "shop.cart"), "-")
	check("a change while one is on its way", learn("shop.cart", state(t, "shop.cart", 2)), "")
	check("a request that crossed the response", ask(endpointType, "", "shop.cart"), "-")
	check("the ACK frees the change", ask(endpointType, "1", "shop.cart"), "ClusterLoadAssignment v2: 1")
	r, nack, err := s.request(&discoverypb.DiscoveryRequest{TypeUrl: endpointType, ResponseNonce: "2", ResourceNames: []string{"shop.cart"}, ErrorDetail: status.New(codes.InvalidArgument, "no").Proto()})
	if r != nil || err != nil || nack == nil || nack.Reason != "no" {
		t.Errorf("a NACK is answered with %v, %v, %v", r, nack, err)
	}
	check("the same state again", learn("shop.cart", state(t, "shop.cart", 2)), "")
	check("another name is sent alone", learn("shop.pay", state(t, "shop.pay", 1))+ask(endpointType, "2", "shop.cart", "shop.pay"), "ClusterLoadAssignment v3: 1")
	check("names that are none do not exist", ask(listenerType, "1", "shop.cart", "xdstp://x/y", ""), "-")
	check("all listeners are told", ask(listenerType, "1", "shop.cart", "shop.pay"), "Listener v2: 2")
	check("a grant ends", ask(listenerType, "2", "shop.cart", "shop.pay")+learn("shop.pay", known{denied: true}), "-Listener v3: 1")
	check("all clusters for who names none", ask(clusterType, ""), "Cluster v1: 1")
	check("none for who names none any more", ask(listenerType, "3"), "Listener v4: 0")
	check("the bound", ask(routeType, "", "a", "b", "c", "d"), "RouteConfiguration v1: 3")
	if got := s.services(); !slices.Equal(got, []string{"a", "b", "c", "shop.cart", "shop.pay"}) {
		t.Errorf("looked up: %v", got)
	}
}

// Whatever the order of requests, ACKs, NACKs and changes: a client that goes on acknowledging ends with the newest
// state of all that it asked for, and never has two responses of a type to acknowledge.
func TestSessionConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSession(nil, 10)
		urls := []string{listenerType, routeType, clusterType, endpointType}
		services := []string{"a", "b", "c"}
		names := map[string][]string{}
		nonce, pending := map[string]string{}, map[string]string{}
		has := map[string]map[string]*anypb.Any{}
		latest := map[string]known{}
		take := func(r *discoverypb.DiscoveryResponse) {
			if r == nil {
				return
			}
			url := r.GetTypeUrl()
			if pending[url] != "" {
				t.Fatalf("a second response of %s before the first was acknowledged", url)
			}
			pending[url] = r.GetNonce()
			if has[url] == nil || url == listenerType || url == clusterType {
				has[url] = map[string]*anypb.Any{}
			}
			for _, resource := range r.GetResources() {
				has[url][nameOf(t, resource)] = resource
			}
		}
		ask := func(url string) {
			if pending[url] != "" {
				nonce[url], pending[url] = pending[url], ""
			}
			for name := range has[url] {
				if !slices.Contains(names[url], name) {
					delete(has[url], name) // a client forgets what it does not ask for
				}
			}
			r, _, err := s.request(&discoverypb.DiscoveryRequest{TypeUrl: url, ResponseNonce: nonce[url], ResourceNames: names[url]})
			if err != nil {
				t.Fatal(err)
			}
			take(r)
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			url := rapid.SampledFrom(urls).Draw(t, "url")
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				names[url] = rapid.SliceOfDistinct(rapid.SampledFrom(services), rapid.ID).Draw(t, "names")
				ask(url)
			case 1:
				if pending[url] != "" {
					ask(url)
				}
			case 2:
				service := rapid.SampledFrom(services).Draw(t, "service")
				next := known{denied: true}
				if rapid.Bool().Draw(t, "allowed") {
					next = state(t, service, rapid.IntRange(1, 3).Draw(t, "port"))
				}
				latest[service] = next
				responses, err := s.learn(service, next)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range responses {
					take(r)
				}
			}
		}
		for again := true; again; {
			again = false
			for _, url := range urls {
				if pending[url] != "" {
					ask(url)
					again = true
				}
			}
		}
		for _, url := range urls {
			for _, name := range names[url] {
				want, err := s.resource(url, name)
				if err != nil {
					t.Fatal(err)
				}
				if got := has[url][name]; want != nil && (got == nil || string(got.Value) != string(want.Value)) {
					t.Fatalf("%s of %s is not the newest", url, name)
				}
				if want == nil && url != endpointType && url != routeType && has[url][name] != nil {
					t.Fatalf("%s of %s should be gone", url, name)
				}
			}
		}
	})
}

// nameOf is the resource's name.
func nameOf(t rapid.TB, resource *anypb.Any) string {
	message, err := resource.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	switch m := message.(type) {
	case interface{ GetName() string }:
		return m.GetName()
	case interface{ GetClusterName() string }:
		return m.GetClusterName()
	}
	t.Fatalf("a resource of type %T", message)
	return ""
}

func BenchmarkEndpoints(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		view := agent.View{Service: "shop.cart"}
		for i := range n {
			view.Members = append(view.Members, agent.Member{Instance: l5.Instance{Addr: fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)}, Weight: 100})
		}
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := endpoints(view, "site"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
