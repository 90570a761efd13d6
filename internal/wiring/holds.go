package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
)

// FlowClean takes a module's leavings from a faulty device and gives the device back.
const FlowClean = "clean"

// HoldsConfig is what a Holds joins. All but the Logger and OnEvent are required.
type HoldsConfig struct {
	CMDB interface {
		Devices(cmdb.DeviceFilter) []cmdb.Device
		Serve(ctx context.Context, owner, name, module string, opts ...cmdb.Option) error
		Forfeit(ctx context.Context, owner, name, reason string, opts ...cmdb.Option) error
	}
	Flow interface {
		Get(ctx context.Context, id string) (flow.Execution, error)
		List(ctx context.Context, filter flow.Filter) (page []flow.Execution, next string, err error)
		Start(ctx context.Context, name string, params map[string]any, opts ...flow.StartOption) (string, error)
	}
	// Serving says whether callers are sent to the device.
	Serving func(device string) bool
	// Withdraw takes the device's instances out of the name service.
	Withdraw func(ctx context.Context, device string) error
	// Paused says whether automation is stopped for a module.
	Paused func(ctx context.Context, module string) (bool, error)
	// Every is the time between two looks that nothing else brings forward. Default 1 min.
	Every time.Duration
	// OnEvent is told what was done with a device: "served" or "faulty".
	OnEvent func(device, action, reason string)
	Logger  *slog.Logger // default: off
}

// leftBehind begins the fault of a device that an execution left behind.
const leftBehind = "left behind by execution "

// Holds gives back what executions leave held when they are over: those whose step that would have given it back was
// skipped by a person, on the way there or in compensation.
//
//	                 callers are sent there
//	held by an  ----------------------------------------> in service
//	execution
//	that is over --- nobody is ---> faulty: left behind ---> flow clean ---> idle
//
// What callers use stays with them. Of anything else nobody knows what of the module runs on it, so that it is cleaned
// before it is anyone's again; while automation is paused for the module, it waits as faulty, with the reason.
type Holds struct {
	config HoldsConfig
	loop   *reconcile.Loop
}

