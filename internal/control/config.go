package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/flowapi"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// Config is what the API is in front of. CMDB, Centers and Records are required; the methods of a part that is left
// out answer that it does not run here.
type Config struct {
	CMDB    *cmdb.DB
	Centers *center.Centers
	Records *records.DB
	Gray    *gray.Controller
	Scale   *scale.Controller
	// ScaleOff says that no Scale controller runs on this record: it answers, but nobody would carry out an order by hand.
	ScaleOff bool
	Drift    *drift.Ledger
	Flow     *flow.Engine
	Triggers *trigger.Controller
	Tools    *flow.Tools  // those that the engine runs, to be listed
	Shelf    *shelf.Shelf // where pushed tools are kept; nil: none can be pushed
	// ToolDevices counts the connected devices that have a tool, by its name. Default: it is not known.
	ToolDevices func() map[string]int
	Names       *l5server.Server

	// GrayPolicy is the policy that a module's manifest asks for, for rollouts that name none. Default: gray.Default.
	GrayPolicy func(cmdb.GraySpec) (gray.Policy, error)
	// DriftModes says what agents of a module's devices do about findings. Default: they observe.
	DriftModes func(module string) map[drift.Kind]drift.Mode

	// Trust is what devices that enrol are given. Default: no TLS, and tokens for credentials.
	Trust Trust
	// DeviceLife is how long the credential of a device is good for; agents renew it at two thirds of that. Default 30 days.
	DeviceLife time.Duration

	// Info is what OpsService.Info tells of this server: version, addresses. Must encode as JSON. Default: {}.
	Info any
	// Checks are what OpsService.Doctor runs beside its own.
	Checks []Check

	// Settle is how long changes are gathered before declared states are computed anew. Default 50 ms.
	Settle time.Duration
	Logger *slog.Logger // default: off
}

// Check is one examination by OpsService.Doctor.
type Check struct {
	Name string
	// Run returns what was found in words, and an error that says what is wrong and how to mend it.
	Run func(ctx context.Context) (string, error)
}

// API is the control API. It is safe for concurrent use.
type API struct {
	config Config
	logger *slog.Logger
	news   *news

	exchanges *auth.Limiter // of enrolment tokens and device credentials, by id
	flows     *flowapi.API
}

// New checks the config, reporting all faults at once. It starts nothing.
func New(config Config) (*API, error) {
	var faults []error
	if config.CMDB == nil {
		faults = append(faults, errors.New("control: Config.CMDB is nil; give the CMDB that the API is in front of"))
	}
	if config.Centers == nil {
		faults = append(faults, errors.New("control: Config.Centers is nil; give the centers"))
	}
	if config.Records == nil {
		faults = append(faults, errors.New("control: Config.Records is nil; changes could not be audited"))
	}
	if config.Settle < 0 {
		faults = append(faults, fmt.Errorf("control: Config.Settle is %v; give 0 for 50ms, or more", config.Settle))
	}
	for i, check := range config.Checks {
		if check.Name == "" || check.Run == nil {
			faults = append(faults, fmt.Errorf("control: Config.Checks[%d] has no name or no function; give both", i))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if config.DeviceLife < 0 || config.DeviceLife > center.MaxTTL {
		return nil, fmt.Errorf("control: Config.DeviceLife is %v; give 0 for 30 days, or at most %v", config.DeviceLife, center.MaxTTL)
	}
	if config.DeviceLife == 0 {
		config.DeviceLife = 30 * 24 * time.Hour
	}
	if config.Settle == 0 {
		config.Settle = 50 * time.Millisecond
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.GrayPolicy == nil {
		config.GrayPolicy = func(cmdb.GraySpec) (gray.Policy, error) { return gray.Default(), nil }
	}
	if config.DriftModes == nil {
		config.DriftModes = func(string) map[drift.Kind]drift.Mode { return nil }
	}
	if config.Info == nil {
		config.Info = struct{}{}
	}
	a := &API{config: config, logger: config.Logger, news: newNews(), exchanges: auth.NewLimiter(exchangeBurst, exchangeEvery, nil)}
	var err error
	a.flows, err = flowapi.New(flowapi.Config{Engine: config.Flow, Tools: config.Tools, ToolDevices: config.ToolDevices, Shelf: config.Shelf, Audit: a.audit})
	return a, err
}

// Run watches for what changes declared states, for AgentService.Desired, until ctx ends; then it returns nil.
func (a *API) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { a.watchModel(ctx) })
	wait.Go(func() { a.watchCenters(ctx) })
	if a.config.Drift != nil {
		wait.Go(func() { a.watchFindings(ctx) })
	}
	wait.Wait()
	return nil
}

// Mount adds the handlers of every service, and of the blobs, to a mux.
func (a *API) Mount(mux *http.ServeMux) {
	options := []connect.HandlerOption{connect.WithInterceptors(rpc.Rehearsals{}, rpc.Names{Kinds: kinds}), connect.WithReadMaxBytes(rpc.MaxMessage)}
	mux.Handle(controlpbconnect.NewResourceServiceHandler(resources{a}, options...))
	mux.Handle(controlpbconnect.NewDeviceServiceHandler(devices{a}, options...))
	mux.Handle(a.flows.Handler(options...))
	mux.Handle(controlpbconnect.NewFreezeServiceHandler(freezes{a}, options...))
	mux.Handle(controlpbconnect.NewTriggerServiceHandler(triggers{a}, options...))
	mux.Handle(controlpbconnect.NewRegistryServiceHandler(registry{a}, options...))
	mux.Handle(controlpbconnect.NewGrayServiceHandler(rollouts{a}, options...))
	mux.Handle(controlpbconnect.NewScaleServiceHandler(scaling{a}, options...))
	mux.Handle(controlpbconnect.NewDriftServiceHandler(findings{a}, options...))
	mux.Handle(controlpbconnect.NewAgentServiceHandler(agents{a}, options...))
	mux.Handle(controlpbconnect.NewPackageServiceHandler(packages{a}, options...))
	mux.Handle(controlpbconnect.NewFileServiceHandler(files{a}, options...))
	mux.Handle(controlpbconnect.NewConfigServiceHandler(configs{a}, options...))
	mux.Handle(controlpbconnect.NewPermissionServiceHandler(permissions{a}, options...))
	mux.Handle(controlpbconnect.NewNotifyServiceHandler(notices{a}, options...))
	mux.Handle(controlpbconnect.NewChangeServiceHandler(changes{a}, options...))
	mux.Handle(controlpbconnect.NewVirtualAddrServiceHandler(virtuals{a}, options...))
	mux.Handle(controlpbconnect.NewOpsServiceHandler(ops{a}, options...))
	mux.Handle(controlpbconnect.NewTokenServiceHandler(tokens{a}, options...))
	mux.Handle(controlpbconnect.NewEnrolServiceHandler(enrolling{a}, options...))
	mux.Handle(a.config.Centers.Blobs.Handler())
	rpc.MountRehearsals(mux, rehearsable)
}
