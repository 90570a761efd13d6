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
	{auth.ErrRevoked, connect.CodePermissionDenied, "token.revoked"},
	{auth.ErrExpired, connect.CodePermissionDenied, "token.expired"},
	{center.ErrUsed, connect.CodePermissionDenied, "token.used"},
	{center.ErrOtherDevice, connect.CodePermissionDenied, "token.device"},
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
	{trigger.ErrNotFound, connect.CodeNotFound, "trigger.not_found"},
	{trigger.ErrInvalid, connect.CodeInvalidArgument, "trigger.invalid"},
	{trigger.ErrPaused, connect.CodeFailedPrecondition, "trigger.paused"},
	{trigger.ErrContended, connect.CodeAborted, "contended"},
	{l5server.ErrNotFound, connect.CodeNotFound, "instance.not_found"},
	{drift.ErrNotFound, connect.CodeNotFound, "finding.not_found"},
	{drift.ErrClosed, connect.CodeFailedPrecondition, "finding.closed"},
	{records.ErrInvalid, connect.CodeInvalidArgument, "invalid"},
}, flowapi.Kinds)

// NameOf returns the name of an error that came over the API, or of its Connect code where it has none.
func NameOf(err error) string { return rpc.NameOf(err) }

// Retryable says whether the same call may succeed later.
func Retryable(err error) bool { return rpc.Retryable(err) }
