package tools

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// DeviceAcquireIn is what device.acquire takes.
type DeviceAcquireIn struct {
	Module   string   `json:"module"`
	Count    int      `json:"count"`
	Names    []string `json:"names" doc:"candidates, best first; the first that are still idle are taken"`
	TTL      string   `json:"ttl,omitempty" doc:"after which the devices go back by themselves; default 4h"`
	Manifest Manifest `json:"manifest" doc:"what each device gets"`
}

// DeviceAcquireOut is what device.acquire tells: the devices, and the work of each, ready to be fanned out.
type DeviceAcquireOut struct {
	Devices []Device `json:"devices"`
	Names   []string `json:"names"`
	// Init are the files of the module's init profile that each device begins with (资源初始化).
	Init     []File        `json:"init"`
	Installs []Installment `json:"installs"`
	Scripts  []Scripting   `json:"scripts"`
	Starts   []Starting    `json:"starts"`
}

// Installment is a package on a device, Scripting a script, Starting a program.
type (
	Installment struct {
		Device  string  `json:"device"`
		Package Package `json:"package"`
	}
	Scripting struct {
		Device string `json:"device"`
		Script Script `json:"script"`
	}
	Starting struct {
		Device  string  `json:"device"`
		Program Program `json:"program"`
	}
)

// DeviceAcquire reserves devices for the execution, all or none; two executions never get one device. Codes:
// module.unknown, device.none, acquisition.ended, key.reused.
func DeviceAcquire(ctx context.Context, env Env, in DeviceAcquireIn) (DeviceAcquireOut, error) {
	out := DeviceAcquireOut{Devices: []Device{}, Names: []string{}, Init: []File{}, Installs: []Installment{}, Scripts: []Scripting{}, Starts: []Starting{}}
	ttl, err := span("ttl", in.TTL, forget)
	if err != nil {
		return out, err
	}
	if _, err := module(ctx, env, in.Module); err != nil {
		return out, err
	}
	if in.Count < 1 || len(in.Names) < in.Count {
		return out, fail("count.invalid", "%d devices are wanted of %d named; name as many at least", in.Count, len(in.Names))
	}
	held, _, err := control.DecodeList[cmdb.Device](env.Client.Devices.Acquire(ctx, connect.NewRequest(&pb.AcquireRequest{
		Owner: env.Execution, Module: in.Module, Count: int32(in.Count), Names: in.Names, Ttl: durationpb.New(ttl), Cause: env.cause(),
	})))
	if err != nil {
		return out, err
	}
	return out.of(ctx, env, in, held)
}

// of is the output for the devices that were reserved.
func (out DeviceAcquireOut) of(ctx context.Context, env Env, in DeviceAcquireIn, held []cmdb.Device) (_ DeviceAcquireOut, err error) {
	if out.Devices, err = told(ctx, env, held); err != nil {
		return out, err
	}
	out.Names = names(out.Devices)
	initial, err := control.Decode[[]control.InitFile](env.Client.Devices.InitFiles(ctx, connect.NewRequest(&pb.InitFilesRequest{Module: in.Module})))
	if err != nil {
		return out, err
	}
	for _, f := range initial {
		out.Init = append(out.Init, File{f.Path, f.Digest, f.Mode})
	}
	out.Installs, out.Scripts, out.Starts = in.Manifest.work(out.Names)
	return out, nil
}

// work is the manifest's work on each of the devices.
func (m Manifest) work(devices []string) ([]Installment, []Scripting, []Starting) {
	installs, scripts, starts := []Installment{}, []Scripting{}, []Starting{}
	for _, device := range devices {
		for _, p := range m.Packages {
			installs = append(installs, Installment{device, p})
		}
		for _, s := range m.Scripts {
			scripts = append(scripts, Scripting{device, s})
		}
		for _, p := range m.Programs {
			starts = append(starts, Starting{device, p})
		}
	}
	return installs, scripts, starts
}

// DeviceReleaseIn is what device.release takes: names, or, to undo, the input of device.acquire.
type DeviceReleaseIn struct {
	Names    []string          `json:"names,omitempty" doc:"default: everything that the execution holds"`
	Module   string            `json:"module,omitempty"`
	Count    int               `json:"count,omitempty"`
	TTL      string            `json:"ttl,omitempty"`
	Manifest *Manifest         `json:"manifest,omitempty"`
	Done     *DeviceAcquireOut `json:"done,omitempty"`
}

