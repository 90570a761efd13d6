package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// invalid is an error of the request: which field, its value, how to mend it.
func invalid(field string, value any, mend string) error {
	return fmt.Errorf("%w: %s %q: %s", ErrInput, field, fmt.Sprint(value), mend)
}

// need names a field that must not be empty.
func need(field, value, mend string) error {
	if value == "" {
		return invalid(field, value, mend)
	}
	return nil
}

// cause completes who asks, and refuses an actor that the caller may not name: who names none is the actor. What was proved
// goes into the audit record beside it, see audit.
func (a *API) cause(ctx context.Context, c *pb.Cause) (*pb.Cause, error) {
	out := &pb.Cause{Actor: c.GetActor(), Reason: c.GetReason(), Execution: c.GetExecution(), Key: c.GetKey()}
	id, proved := auth.From(ctx)
	if proved && out.Actor == "" {
		out.Actor = id.Name
	}
	if out.Actor == "" || len(out.Actor) > 128 {
		return nil, invalid("cause.actor", out.Actor, "say who asks, in at most 128 bytes")
	}
	if proved {
		if err := auth.MayClaim(id, out.Actor); err != nil {
			return nil, err
		}
	}
	if len(out.Reason) > 4096 || len(out.Execution) > 256 || len(out.Key) > 256 {
		return nil, invalid("cause", out.Actor, "keep the reason below 4096 bytes, execution and key below 256")
	}
	return out, nil
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

// document answers with one document.
func document(v any, err error) (*connect.Response[pb.JSON], error) {
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("control: encode the answer: %w", err)
	}
	return connect.NewResponse(&pb.JSON{Json: encoded}), nil
}

// listing answers with one page.
func listing[T any](items []T, next string, err error) (*connect.Response[pb.Listing], error) {
	if err != nil {
		return nil, err
	}
	out := &pb.Listing{Next: next, Items: make([][]byte, len(items))}
	for i := range items {
		if out.Items[i], err = json.Marshal(items[i]); err != nil {
			return nil, fmt.Errorf("control: encode the answer: %w", err)
		}
	}
	return connect.NewResponse(out), nil
}

func done(err error) (*connect.Response[pb.Done], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.Done{}), nil
}

// Bounds of one page.
const (
	defaultPage = 100
	maxPage     = 1000
)

func limit(p *pb.Page) (int, error) {
	n := int(p.GetLimit())
	if n < 0 || n > maxPage {
		return 0, invalid("page.limit", n, fmt.Sprintf("give 1 to %d, or 0 for %d", maxPage, defaultPage))
	}
	if n == 0 {
		n = defaultPage
	}
	return n, nil
}

func page(p *pb.Page) center.Page { return center.Page{Limit: int(p.GetLimit()), After: p.GetAfter()} }

// window cuts a page out of a whole list by position; after is the key of the last item of the former page.
func window[T any](all []T, p *pb.Page, key func(T) string) ([]T, string, error) {
	n, err := limit(p)
	if err != nil {
		return nil, "", err
	}
	if after := p.GetAfter(); after != "" {
		at := -1
		for i := range all {
			if key(all[i]) == after {
				at = i
				break
			}
		}
		if at < 0 {
			return nil, "", invalid("page.after", after, "it is gone; begin from the start")
		}
		all = all[at+1:]
	}
	if len(all) > n {
		return all[:n], key(all[n-1]), nil
	}
	return all, "", nil
}

// duration reads an optional duration.
func duration(field string, d *durationpb.Duration, fallback time.Duration) (time.Duration, error) {
	if d == nil {
		return fallback, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
		return 0, invalid(field, d, "give a duration of at least 0")
	}
	return d.AsDuration(), nil
}

func moment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid(field, t, "give a valid time")
	}
	return t.AsTime(), nil
}
