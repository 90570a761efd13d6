package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// cause is rpc.ReadCause; what was proved goes into the audit record beside it, see audit.
func (a *API) cause(ctx context.Context, c *pb.Cause) (*pb.Cause, error) {
	return rpc.ReadCause(ctx, c)
}

// audit records what was done. The change stands already: an error says so, and the call can be repeated.
func (a *API) audit(ctx context.Context, c *pb.Cause, action, object string, detail any) error {
	if store.RehearsalOf(ctx) != nil {
		return nil // nothing was done
	}
	var encoded json.RawMessage
	if detail != nil {
		var err error
		if encoded, err = json.Marshal(detail); err != nil {
			return fmt.Errorf("control: audit detail of %s %s: %w", action, object, err)
		}
	}
	// The caller may be gone by now; what was done is recorded all the same.
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	proved := ""
	if id, ok := auth.From(ctx); ok {
		proved = id.Proof()
	}
	err := a.config.Records.Audit(bound, records.Entry{
		Actor: c.GetActor(), Proved: proved, Action: action, Object: object, Reason: c.GetReason(), Execution: c.GetExecution(), Detail: encoded,
	})
	if err != nil {
		return fmt.Errorf("control: %s %s is done, but not in the audit record; repeat it: %w", action, object, err)
	}
	return nil
}

func page(p *pb.Page) center.Page { return center.Page{Limit: int(p.GetLimit()), After: p.GetAfter()} }
