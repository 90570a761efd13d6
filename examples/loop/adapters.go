package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// weights lets gray set shares in the name service: gray.Weights over l5. A member is an instance, by its address.
type weights struct{ names *server.Server }

func (w weights) SetShares(ctx context.Context, service string, shares map[string]int, fence int64) error {
	return w.names.SetShare(ctx, service, shares, server.Fence(fence))
}

func (w weights) Shares(_ context.Context, service string) (map[string]int, error) {
	shares := make(map[string]int)
	for _, instance := range w.names.Instances(service) {
		shares[instance.Addr] = instance.Share
	}
	return shares, nil
}

// pool shows scale the modules and the free devices: scale.Modules and scale.Candidates over cmdb and l5.
type pool struct {
	cmdb  *cmdb.DB
	names *server.Server
}

func (p pool) Modules(context.Context) ([]scale.Module, error) {
	var modules []scale.Module
	for _, m := range p.cmdb.Modules() {
		out := scale.Module{
			Name: m.Name, Min: m.Scale.Min, Max: m.Scale.Max, Capacity: m.Scale.Capacity,
			Policy: scale.Policy{
				Target: 0.75, High: 0.9, NoForecast: true, ReactWithin: time.Second, StaleAfter: 3 * time.Second,
				InAfter: 1500 * time.Millisecond, InStep: devices, Cooldown: time.Second, CooldownIn: time.Second, Backoff: time.Second,
			},
		}
		shares := make(map[string]int)
		for _, instance := range p.names.Instances(m.Name) {
			shares[instance.Device] = instance.Share
		}
		for _, d := range p.cmdb.Devices(cmdb.DeviceFilter{Module: m.Name}) {
			device := scale.Device{Name: d.Name, Site: d.Site, City: "shenzhen", Type: d.Type, Since: d.Since, Share: shares[d.Name]}
			switch {
			case d.State == cmdb.InService:
				out.Serving = append(out.Serving, device)
			case d.State == cmdb.Held && d.HeldFrom == cmdb.InService:
				out.Serving, out.Leaving = append(out.Serving, device), append(out.Leaving, d.Name)
			case d.State == cmdb.Held:
				out.Pending = append(out.Pending, device)
			}
		}
		modules = append(modules, out)
	}
	return modules, nil
}

func (p pool) Idle(context.Context) ([]scale.Candidate, error) {
	var idle []scale.Candidate
	for _, d := range p.cmdb.Devices(cmdb.DeviceFilter{State: cmdb.Idle}) {
		idle = append(idle, scale.Candidate{Name: d.Name, Site: d.Site, City: "shenzhen", Type: d.Type})
	}
	return idle, nil
}

// launcher carries out orders as flows: scale.Launcher over flow. The order's key is the start's, so that an order
// that is launched twice runs once.
type launcher struct{ engine *flow.Engine }

func (l launcher) Launch(ctx context.Context, o scale.Order) (string, error) {
	name := "expand"
	if o.Direction == scale.In {
		name = "contract"
	}
	return l.engine.Start(ctx, name, map[string]any{"module": o.Module, "devices": o.Names()},
		flow.Key(o.Key), flow.By("scale"), flow.Because(o.Reason.String()))
}

func (l launcher) State(ctx context.Context, id string) (scale.Progress, error) {
	x, err := l.engine.Get(ctx, id)
	switch {
	case err != nil:
		return "", err
	case x.State == flow.Done:
		return scale.Done, nil
	case x.State.Ended():
		return scale.Failed, nil
	}
	return scale.Underway, nil
}

// config is what a serving device has at configPath.
const (
	config     = "workers = 4\n"
	configPath = "etc/cart.conf"
)

// declaration is what a device should be: drift.Desired over cmdb. A device that serves nothing has nothing.
type declaration struct {
	cmdb   *cmdb.DB
	device string
}

func (d declaration) Desired(context.Context) (drift.State, string, error) {
	device, err := d.cmdb.Device(d.device)
	if err != nil || device.State != cmdb.InService {
		return drift.State{}, "none", nil // also before the device is declared
	}
	return drift.State{Files: map[string]drift.File{
		configPath: {Kind: drift.KindConfig, Digest: drift.Digest([]byte(config)), Mode: 0o644},
	}}, device.Module, nil
}

// Changed never tells: the agent asks with each rescan.
func (declaration) Changed() <-chan struct{} { return nil }

// repairer puts the configuration back: drift.Repairer.
type repairer struct {
	fleet  *fleet
	device string
}

func (r repairer) Repair(_ context.Context, f drift.Finding) error {
	if f.Subject != configPath {
		return drift.ErrCannotRepair
	}
	return r.fleet.writeConfig(r.device)
}

// writeConfig writes beside the file and renames, so that nobody reads half of it.
func (f *fleet) writeConfig(device string) error {
	path := f.path(device, configPath)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(config), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