// NewHolds returns a Holds that does nothing until Run. All faults of config are reported at once.
func NewHolds(config HoldsConfig) (*Holds, error) {
	var faults []error
	for _, required := range []struct {
		name string
		set  bool
	}{{"CMDB", config.CMDB != nil}, {"Flow", config.Flow != nil}, {"Serving", config.Serving != nil}, {"Withdraw", config.Withdraw != nil}, {"Paused", config.Paused != nil}} {
		if !required.set {
			faults = append(faults, fmt.Errorf("%s is nil", required.name))
		}
	}
	if config.Every < 0 {
		faults = append(faults, fmt.Errorf("Every is %s: give a positive duration, or 0 for 1m", config.Every))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("holds: invalid config: %w", err)
	}
	if config.Every == 0 {
		config.Every = time.Minute
	}
	if config.OnEvent == nil {
		config.OnEvent = func(string, string, string) {}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Holds{config: config}
	var err error
	h.loop, err = reconcile.New(reconcile.Config{Name: "holds", Interval: config.Every, Pass: h.look, Logger: config.Logger})
	return h, err
}

// Ended brings the next look forward: an execution is over. It does not block.
func (h *Holds) Ended() { h.loop.Wake() }

// Run looks when it starts, whenever an execution ends, and from time to time, until ctx ends.
func (h *Holds) Run(ctx context.Context) error { return h.loop.Run(ctx) }

// Examine names a device that an execution which is over holds still, or has left behind: for doctor.
func (h *Holds) Examine(ctx context.Context) (string, error) {
	held, over, err := h.over(ctx)
	if err != nil {
		return "", err
	}
	if len(over) > 0 {
		return "", fmt.Errorf("device %s is held by execution %s, which is %s: it is looked after within %s; if it is not, the server's log says why",
			over[0].Name, over[0].Holder, over[0].state, h.config.Every)
	}
	for _, device := range h.config.CMDB.Devices(cmdb.DeviceFilter{State: cmdb.Faulty}) {
		_, module, ok := leaver(device.Fault)
		if !ok {
			continue
		}
		if paused, err := h.config.Paused(ctx, module); err != nil || paused {
			return "", errors.Join(err, fmt.Errorf("device %s was %s: it is cleaned when automation goes on: zhiyun resume %s", device.Name, device.Fault, module))
		}
		runs, _, err := h.config.Flow.List(ctx, flow.Filter{Flow: FlowClean, Key: cleanKey(device), Limit: 1})
		switch {
		case err != nil:
			return "", err
		case len(runs) == 1 && runs[0].State.Ended():
			return "", fmt.Errorf("device %[1]s was %[2]s, and execution %[3]s that was to clean it is %[4]s: zhiyun flow show %[3]s, "+
				"then zhiyun flow run clean device=%[1]s module=%[5]s", device.Name, device.Fault, runs[0].ID, runs[0].State, module)
		}
	}
	return fmt.Sprintf("%d devices are held, none by an execution that is over, and none is left behind", held), nil
}

// look gives back what is held by executions that are over. What fails for one device keeps no other one.
func (h *Holds) look(ctx context.Context) error {
	_, over, err := h.over(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, device := range over {
		faults = append(faults, h.free(ctx, device.Device, device.state))
	}
	for _, device := range h.config.CMDB.Devices(cmdb.DeviceFilter{State: cmdb.Faulty}) {
		if strings.HasPrefix(device.Fault, leftBehind) {
			faults = append(faults, h.clean(ctx, device))
		}
	}
	return errors.Join(faults...)
}

// heldOver is a device whose holder is an execution that is over.
type heldOver struct {
	cmdb.Device
	state flow.State // of the execution
}

// over returns how many devices are held, and those whose holders are over.
func (h *Holds) over(ctx context.Context) (held int, out []heldOver, err error) {
	ended := make(map[string]flow.State)
	devices := h.config.CMDB.Devices(cmdb.DeviceFilter{State: cmdb.Held})
	for _, device := range devices {
		state, known := ended[device.Holder]
		if !known {
			execution, err := h.config.Flow.Get(ctx, device.Holder)
			if err != nil && !errors.Is(err, flow.ErrNotFound) {
				return 0, nil, fmt.Errorf("who holds device %s: %w", device.Name, err)
			}
			state = execution.State // none: it is held by something else, and its hold expires
			ended[device.Holder] = state
		}
		if state.Ended() {
			out = append(out, heldOver{device, state})
		}
	}
	return len(devices), out, nil
}

// free ends the hold of a device.
func (h *Holds) free(ctx context.Context, device cmdb.Device, state flow.State) error {
	why := fmt.Sprintf("execution %s is %s and held it still", device.Holder, state)
	if device.Module != "" && h.config.Serving(device.Name) {
		err := h.config.CMDB.Serve(ctx, device.Holder, device.Name, device.Module, cmdb.By("holds"), cmdb.Because(why+"; callers are sent to it"))
		if err != nil {
			return fmt.Errorf("put device %s into service: %w", device.Name, err)
		}
		h.tell(device.Name, "served", why+"; callers are sent to it")
		return nil
	}
	if err := h.config.Withdraw(ctx, device.Name); err != nil {
		return fmt.Errorf("withdraw the instances of device %s: %w", device.Name, err)
	}
	// The module goes out of the device's record with the fault: the fault says whose leavings are on it.
	fault := fmt.Sprintf("%s%s (%s) of module %s", leftBehind, device.Holder, state, device.Module)
	if err := h.config.CMDB.Forfeit(ctx, device.Holder, device.Name, fault, cmdb.By("holds"), cmdb.Because(why)); err != nil {
		return fmt.Errorf("mark device %s faulty: %w", device.Name, err)
	}
	h.tell(device.Name, "faulty", fault)
	device.Fault = fault
	return h.clean(ctx, device)
}

// clean starts the flow that empties the device, once for each time that it was left behind.
func (h *Holds) clean(ctx context.Context, device cmdb.Device) error {
	_, module, ok := leaver(device.Fault)
	if !ok {
		return nil
	}
	paused, err := h.config.Paused(ctx, module)
	if err != nil || paused {
		return err
	}
	_, err = h.config.Flow.Start(ctx, FlowClean, map[string]any{"device": device.Name, "module": module},
		flow.Key(cleanKey(device)), flow.By("holds"), flow.Because(device.Fault))
	if err != nil {
		return fmt.Errorf("clean device %s: %w", device.Name, err)
	}
	return nil
}

// cleanKey is the same for each try to clean a device that was left behind once.
func cleanKey(device cmdb.Device) string {
	execution, _, _ := leaver(device.Fault)
	return "holds/" + execution + "/" + device.Name
}

// leaver reads who left a device behind, and of which module.
func leaver(fault string) (execution, module string, ok bool) {
	rest, ok := strings.CutPrefix(fault, leftBehind)
	if !ok {
		return "", "", false
	}
	execution, rest, _ = strings.Cut(rest, " ")
	_, module, ok = strings.Cut(rest, " of module ")
	return execution, module, ok && execution != "" && module != ""
}

func (h *Holds) tell(device, action, reason string) {
	h.config.Logger.Info("a device that an execution left held", "device", device, "now", action, "reason", reason)
	h.config.OnEvent(device, action, reason)
}
