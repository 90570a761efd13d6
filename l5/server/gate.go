package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/zhiyun-ops/zhiyun/l5/internal/hub"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// gate decides for one peer who may call what: first whether the peer may speak for the caller at all, by Config.Identify,
// and then whether the caller has a grant. A refusal concerns one subscription, or one caller's outcomes; the peer's others
// go on.
type gate struct {
	server *Server
	ctx    context.Context // of the peer's call: it carries what the transport has proved
	header http.Header
}

var _ hub.Gate = (*gate)(nil)

// identify returns who is calling.
func (g *gate) identify(claimed string) (string, error) {
	if g.server.config.Identify == nil {
		return claimed, nil
	}
	return g.server.config.Identify(g.ctx, g.header, claimed)
}

// name puts the proved names in the place of those that are claimed. What is not proved stays as it is: Verdict refuses it.
func (g *gate) name(request *l5pb.WatchRequest) {
	for _, all := range [][]*l5pb.Subscription{request.GetSubscribe(), request.GetUnsubscribe()} {
		for _, want := range all {
			if caller, err := g.identify(want.GetCaller()); err == nil {
				want.Caller = caller
			}
		}
	}
	for _, want := range request.GetSubscribe() {
		if _, err := g.identify(want.GetCaller()); err != nil {
			g.turnAway("route", err)
		}
	}
}

// turnAway counts a refusal and logs it.
func (g *gate) turnAway(what string, err error) {
	g.server.metrics.refused.WithLabelValues(what).Inc()
	g.server.config.Logger.Warn("l5/server: refused", "what", what, "error", err)
}

// proven is the request without what the peer may not ask.
func (g *gate) proven(request *l5pb.WatchRequest) *l5pb.WatchRequest {
	if g.server.config.Identify == nil {
		return request
	}
	out := &l5pb.WatchRequest{Peer: request.GetPeer(), Unsubscribe: request.GetUnsubscribe()}
	for _, want := range request.GetSubscribe() {
		if _, err := g.identify(want.GetCaller()); err == nil {
			out.Subscribe = append(out.Subscribe, want)
		}
	}
	return out
}

// Verdict implements hub.Gate.
func (g *gate) Verdict(caller, service string) (allowed, known bool, reason string) {
	if _, err := g.identify(caller); err != nil {
		return false, true, err.Error()
	}
	allowed, reason = g.granted(caller, service)
	return allowed, true, reason
}

func (g *gate) granted(caller, service string) (bool, string) {
	if g.server.config.Grants.MayCall(caller, service) {
		return true, ""
	}
	return false, fmt.Sprintf("caller %q holds no grant for service %q; request one from the permission center", caller, service)
}

// sift takes out of a report the outcomes of callers that the peer may not speak for, and says why. A batch that is sent
// again is sifted again: a caller that has moved meanwhile loses the outcomes of that batch, and no other does.
func (g *gate) sift(request *l5pb.ReportRequest) map[string]string {
	if g.server.config.Identify == nil {
		return nil
	}
	var refused map[string]string
	seen := make(map[string]error)
	kept := request.Outcomes[:0:0]
	for _, o := range request.GetOutcomes() {
		err, known := seen[o.GetCaller()]
		if !known {
			_, err = g.identify(o.GetCaller())
			seen[o.GetCaller()] = err
			if err != nil {
				if refused == nil {
					refused = make(map[string]string)
				}
				refused[o.GetCaller()] = err.Error()
				g.turnAway("report", err)
			}
		}
		if err == nil {
			kept = append(kept, o)
		}
	}
	request.Outcomes = kept
	return refused
}
