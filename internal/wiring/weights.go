package wiring

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/l5"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// Names is what Weights needs of the name service.
type Names interface {
	Instances(service string) []l5server.InstanceStatus
	SetShare(ctx context.Context, service string, shares map[string]int, options ...l5server.ShareOption) error
}

// Weights lets gray set shares in the name service: a member is an instance, its ID the instance's address.
type Weights struct{ Names Names }

// SetShares implements gray.Weights. A member that is no longer registered gets no traffic: setting it to 0 is done.
func (w Weights) SetShares(ctx context.Context, service string, shares map[string]int, fence int64) error {
	known, err := w.Shares(ctx, service)
	if err != nil {
		return err
	}
	wanted := make(map[string]int, len(shares))
	for id, share := range shares {
		if _, registered := known[id]; registered || share > 0 {
			wanted[id] = share
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return w.Names.SetShare(ctx, service, wanted, l5server.Fence(fence))
}

// Shares implements gray.Weights. A draining instance takes no new calls, whatever its share.
func (w Weights) Shares(_ context.Context, service string) (map[string]int, error) {
	shares := make(map[string]int)
	for _, status := range w.Names.Instances(service) {
		shares[status.Addr] = status.Share
		if status.State == l5.StateDraining {
			shares[status.Addr] = 0
		}
	}
	return shares, nil
}
