package xds

import (
	"bytes"
	"slices"
	"strconv"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// session is one stream: what was asked for, what was sent and what was acknowledged. It is pure, and for one goroutine.
//
// Each type of resource goes through, on its own:
//
//	           request of names                 response
//	unasked --------------------> up to date -----------> waiting for ACK or NACK
//	                                  ^                         |
//	                                  +-------------------------+ and what changed meanwhile is sent then
type session struct {
	all   []string // services of those who ask for all
	most  int      // services
	types map[string]*asked
	known map[string]known // by service
}

// known is what was looked up.
type known struct {
	denied    bool
	endpoints *anypb.Any // nil while denied
}

// asked is one type of resource.
type asked struct {
	url      string
	names    []string // in order
	named    bool     // names were given once: none means none from then on
	sent     map[string]*anypb.Any
	version  int
	nonce    string
	waiting  bool
	response bool // one is owed although nothing is to be told: of the state of the world, that something is not in it is told
}

// rejected is a NACK.
type rejected struct{ Type, Version, Reason string }

func newSession(all []string, most int) *session {
	return &session{all: all, most: most, types: make(map[string]*asked), known: make(map[string]known)}
}

// request takes a message of the client and returns what to answer.
func (s *session) request(r *discoverypb.DiscoveryRequest) (*discoverypb.DiscoveryResponse, *rejected, error) {
	url := r.GetTypeUrl()
	switch url {
	case listenerType, routeType, clusterType, endpointType:
	default:
		return nil, nil, nil // a type of the future
	}
	a := s.types[url]
	if a == nil {
		a = &asked{url: url, sent: make(map[string]*anypb.Any)}
		s.types[url] = a
	} else if r.GetResponseNonce() != a.nonce {
		return nil, nil, nil // the client has not seen the last response yet: it will ask again
	}
	var nack *rejected
	if a.waiting {
		a.waiting = false
		if detail := r.GetErrorDetail(); detail != nil {
			nack = &rejected{Type: url, Version: strconv.Itoa(a.version), Reason: detail.GetMessage()}
		}
	}
	s.subscribe(a, r.GetResourceNames())
	response, err := s.respond(a)
	return response, nack, err
}

// subscribe sets the names that a is asked for.
func (s *session) subscribe(a *asked, names []string) {
	a.named = a.named || len(names) > 0
	if !a.named && (a.url == listenerType || a.url == clusterType) {
		names = s.all
	}
	next := make([]string, 0, len(names))
	for _, name := range names {
		if l5.CheckService(name) == nil { // others do not exist
			next = append(next, name)
		}
	}
	slices.Sort(next)
	next = slices.Compact(next)
	if len(next) > s.most {
		next = next[:s.most]
	}
	if !slices.Equal(next, a.names) || a.nonce == "" {
		a.response = a.url == listenerType || a.url == clusterType
	}
	a.names = next
	for name := range a.sent {
		if _, wanted := slices.BinarySearch(next, name); !wanted {
			delete(a.sent, name)
		}
	}
}

// services returns those to look up: in order, each once.
func (s *session) services() []string {
	var out []string
	for _, a := range s.types {
		out = append(out, a.names...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// learn takes what was looked up, and returns what to send.
func (s *session) learn(service string, k known) ([]*discoverypb.DiscoveryResponse, error) {
	s.known[service] = k
	var out []*discoverypb.DiscoveryResponse
	for _, url := range []string{clusterType, endpointType, listenerType, routeType} { // what is pointed to comes first
		if a := s.types[url]; a != nil {
			response, err := s.respond(a)
			if err != nil {
				return nil, err
			}
			if response != nil {
				out = append(out, response)
			}
		}
	}
	return out, nil
}

// forget drops what is known of services that nobody asks for.
func (s *session) forget(service string) { delete(s.known, service) }

// respond returns a response if there is something to tell and none is on its way: of listeners and clusters all, since
// the absent ones do not exist; of the others what changed.
func (s *session) respond(a *asked) (*discoverypb.DiscoveryResponse, error) {
	if a.waiting {
		return nil, nil
	}
	whole := a.url == listenerType || a.url == clusterType
	now := make(map[string]*anypb.Any, len(a.names))
	changed := a.response
	for _, name := range a.names {
		resource, err := s.resource(a.url, name)
		if err != nil {
			return nil, err
		}
		before := a.sent[name]
		if resource == nil {
			changed = changed || whole && before != nil
			continue
		}
		if before == nil || !bytes.Equal(before.Value, resource.Value) {
			changed = true
		} else if !whole {
			continue
		}
		now[name] = resource
	}
	if !changed {
		return nil, nil
	}
	a.version++
	a.nonce, a.waiting, a.response = strconv.Itoa(a.version), true, false
	response := &discoverypb.DiscoveryResponse{TypeUrl: a.url, VersionInfo: strconv.Itoa(a.version), Nonce: a.nonce}
	for _, name := range a.names {
		if resource := now[name]; resource != nil {
			response.Resources = append(response.Resources, resource)
			a.sent[name] = resource
		} else if whole {
			delete(a.sent, name)
		}
	}
	return response, nil
}

// resource returns one resource; nil if it does not exist, or is not known yet.
func (s *session) resource(url, service string) (*anypb.Any, error) {
	k, ok := s.known[service]
	switch {
	case url == endpointType:
		return k.endpoints, nil
	case ok && k.denied:
		return nil, nil
	}
	return static(url, service)
}