// DeviceReleaseOut is what device.release tells.
type DeviceReleaseOut struct {
	Released []string `json:"released" doc:"those that went back to the pool"`
}

// DeviceRelease gives back what the execution holds. A device that it does not hold is passed over.
func DeviceRelease(ctx context.Context, env Env, in DeviceReleaseIn) (DeviceReleaseOut, error) {
	out := DeviceReleaseOut{Released: []string{}}
	held, err := devicesWhere(ctx, env, fmt.Sprintf("state == %q && holder == %q", cmdb.Held, env.Execution))
	if err != nil {
		return out, err
	}
	var wanted []string
	for _, d := range held {
		// The names of an acquisition are candidates; what it got is in Done, or all that is held.
		if in.Manifest == nil && len(in.Names) > 0 && !slices.Contains(in.Names, d.Name) || in.Done != nil && !slices.Contains(in.Done.Names, d.Name) {
			continue
		}
		wanted = append(wanted, d.Name)
	}
	if len(wanted) == 0 {
		return out, nil
	}
	answer, err := env.Client.Devices.Release(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: env.Execution, Names: wanted, Cause: env.cause()}))
	if err != nil {
		return out, err
	}
	out.Released = append(out.Released, answer.Msg.Names...)
	return out, nil
}

// DeviceHoldIn is what device.hold takes.
type DeviceHoldIn struct {
	Module string   `json:"module"`
	Names  []string `json:"names"`
	TTL    string   `json:"ttl,omitempty" doc:"after which they are in service again; default 4h"`
	// Manifest is what each device has, for the lists of work; none: no lists.
	Manifest *Manifest `json:"manifest,omitempty"`
}

// DeviceHoldOut is what device.hold tells.
type DeviceHoldOut struct {
	Names    []string      `json:"names"`
	Installs []Installment `json:"installs" doc:"packages to remove, by device"`
	Starts   []Starting    `json:"starts" doc:"programs to stop, by device"`
	// Scripts are the undo scripts, each with the script that takes it back in turn.
	Scripts []Scripting `json:"scripts" doc:"scripts that take back what the module's scripts did, by device"`
}

// DeviceHold takes devices of a module out of service, into the execution's hands. Codes: device.unknown, device.state.
func DeviceHold(ctx context.Context, env Env, in DeviceHoldIn) (DeviceHoldOut, error) {
	out := DeviceHoldOut{Names: []string{}, Installs: []Installment{}, Starts: []Starting{}, Scripts: []Scripting{}}
	ttl, err := span("ttl", in.TTL, forget)
	if err != nil {
		return out, err
	}
	if err := known(ctx, env, in.Names); err != nil {
		return out, err
	}
	var wanted []string
	for _, name := range in.Names {
		d, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		switch {
		case err != nil:
			return out, err
		case d.State == cmdb.Held && d.Holder == env.Execution: // by an attempt before this one
		case d.State != cmdb.InService || d.Module != in.Module:
			return out, fail("device.state", "device %s is %s of module %q, not in service of %s", name, d.State, d.Module, in.Module)
		default:
			wanted = append(wanted, name)
		}
	}
	if len(wanted) > 0 {
		if _, err := env.Client.Devices.Hold(ctx, connect.NewRequest(&pb.DevicesRequest{
			Owner: env.Execution, Names: wanted, Module: in.Module, Ttl: durationpb.New(ttl), Cause: env.cause(),
		})); err != nil {
			return out, err
		}
	}
	return in.held(), nil
}

// held is the output once the devices are held.
func (in DeviceHoldIn) held() DeviceHoldOut {
	out := DeviceHoldOut{Names: append([]string{}, in.Names...), Installs: []Installment{}, Starts: []Starting{}, Scripts: []Scripting{}}
	if in.Manifest != nil {
		var scripts []Scripting
		out.Installs, scripts, out.Starts = in.Manifest.work(in.Names)
		for _, s := range scripts {
			if s.Script.Undo != "" {
				s.Script.Path, s.Script.Undo = s.Script.Undo, s.Script.Path
				out.Scripts = append(out.Scripts, s)
			}
		}
	}
	return out
}

