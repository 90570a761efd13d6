// Package rpc is what the handlers of the control API share: how requests are read and answers written, what errors are called, how a call is rehearsed, and how
// IDs may be shortened. It knows no part of a server.
package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// Invalid is an error of the request: which field, its value, how to mend it.
func Invalid(field string, value any, mend string) error {
	return fmt.Errorf("%w: %s %q: %s", ErrInput, field, fmt.Sprint(value), mend)
}

// Need names a field that must not be empty.
func Need(field, value, mend string) error {
	if value == "" {
		return Invalid(field, value, mend)
	}
	return nil
}

// ReadCause completes who asks, and refuses an actor that the caller may not name: who names none is the actor. What was proved
// goes into the audit record beside it.
func ReadCause(ctx context.Context, c *pb.Cause) (*pb.Cause, error) {
	out := &pb.Cause{Actor: c.GetActor(), Reason: c.GetReason(), Execution: c.GetExecution(), Key: c.GetKey()}
	id, proved := auth.From(ctx)
	if proved && out.Actor == "" {
		out.Actor = id.Name
	}
	if out.Actor == "" || len(out.Actor) > 128 {
		return nil, Invalid("cause.actor", out.Actor, "say who asks, in at most 128 bytes")
	}
	if proved {
		if err := auth.MayClaim(id, out.Actor); err != nil {
			return nil, err
		}
	}
	if len(out.Reason) > 4096 || len(out.Execution) > 256 || len(out.Key) > 256 {
		return nil, Invalid("cause", out.Actor, "keep the reason below 4096 bytes, execution and key below 256")
	}
	return out, nil
}

// Document answers with one document.
func Document(v any, err error) (*connect.Response[pb.JSON], error) {
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("control: encode the answer: %w", err)
	}
	return connect.NewResponse(&pb.JSON{Json: encoded}), nil
}

// Listing answers with one page.
func Listing[T any](items []T, next string, err error) (*connect.Response[pb.Listing], error) {
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

// Done answers that it is done, if it is.
func Done(err error) (*connect.Response[pb.Done], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.Done{}), nil
}

// Bounds of one page.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// Limit is how many items a page has.
func Limit(p *pb.Page) (int, error) {
	n := int(p.GetLimit())
	if n < 0 || n > MaxPage {
		return 0, Invalid("page.limit", n, fmt.Sprintf("give 1 to %d, or 0 for %d", MaxPage, DefaultPage))
	}
	if n == 0 {
		n = DefaultPage
	}
	return n, nil
}

// Window cuts a page out of a whole list by position; after is the key of the last item of the former page.
func Window[T any](all []T, p *pb.Page, key func(T) string) ([]T, string, error) {
	n, err := Limit(p)
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
			return nil, "", Invalid("page.after", after, "it is gone; begin from the start")
		}
		all = all[at+1:]
	}
	if len(all) > n {
		return all[:n], key(all[n-1]), nil
	}
	return all, "", nil
}

// Duration reads an optional duration.
func Duration(field string, d *durationpb.Duration, fallback time.Duration) (time.Duration, error) {
	if d == nil {
		return fallback, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
		return 0, Invalid(field, d, "give a duration of at least 0")
	}
	return d.AsDuration(), nil
}

// Moment reads an optional time.
func Moment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, Invalid(field, t, "give a valid time")
	}
	return t.AsTime(), nil
}

// Proved names who calls, as flows' start.by and triggers see it. Without a proof, as on a connection that needs none, it is the actor.
func Proved(ctx context.Context, c *pb.Cause) []string {
	if id, ok := auth.From(ctx); ok {
		return []string{id.Name, "role:" + string(id.Role)}
	}
	return []string{c.Actor}
}
