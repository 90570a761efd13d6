// Package flowapi is that part of the control API which is about flows: zhiyun.control.v1.FlowService. It needs an engine, and nothing else of a server, so that
// whoever embeds flow alone has the same verbs (flow/daemon).
//
//	api, err := flowapi.New(flowapi.Config{Engine: engine, Audit: audit})
//	api.Mount(mux)                 // or api.Handler, beside the handlers of other parts
package flowapi

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// Config is what the API is in front of.
type Config struct {
	// Engine runs the flows. Default: none, and every method answers rpc.ErrAbsent.
	Engine *flow.Engine
	// Tools are those that the engine runs, to be listed. Default: they are not.
	Tools *flow.Tools
	// ToolDevices counts the connected devices that have a tool, by its name. Default: it is not known.
	ToolDevices func() map[string]int
	// Shelf is where pushed tools are kept. Default: none can be pushed.
	Shelf *shelf.Shelf
	// Audit records what was done; what stands already is not undone by its error. Required.
	Audit func(ctx context.Context, c *pb.Cause, action, object string, detail any) error
}

// API serves FlowService. It is safe for concurrent use.
type API struct {
	config  Config
	pushing sync.Mutex // held while the tools that run change
}

// New checks the config. It starts nothing.
func New(config Config) (*API, error) {
	if config.Audit == nil {
		return nil, errors.New("flowapi: Config.Audit is nil: say where it is recorded who did what")
	}
	return &API{config: config}, nil
}

// Handler returns the path and the handler of the service.
func (f *API) Handler(options ...connect.HandlerOption) (string, http.Handler) {
	return controlpbconnect.NewFlowServiceHandler(f, options...)
}

// Mount adds the service to a mux that serves nothing else of zhiyun.control.v1, with rehearsals and named errors.
func (f *API) Mount(mux *http.ServeMux) {
	mux.Handle(f.Handler(connect.WithInterceptors(rpc.Rehearsals{}, rpc.Names{Kinds: Kinds}), connect.WithReadMaxBytes(rpc.MaxMessage)))
	rpc.MountRehearsals(mux, Rehearsable)
}

// Rehearsable lists the procedures that can be rehearsed.
var Rehearsable = []string{
	controlpbconnect.FlowServiceSaveProcedure,
	controlpbconnect.FlowServiceStartProcedure,
	controlpbconnect.FlowServiceCancelProcedure,
	controlpbconnect.FlowServiceRetryProcedure,
	controlpbconnect.FlowServicePauseProcedure,
	controlpbconnect.FlowServiceResumeProcedure,
	controlpbconnect.FlowServiceInterveneProcedure,
	controlpbconnect.FlowServicePushToolProcedure,
	controlpbconnect.FlowServiceUseToolProcedure,
	controlpbconnect.FlowServiceBulkProcedure,
	controlpbconnect.FlowServiceSignalProcedure,
	controlpbconnect.FlowServicePruneProcedure,
}

// Kinds are the errors of flows, each with its Connect code and its name.
var Kinds = []rpc.Kind{
	{Is: flow.ErrNotFound, Code: connect.CodeNotFound, Name: "flow.not_found"},
	{Is: flow.ErrInvalid, Code: connect.CodeInvalidArgument, Name: "flow.invalid"},
	{Is: flow.ErrExists, Code: connect.CodeAlreadyExists, Name: "flow.exists"},
	{Is: flow.ErrState, Code: connect.CodeFailedPrecondition, Name: "flow.state"},
	{Is: flow.ErrNotAsked, Code: connect.CodePermissionDenied, Name: "flow.not_asked"},
	{Is: flow.ErrBusy, Code: connect.CodeResourceExhausted, Name: "flow.busy"},
	{Is: flow.ErrLocked, Code: connect.CodeAborted, Name: "flow.locked"},
	{Is: flow.ErrDenied, Code: connect.CodePermissionDenied, Name: "flow.denied"},
	{Is: flow.ErrStale, Code: connect.CodeAborted, Name: "contended"},
	{Is: flow.ErrClosed, Code: connect.CodeUnavailable, Name: "flow.closed"},
}
