package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// registry serves RegistryService.
type registry struct{ *API }

func (r registry) names(ctx context.Context) (*l5server.Server, error) {
	if r.config.Names == nil {
		return nil, fmt.Errorf("%w: l5", ErrAbsent)
	}
	return r.config.Names, r.config.Names.Ready(ctx)
}

func (r registry) Services(ctx context.Context, q *connect.Request[pb.ServicesRequest]) (*connect.Response[pb.ServicesResponse], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(slices.Clone(server.Services()), func(s string) bool { return !strings.HasPrefix(s, q.Msg.Prefix) })
	slices.Sort(all)
	at, found := slices.BinarySearch(all, q.Msg.Page.GetAfter())
	if found { // what the former page ended with may be gone by now
		at++
	}
	services, next, err := rpc.Window(all[at:], &pb.Page{Limit: q.Msg.Page.GetLimit()}, func(s string) string { return s })
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ServicesResponse{Services: services, Next: next}), nil
}

func (r registry) Instances(ctx context.Context, q *connect.Request[pb.ServiceRequest]) (*connect.Response[pb.Listing], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	return rpc.Listing(server.Instances(q.Msg.Service), "", nil)
}

func (r registry) Explain(ctx context.Context, q *connect.Request[pb.ServiceRequest]) (*connect.Response[pb.JSON], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	if q.Msg.Caller != "" {
		return rpc.Document(server.ExplainFor(q.Msg.Service, rule.Caller{Module: q.Msg.Caller}), nil)
	}
	return rpc.Document(server.Explain(q.Msg.Service), nil)
}

func (r registry) Register(ctx context.Context, q *connect.Request[pb.RegisterRequest]) (*connect.Response[pb.Done], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if len(q.Msg.Instances) == 0 || len(q.Msg.Instances) > rpc.MaxPage {
		return nil, rpc.Invalid("instances", len(q.Msg.Instances), fmt.Sprintf("give 1 to %d", rpc.MaxPage))
	}
	instances := make([]l5.Instance, len(q.Msg.Instances))
	for i, encoded := range q.Msg.Instances {
		if err := json.Unmarshal(encoded, &instances[i]); err != nil {
			return nil, rpc.Invalid("instances", err, "give JSON objects as package l5's Instance")
		}
		if err := instances[i].Check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInput, err)
		}
	}
	if err := server.Register(ctx, instances); err != nil {
		return nil, err
	}
	for _, i := range instances {
		if err := r.audit(ctx, c, "l5.register", "instance/"+i.Service+"/"+i.Addr, i); err != nil {
			return nil, err
		}
	}
	return rpc.Done(nil)
}

func (r registry) Deregister(ctx context.Context, q *connect.Request[pb.InstanceRequest]) (*connect.Response[pb.Done], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := server.Deregister(ctx, q.Msg.Service, q.Msg.Addr); err != nil {
		return nil, err
	}
	return rpc.Done(r.audit(ctx, c, "l5.deregister", "instance/"+q.Msg.Service+"/"+q.Msg.Addr, nil))
}

func (r registry) Drain(ctx context.Context, q *connect.Request[pb.InstanceRequest]) (*connect.Response[pb.Done], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	if err := server.Drain(ctx, q.Msg.Service, q.Msg.Addr); err != nil {
		return nil, err
	}
	return rpc.Done(r.audit(ctx, c, "l5.drain", "instance/"+q.Msg.Service+"/"+q.Msg.Addr, nil))
}

func (r registry) SetShares(ctx context.Context, q *connect.Request[pb.SetSharesRequest]) (*connect.Response[pb.Done], error) {
	server, err := r.names(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.cause(ctx, q.Msg.Cause)
	if err != nil {
		return nil, err
	}
	shares := make(map[string]int, len(q.Msg.Shares))
	for addr, share := range q.Msg.Shares {
		shares[addr] = int(share)
	}
	if err := server.SetShare(ctx, q.Msg.Service, shares); err != nil {
		return nil, err
	}
	return rpc.Done(r.audit(ctx, c, "l5.share", "service/"+q.Msg.Service, shares))
}

// maxTraffic bounds what one question adds up: each bucket of the window costs, whether calls were reported in it or not.
const maxTraffic = 24 * time.Hour

func (r registry) Traffic(ctx context.Context, q *connect.Request[pb.TrafficRequest]) (*connect.Response[pb.TrafficResponse], error) {
	window, err := rpc.Duration("window", q.Msg.Window, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if window > maxTraffic {
		return nil, rpc.Invalid("window", window, "give "+maxTraffic.String()+" at most")
	}
	now := time.Now()
	outcomes, err := r.config.Records.Outcomes(ctx, q.Msg.Service, now.Add(-window), now)
	if err != nil {
		return nil, err
	}
	out := &pb.TrafficResponse{Complete: len(outcomes.Gaps) == 0}
	if q.Msg.Addr != "" {
		told, err := rpc.Duration("told", q.Msg.Told, 0)
		if err != nil {
			return nil, err
		}
		names, err := r.names(ctx)
		if err != nil {
			return nil, err
		}
		leaving := names.Leaving(q.Msg.Service, q.Msg.Addr, now.Add(-told))
		out.Unheard = int64(leaving.Unheard)
		if !leaving.Busy.IsZero() {
			out.Busy = durationpb.New(max(0, now.Sub(leaving.Busy)))
		}
	}
	for _, bucket := range outcomes.Buckets {
		if q.Msg.Addr == "" || bucket.Addr == q.Msg.Addr {
			out.Requests += bucket.Requests
		}
	}
	return connect.NewResponse(out), nil
}
