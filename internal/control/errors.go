package control

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

var (
	// ErrAbsent says that this server runs without the part that was asked.
	ErrAbsent = errors.New("control: this server runs without that part; ask another, or start it with the part on")
	// ErrInput says that a request is wrong in itself.
	ErrInput = errors.New("control: invalid request")
	// ErrWhose says that an agent asked for another device than its own.
	ErrWhose = errors.New("control: an agent asks for its own device only")
)

// nameHeader carries the name of an error.
const nameHeader = "Zhiyun-Error"

// kinds of errors, each with its Connect code and its name. The first that matches counts.
var kinds = []struct {
	is   error
	code connect.Code
	name string
}{
	{context.Canceled, connect.CodeCanceled, "cancelled"},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, "timeout"},
	{ErrAbsent, connect.CodeUnimplemented, "absent"},
	{ErrWhose, connect.CodePermissionDenied, "device.other"},
	{ErrRate, connect.CodeResourceExhausted, "rate"},
	{auth.ErrDenied, connect.CodePermissionDenied, "denied"},
	{auth.ErrRevoked, connect.CodePermissionDenied, "token.revoked"},
	{auth.ErrExpired, connect.CodePermissionDenied, "token.expired"},
	{center.ErrUsed, connect.CodePermissionDenied, "token.used"},
	{center.ErrOtherDevice, connect.CodePermissionDenied, "token.device"},
	{ErrInput, connect.CodeInvalidArgument, "invalid"},
	{cmdb.ErrNoDevice, connect.CodeResourceExhausted, "device.none"},
	{cmdb.ErrState, connect.CodeFailedPrecondition, "device.state"},
	{cmdb.ErrEnded, connect.CodeFailedPrecondition, "acquisition.ended"},
	{cmdb.ErrKeyReused, connect.CodeAlreadyExists, "key.reused"},
	{cmdb.ErrStale, connect.CodeAborted, "plan.stale"},
	{cmdb.ErrInvalid, connect.CodeInvalidArgument, "declaration.invalid"},
	{cmdb.ErrKind, connect.CodeInvalidArgument, "kind.unknown"},
	{cmdb.ErrRequest, connect.CodeInvalidArgument, "invalid"},
	{cmdb.ErrResync, connect.CodeOutOfRange, "resync"},
	{cmdb.ErrNotFound, connect.CodeNotFound, "resource.not_found"},
	{l5server.ErrRulesChanged, connect.CodeAborted, "rules.changed"},
	{rule.ErrInvalid, connect.CodeInvalidArgument, "rules.invalid"},
	{center.ErrInvalid, connect.CodeInvalidArgument, "invalid"},
	{center.ErrTaken, connect.CodeAlreadyExists, "taken"},
	{center.ErrNoBalancer, connect.CodeFailedPrecondition, "vip.no_balancer"},
	{center.ErrContended, connect.CodeAborted, "contended"},
	{center.ErrNotFound, connect.CodeNotFound, "not_found"},
	{gray.ErrNotFound, connect.CodeNotFound, "rollout.not_found"},
	{gray.ErrExists, connect.CodeAlreadyExists, "rollout.exists"},
	{gray.ErrSuperseded, connect.CodeFailedPrecondition, "rollout.superseded"},
	{gray.ErrState, connect.CodeFailedPrecondition, "rollout.state"},
	{gray.ErrInvalid, connect.CodeInvalidArgument, "rollout.invalid"},
	{scale.ErrNotFound, connect.CodeNotFound, "scale.not_found"},
	{scale.ErrNoDevices, connect.CodeResourceExhausted, "device.none"},
	{scale.ErrRefused, connect.CodeFailedPrecondition, "scale.refused"},
	{flow.ErrNotFound, connect.CodeNotFound, "flow.not_found"},
	{flow.ErrInvalid, connect.CodeInvalidArgument, "flow.invalid"},
	{flow.ErrExists, connect.CodeAlreadyExists, "flow.exists"},
	{flow.ErrState, connect.CodeFailedPrecondition, "flow.state"},
	{flow.ErrNotAsked, connect.CodePermissionDenied, "flow.not_asked"},
	{flow.ErrBusy, connect.CodeResourceExhausted, "flow.busy"},
	{flow.ErrLocked, connect.CodeAborted, "flow.locked"},
	{flow.ErrDenied, connect.CodePermissionDenied, "flow.denied"},
	{flow.ErrStale, connect.CodeAborted, "contended"},
	{flow.ErrDenied, connect.CodePermissionDenied, "flow.denied"},
	{flow.ErrBusy, connect.CodeResourceExhausted, "flow.busy"},
	{flow.ErrLocked, connect.CodeAborted, "flow.locked"},
	{trigger.ErrNotFound, connect.CodeNotFound, "trigger.not_found"},
	{trigger.ErrInvalid, connect.CodeInvalidArgument, "trigger.invalid"},
	{trigger.ErrPaused, connect.CodeFailedPrecondition, "trigger.paused"},
	{trigger.ErrContended, connect.CodeAborted, "contended"},
	{flow.ErrClosed, connect.CodeUnavailable, "flow.closed"},
	{l5server.ErrNotFound, connect.CodeNotFound, "instance.not_found"},
	{drift.ErrNotFound, connect.CodeNotFound, "finding.not_found"},
	{drift.ErrClosed, connect.CodeFailedPrecondition, "finding.closed"},
	{records.ErrInvalid, connect.CodeInvalidArgument, "invalid"},
	{store.ErrFenced, connect.CodeAborted, "fenced"},
	{store.ErrConflict, connect.CodeAborted, "contended"},
	{store.ErrNoSpace, connect.CodeResourceExhausted, "no_space"},
}

// named gives every error of a handler its code and its name.
type named struct{}

func (named) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		return response, wire(err)
	}
}

func (named) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (named) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return wire(next(ctx, conn))
	}
}

func wire(err error) error {
	var already *connect.Error
	if err == nil || errors.As(err, &already) {
		return err
	}
	for _, kind := range kinds {
		if errors.Is(err, kind.is) {
			out := connect.NewError(kind.code, err)
			out.Meta().Set(nameHeader, kind.name)
			return out
		}
	}
	return connect.NewError(connect.CodeUnavailable, err)
}

// refusal is an error with a name of its own.
func refusal(code connect.Code, name, text string, args ...any) error {
	out := connect.NewError(code, fmt.Errorf(text, args...))
	out.Meta().Set(nameHeader, name)
	return out
}

// NameOf returns the name of an error that came over the API, or of its Connect code where it has none.
func NameOf(err error) string {
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return ""
	}
	if name := remote.Meta().Get(nameHeader); name != "" {
		return name
	}
	return remote.Code().String()
}

// Retryable says whether the same call may succeed later.
func Retryable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeAborted, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted:
		return true
	}
	return false
}
