package control

import (
	"errors"
	"slices"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/flowapi"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

var (
	// ErrAbsent says that this server runs without the part that was asked.
	ErrAbsent = rpc.ErrAbsent
	// ErrInput says that a request is wrong in itself.
	ErrInput = rpc.ErrInput
	// ErrWhose says that an agent asked for another device than its own.
	ErrWhose = errors.New("control: an agent asks for its own device only")
)

// kinds of errors, each with its Connect code and its name; those of flows are flowapi's. The first that matches counts.
var kinds = slices.Concat([]rpc.Kind{
	{ErrWhose, connect.CodePermissionDenied, "device.other"},
	{ErrRate, connect.CodeResourceExhausted, "rate"},
	{Is: auth.ErrRevoked, Code: connect.CodePermissionDenied, Name: "token.revoked"},
	{Is: auth.ErrExpired, Code: connect.CodePermissionDenied, Name: "token.expired"},
	{Is: center.ErrUsed, Code: connect.CodePermissionDenied, Name: "token.used"},
	{Is: center.ErrOtherDevice, Code: connect.CodePermissionDenied, Name: "token.device"},
	{Is: cmdb.ErrNoDevice, Code: connect.CodeResourceExhausted, Name: "device.none"},
	{Is: cmdb.ErrState, Code: connect.CodeFailedPrecondition, Name: "device.state"},
	{Is: cmdb.ErrEnded, Code: connect.CodeFailedPrecondition, Name: "acquisition.ended"},
	{Is: cmdb.ErrKeyReused, Code: connect.CodeAlreadyExists, Name: "key.reused"},
	{Is: cmdb.ErrStale, Code: connect.CodeAborted, Name: "plan.stale"},
	{Is: cmdb.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "declaration.invalid"},
	{Is: cmdb.ErrKind, Code: connect.CodeInvalidArgument, Name: "kind.unknown"},
	{Is: cmdb.ErrRequest, Code: connect.CodeInvalidArgument, Name: "invalid"},
	{Is: cmdb.ErrResync, Code: connect.CodeOutOfRange, Name: "resync"},
	{Is: cmdb.ErrNotFound, Code: connect.CodeNotFound, Name: "resource.not_found"},
	{Is: l5server.ErrRulesChanged, Code: connect.CodeAborted, Name: "rules.changed"},
	{Is: rule.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "rules.invalid"},
	{Is: center.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "invalid"},
	{Is: center.ErrTaken, Code: connect.CodeAlreadyExists, Name: "taken"},
	{Is: center.ErrNoBalancer, Code: connect.CodeFailedPrecondition, Name: "vip.no_balancer"},
	{Is: center.ErrContended, Code: connect.CodeAborted, Name: "contended"},
	{Is: center.ErrNotFound, Code: connect.CodeNotFound, Name: "not_found"},
	{Is: gray.ErrNotFound, Code: connect.CodeNotFound, Name: "rollout.not_found"},
	{Is: gray.ErrExists, Code: connect.CodeAlreadyExists, Name: "rollout.exists"},
	{Is: gray.ErrSuperseded, Code: connect.CodeFailedPrecondition, Name: "rollout.superseded"},
	{Is: gray.ErrState, Code: connect.CodeFailedPrecondition, Name: "rollout.state"},
	{Is: gray.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "rollout.invalid"},
	{Is: scale.ErrNotFound, Code: connect.CodeNotFound, Name: "scale.not_found"},
	{Is: scale.ErrNoDevices, Code: connect.CodeResourceExhausted, Name: "device.none"},
	{Is: scale.ErrRefused, Code: connect.CodeFailedPrecondition, Name: "scale.refused"},
	{Is: trigger.ErrNotFound, Code: connect.CodeNotFound, Name: "trigger.not_found"},
	{Is: trigger.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "trigger.invalid"},
	{Is: trigger.ErrPaused, Code: connect.CodeFailedPrecondition, Name: "trigger.paused"},
	{Is: trigger.ErrContended, Code: connect.CodeAborted, Name: "contended"},
	{Is: l5server.ErrNotFound, Code: connect.CodeNotFound, Name: "instance.not_found"},
	{Is: drift.ErrNotFound, Code: connect.CodeNotFound, Name: "finding.not_found"},
	{Is: drift.ErrClosed, Code: connect.CodeFailedPrecondition, Name: "finding.closed"},
	{Is: records.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "invalid"},
}, flowapi.Kinds)

// NameOf returns the name of an error that came over the API, or of its Connect code where it has none.
func NameOf(err error) string { return rpc.NameOf(err) }

// Retryable says whether the same call may succeed later.
func Retryable(err error) bool { return rpc.Retryable(err) }
