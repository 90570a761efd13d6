package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// desired is what a device's agent compares with now. A device that is in service is compared with its module's
// manifest; one that is being deployed to, or taken away, only while it is inspected; any other with nothing.
func (a *API) desired(ctx context.Context, name string) (drift.State, string, error) {
	device, err := a.config.CMDB.Device(name)
	if err != nil {
		return drift.State{}, "", err
	}
	var state drift.State
	compared := device.State == cmdb.InService
	if device.State == cmdb.Held {
		if compared, err = a.config.Centers.Inspections.Of(ctx, name); err != nil {
			return state, "", err
		}
	}
	if compared {
		if state, _, err = a.declared(ctx, name); err != nil {
			return state, "", err
		}
		if err := a.direct(ctx, device, &state); err != nil {
			return state, "", err
		}
	}
	encoded, err := json.Marshal(state)
	if err != nil {
		return state, "", fmt.Errorf("control: encode the declared state of %s: %w", name, err)
	}
	sum := sha256.Sum256(encoded)
	return state, hex.EncodeToString(sum[:8]), nil
}

// direct adds what people and the rest of the fleet have to say about repairs.
func (a *API) direct(ctx context.Context, device cmdb.Device, state *drift.State) error {
	if a.config.Drift != nil {
		directives, err := a.config.Drift.Directives(ctx, device.Name)
		if err != nil {
			return err
		}
		state.Holds, state.Orders = directives.Holds, directives.Orders
	}
	if device.State == cmdb.Held {
		state.Holds = append(state.Holds, drift.Hold{Verdict: drift.Deploying, By: device.Holder, Reason: "held by " + device.Holder})
	}
	state.Modes = a.config.DriftModes(device.Module)
	paused, is, err := a.config.Centers.Pause.Of(ctx, device.Module)
	if err != nil {
		return err
	}
	if is {
		state.Modes = make(map[drift.Kind]drift.Mode)
		for _, kind := range drift.Kinds() {
			state.Modes[kind] = drift.Observe
		}
		state.Holds = append(state.Holds, drift.Hold{Verdict: drift.Override, By: paused.Actor, Reason: "automation is paused: " + paused.Reason})
	}
	return nil
}

// declared computes what a device of its module should be, whatever the device's state.
func (a *API) declared(ctx context.Context, name string) (drift.State, cmdb.Module, error) {
	var state drift.State
	device, err := a.config.CMDB.Device(name)
	if err != nil {
		return state, cmdb.Module{}, err
	}
	if device.Module == "" {
		return state, cmdb.Module{}, nil
	}
	module, err := a.config.CMDB.Module(device.Module)
	if err != nil {
		return state, module, err
	}
	state.Files = make(map[string]drift.File)
	for _, p := range module.Packages {
		if err := a.declarePackage(ctx, &state, p); err != nil {
			return state, module, fmt.Errorf("package %s %s of module %s: %w", p.Name, p.Version, module.Name, err)
		}
	}
	for _, spec := range module.Files {
		if err := a.declareFile(ctx, &state, spec); err != nil {
			return state, module, fmt.Errorf("file %s of module %s: %w", spec.Path, module.Name, err)
		}
	}
	initial, err := a.initFiles(module)
	if err != nil {
		return state, module, err
	}
	for _, file := range initial {
		mode, err := perm(file.Mode)
		if err != nil {
			return state, module, err
		}
		// What is declared can be fetched: a repair may be the first to ask for it.
		if _, err := a.config.Centers.Blobs.Keep(ctx, file.content); err != nil {
			return state, module, err
		}
		state.Files[file.Path] = drift.File{Kind: drift.KindFile, Digest: file.Digest, Size: int64(len(file.content)), Mode: mode}
	}
	rendered, err := a.renderAll(ctx, device, module)
	if err != nil {
		return state, module, err
	}
	for i, file := range rendered {
		mode, err := perm(module.Configs[i].Mode)
		if err != nil {
			return state, module, err
		}
		if _, err := a.config.Centers.Blobs.Keep(ctx, file.Body); err != nil {
			return state, module, err
		}
		state.Files[module.Configs[i].Path] = drift.File{
			Kind: drift.KindConfig, Digest: file.Digest, Size: int64(len(file.Body)), Mode: mode, PerDevice: true,
		}
	}
	for _, p := range module.Processes {
		process := drift.Process{Name: p.Name, Count: p.Count, PerDevice: true}
		if len(p.Command) > 0 {
			process.Exe = path.Base(p.Command[0])
		}
		state.Processes = append(state.Processes, process)
	}
	for _, p := range module.Ports {
		state.Ports = append(state.Ports, drift.Port{Proto: p.Protocol, Port: device.Port(p.Port), Process: p.Process})
	}
	return state, module, nil
}

