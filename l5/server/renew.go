package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// ErrStale says that another live owner has registered an address since this one did: whose registration is the later one
// is what the store's revisions say, not who connected last.
var ErrStale = errors.New("another owner that is alive has registered this address since; deregister it there first, or register it anew")

// Bounds of a lease without a stream.
const (
	leaseDefault = 30 * time.Second
	leaseMin     = time.Second
	leaseMax     = 24 * time.Hour
)

// Renew implements the wire protocol: a lease for those who keep no stream.
func (h *handler) Renew(ctx context.Context, request *connect.Request[l5pb.RenewRequest]) (*connect.Response[l5pb.RenewResponse], error) {
	s := h.server
	if err := s.registry.loaded(ctx); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	select {
	case <-s.leases.away():
		return nil, errAway
	default:
	}
	owner, err := proven(ctx, s.config.IdentifyOwner, request.Header(), request.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	ttl := time.Duration(request.Msg.GetTtlMs()) * time.Millisecond
	if ttl == 0 {
		ttl = leaseDefault
	}
	switch {
	case owner == "":
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a renewal names its owner"))
	case ttl < leaseMin || ttl > leaseMax:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("ttl_ms %d: want %d to %d, or 0 for %d",
			request.Msg.GetTtlMs(), leaseMin.Milliseconds(), leaseMax.Milliseconds(), leaseDefault.Milliseconds()))
	}
	s.leases.renew(owner, s.config.now(), ttl)
	response := &l5pb.RenewResponse{}
	response.Revision, err = s.change(ctx, owner, &l5pb.RegisterRequest{Put: request.Msg.GetPut(), Drain: request.Msg.GetDrain(), Remove: request.Msg.GetRemove()})
	if err != nil {
		response.Fault = err.Error()
	}
	response.Instances = int64(len(s.registry.ownedBy(owner)))
	return connect.NewResponse(response), nil
}

// stale reports whether a registration that was acknowledged at a revision has been overtaken by another owner's.
func (s *Server) stale(owner string, acknowledged int64, have *row) bool {
	if acknowledged == 0 || have == nil || have.Owner == owner || have.Owner == "" || have.revision <= acknowledged {
		return false
	}
	live, _ := s.leases.status(have.Owner, id{})
	return live
}