// DeviceServeIn is what device.serve takes: also, to undo, the input of device.hold.
type DeviceServeIn struct {
	Module   string         `json:"module"`
	Names    []string       `json:"names"`
	TTL      string         `json:"ttl,omitempty"`
	Manifest *Manifest      `json:"manifest,omitempty"`
	Done     *DeviceHoldOut `json:"done,omitempty"`
}

// DeviceServe puts devices that the execution holds into service; others are passed over.
func DeviceServe(ctx context.Context, env Env, in DeviceServeIn) (DeviceHoldOut, error) {
	out := DeviceHoldOut{Names: []string{}, Installs: []Installment{}, Starts: []Starting{}, Scripts: []Scripting{}}
	var wanted []string
	for _, name := range in.Names {
		d, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		if err != nil && !isCode(err, "resource.not_found") {
			return out, err
		}
		if err == nil && d.State == cmdb.Held && d.Holder == env.Execution {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return out, nil
	}
	_, err := env.Client.Devices.Serve(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: env.Execution, Names: wanted, Module: in.Module, Cause: env.cause()}))
	out.Names = append(out.Names, wanted...)
	return out, err
}

// DeviceRepairIn is what device.repair takes.
type DeviceRepairIn struct {
	Names []string `json:"names"`
	Check bool     `json:"check,omitempty" doc:"change nothing, and fail unless all are faulty"`
}

// DeviceRepairOut is what device.repair tells.
type DeviceRepairOut struct {
	Names []string `json:"names" doc:"devices that went from faulty to idle"`
	// Devices are all that were named.
	Devices []Device `json:"devices"`
}

// DeviceRepair gives faulty devices back to the pool; those that are idle already are passed over. Codes:
// resource.not_found, device.state.
func DeviceRepair(ctx context.Context, env Env, in DeviceRepairIn) (DeviceRepairOut, error) {
	out := DeviceRepairOut{Names: []string{}, Devices: []Device{}}
	for _, name := range in.Names {
		d, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		if err != nil {
			return out, err
		}
		named, err := told(ctx, env, []cmdb.Device{d})
		if err != nil {
			return out, err
		}
		out.Devices = append(out.Devices, named...)
		if in.Check && d.State != cmdb.Faulty {
			return out, fail("device.state", "device %s is %s, not faulty; what runs on it is left alone", name, d.State)
		}
		if in.Check || d.State == cmdb.Idle {
			continue
		}
		if _, err := env.Client.Devices.Repair(ctx, connect.NewRequest(&pb.DevicesRequest{Names: []string{name}, Cause: env.cause()})); err != nil {
			return out, err
		}
		out.Names = append(out.Names, name)
	}
	return out, nil
}

// ChangeReportIn is what change.report takes.
type ChangeReportIn struct {
	Module  string   `json:"module"`
	Kind    string   `json:"kind" doc:"expand, contract, ..."`
	Devices []string `json:"devices"`
}

// ChangeReportOut is what change.report tells.
type ChangeReportOut struct {
	Key string `json:"key" doc:"of the change record"`
}

// ChangeReport writes the change record. Codes: module.unknown.
func ChangeReport(ctx context.Context, env Env, in ChangeReportIn) (ChangeReportOut, error) {
	if _, err := module(ctx, env, in.Module); err != nil {
		return ChangeReportOut{}, err
	}
	_, err := env.Client.Changes.Record(ctx, connect.NewRequest(&pb.RecordChangeRequest{
		Module: in.Module, Kind: cmp.Or(in.Kind, "change"), Devices: in.Devices, Cause: env.cause(),
	}))
	return ChangeReportOut{Key: env.Key}, err
}

// ChangeWithdrawIn is the input of change.report and what it did.
type ChangeWithdrawIn struct {
	ChangeReportIn
	Done *ChangeReportOut `json:"done,omitempty"`
}

// ChangeWithdraw marks the change record of the key as taken back; records are never removed for that.
func ChangeWithdraw(ctx context.Context, env Env, _ ChangeWithdrawIn) (ChangeReportOut, error) {
	_, err := env.Client.Changes.Undo(ctx, connect.NewRequest(&pb.RecordChangeRequest{Cause: env.cause()}))
	return ChangeReportOut{Key: env.Key}, err
}