// packageDir is where a device keeps a version of a package.
func packageDir(p center.Package) string {
	return path.Join("pkg", p.Name, p.Version+"-"+strings.TrimPrefix(p.Digest, center.DigestPrefix)[:8])
}

func (a *API) declarePackage(ctx context.Context, state *drift.State, spec cmdb.PackageSpec) error {
	p, err := a.config.Centers.Packages.Get(ctx, spec.Name, spec.Version)
	if err != nil {
		return err
	}
	dir := packageDir(p)
	for _, file := range p.Files {
		at := path.Join(dir, file.Path)
		switch file.Kind {
		case center.EntryFile:
			state.Files[at] = drift.File{Kind: drift.KindPackage, Digest: file.Digest, Size: file.Size, Mode: drift.Perm(file.Mode), Source: p.Digest}
		case center.EntryLink:
			state.Files[at] = drift.File{Kind: drift.KindPackage, Type: drift.Link, Link: file.Target}
		}
	}
	state.Files[path.Join("pkg", p.Name, "current")] = drift.File{Kind: drift.KindPackage, Type: drift.Link, Link: path.Base(dir)}
	return nil
}

func (a *API) declareFile(ctx context.Context, state *drift.State, spec cmdb.FileSpec) error {
	sources, err := a.config.Centers.Files.Resolve(ctx, spec.Source)
	if err != nil {
		return err
	}
	mode, err := perm(spec.Mode)
	if err != nil {
		return err
	}
	for _, source := range sources {
		at := path.Join(spec.Path, source.Relative)
		state.Files[at] = drift.File{Kind: drift.KindFile, Digest: source.Digest, Size: source.Size, Mode: mode}
		if source.Relative != "." && len(state.Exact.Dirs) == 0 || source.Relative != "." && state.Exact.Dirs[len(state.Exact.Dirs)-1] != spec.Path {
			state.Exact.Dirs = append(state.Exact.Dirs, spec.Path)
		}
	}
	return nil
}

func perm(mode string) (drift.Perm, error) {
	if mode == "" {
		return 0o644, nil
	}
	n, err := strconv.ParseUint(mode, 8, 12)
	if err != nil {
		return 0, rpc.Invalid("mode", mode, "give octal digits, as in 0644")
	}
	return drift.Perm(n), nil
}

// renderAll renders the configuration files of a device, in the manifest's order, secrets revealed.
func (a *API) renderAll(ctx context.Context, device cmdb.Device, module cmdb.Module) ([]center.Rendered, error) {
	scope, err := a.scope(device, module)
	if err != nil {
		return nil, err
	}
	out := make([]center.Rendered, len(module.Configs))
	for i, spec := range module.Configs {
		if out[i], err = a.config.Centers.Configs.Render(ctx, spec.Template, scope, true); err != nil {
			return nil, fmt.Errorf("configuration %s of module %s on %s: %w", spec.Path, module.Name, device.Name, err)
		}
	}
	return out, nil
}

// scope is what a template of a module may read on a device.
func (a *API) scope(device cmdb.Device, module cmdb.Module) (center.Scope, error) {
	facts := map[string]any{"default": module.Params}
	for name, object := range map[string]any{"module": module, "device": device} {
		fact, err := fact(object)
		if err != nil {
			return center.Scope{}, err
		}
		facts[name] = fact
	}
	if device.Name == "" {
		delete(facts, "device")
	} else {
		// How a device stands in its life changes while it works; a file that showed it would never be as declared.
		fresh := facts["device"].(map[string]any)
		fresh["port_offset"] = device.PortOffset // also where it is 0
		for _, field := range []string{"state", "since", "holder", "held_until", "held_from", "fault", "acquired", "meta"} {
			delete(fresh, field)
		}
	}
	if m, ok := facts["module"].(map[string]any); ok {
		delete(m, "meta")
	}
	return center.Scope{Business: module.Business, Module: module.Name, Site: device.Site, Device: device.Name, Facts: facts}, nil
}

// fact is an object as a template reads it: by the names of its document.
func fact(object any) (map[string]any, error) {
	encoded, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("control: facts for templates: %w", err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(encoded)))
	decoder.UseNumber()
	var out map[string]any
	if err := decoder.Decode(&out); err != nil {
		return nil, fmt.Errorf("control: facts for templates: %w", err)
	}
	return out, nil
}
