package tools

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// ResourceManifestIn is what resource.manifest takes.
type ResourceManifestIn struct {
	Module string `json:"module"`
}

// Manifest is all that a device of a module gets, with digests: what the tools of the device take.
type Manifest struct {
	Module      string    `json:"module"`
	Packages    []Package `json:"packages"`
	Files       []File    `json:"files" doc:"of the file source, and those of the init profile"`
	Mirror      []string  `json:"mirror" doc:"folders in which nothing else may be"`
	Configs     []string  `json:"configs" doc:"paths of the configuration files"`
	Scripts     []Script  `json:"scripts"`
	Programs    []Program `json:"programs" doc:"processes by package"`
	Processes   []Process `json:"processes" doc:"all of them"`
	Ports       []int     `json:"ports" doc:"TCP ports that the device listens on"`
	Permissions []string  `json:"permissions" doc:"service ids that the module calls"`
}

// Package is what package.install takes.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// File is what file.sync takes.
type File struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Mode   string `json:"mode,omitempty"`
}

// Script is what script.run takes.
type Script struct {
	Package string   `json:"package"`
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Timeout string   `json:"timeout"`
	Undo    string   `json:"undo"` // of the script that takes it back; empty: there is none
}

// Program is what package.start takes.
type Program struct {
	Package   string    `json:"package"`
	Processes []Process `json:"processes"`
}

// Process is one process of a program.
type Process struct {
	Name    string            `json:"name"`
	Command []string          `json:"command"`
	Count   int               `json:"count"`
	Env     map[string]string `json:"env"`
}

// ResourceManifest resolves what a module is made of. Codes: module.unknown, package.missing, file.missing,
// manifest.invalid.
func ResourceManifest(ctx context.Context, env Env, in ResourceManifestIn) (Manifest, error) {
	m, err := module(ctx, env, in.Module)
	if err != nil {
		return Manifest{}, err
	}
	out := Manifest{
		Module: m.Name, Packages: []Package{}, Files: []File{}, Mirror: []string{}, Configs: []string{}, Scripts: []Script{},
		Programs: []Program{}, Processes: []Process{}, Ports: []int{}, Permissions: append([]string{}, m.Callees()...),
	}
	for _, p := range m.Packages {
		pushed, err := control.Decode[center.Package](env.Client.Packages.Get(ctx, connect.NewRequest(&pb.PackageRequest{Name: p.Name, Version: p.Version})))
		if isCode(err, "not_found") {
			return out, fail("package.missing", "module %s wants package %s %s: zhiyun package push %s %s FILE", m.Name, p.Name, p.Version, p.Name, p.Version)
		}
		if err != nil {
			return out, err
		}
		out.Packages = append(out.Packages, Package{p.Name, p.Version, pushed.Digest})
	}
	if err := out.files(ctx, env, m); err != nil {
		return out, err
	}
	for _, c := range m.Configs {
		out.Configs = append(out.Configs, c.Path)
	}
	for _, p := range m.Ports {
		if cmp.Or(p.Protocol, "tcp") == "tcp" {
			out.Ports = append(out.Ports, p.Port)
		}
	}
	return out, out.programs(m)
}

// files resolves the file source, and takes in what the init profile lays down.
func (out *Manifest) files(ctx context.Context, env Env, m cmdb.Module) error {
	for _, spec := range m.Files {
		found, _, err := control.DecodeList[center.Mirrored](env.Client.Files.Resolve(ctx, connect.NewRequest(&pb.FileRequest{Source: spec.Source})))
		if isCode(err, "not_found") {
			return fail("file.missing", "module %s wants %s of the file source: zhiyun file push", m.Name, spec.Source)
		}
		if err != nil {
			return err
		}
		for _, f := range found {
			out.Files = append(out.Files, File{path.Join(spec.Path, f.Relative), f.Digest, spec.Mode})
		}
		if len(found) > 0 && found[0].Relative != "." {
			out.Mirror = append(out.Mirror, spec.Path)
		}
	}
	initial, err := control.Decode[[]control.InitFile](env.Client.Devices.InitFiles(ctx, connect.NewRequest(&pb.InitFilesRequest{Module: m.Name})))
	if err != nil {
		return err
	}
	for _, f := range initial {
		out.Files = append(out.Files, File{f.Path, f.Digest, f.Mode})
	}
	return nil
}

// programs groups the processes by package, in the manifest's order.
func (out *Manifest) programs(m cmdb.Module) error {
	only := ""
	if len(m.Packages) == 1 {
		only = m.Packages[0].Name
	}
	for _, s := range m.Scripts {
		pkg := cmp.Or(s.Package, only)
		if pkg == "" {
			return fail("manifest.invalid", "script %s of module %s names no package, and there is not just one; name it", s.Name, m.Name)
		}
		out.Scripts = append(out.Scripts, Script{pkg, s.Path, append([]string{}, s.Args...), time.Duration(s.Timeout).String(), s.Undo})
	}
	at := make(map[string]int)
	for _, p := range m.Processes {
		pkg := cmp.Or(p.Package, only)
		if pkg == "" {
			return fail("manifest.invalid", "process %s of module %s names no package, and there is not just one; name it", p.Name, m.Name)
		}
		process := Process{Name: p.Name, Command: append([]string{}, p.Command...), Count: max(p.Count, 1), Env: map[string]string{}}
		maps.Copy(process.Env, p.Env)
		if listen := listens(m, p.Name); listen != "" && process.Env[listenVar] == "" {
			process.Env[listenVar] = listen
		}
		i, known := at[pkg]
		if !known {
			i = len(out.Programs)
			at[pkg] = i
			out.Programs = append(out.Programs, Program{Package: pkg, Processes: []Process{}})
		}
		out.Programs[i].Processes = append(out.Programs[i].Processes, process)
		out.Processes = append(out.Processes, process)
	}
	return nil
}

// listenVar tells a process, and the agent that keeps it, on which TCP ports it serves: when it ends, callers are told.
// It is a variable, so that an agent of an earlier version takes it.
const listenVar = "ZHIYUN_LISTEN"

// listens are the TCP ports on which a process of a module serves, with commas in between: those that the manifest says are
// its own, and, if it is the only process, all others.
func listens(m cmdb.Module, process string) string {
	var ports []int
	udp := make(map[int]bool)
	for _, p := range m.Ports {
		switch {
		case p.Protocol == "udp":
			udp[p.Port] = true
		case p.Process == process, p.Process == "" && len(m.Processes) == 1:
			ports = append(ports, p.Port)
		}
	}
	for _, s := range m.Services {
		if len(m.Processes) == 1 && !udp[s.Port] {
			ports = append(ports, s.Port)
		}
	}
	slices.Sort(ports)
	var out []string
	for _, port := range slices.Compact(ports) {
		out = append(out, strconv.Itoa(port))
	}
	return strings.Join(out, ",")
}

// ConfigParamsIn is what config.params takes.
type ConfigParamsIn struct {
	Module string `json:"module"`
	Device string `json:"device"`
}

// ConfigParamsOut is what config.params tells.
type ConfigParamsOut struct {
	Device  string       `json:"device"`
	Configs []ConfigFile `json:"configs" doc:"what config.push takes"`
	Params  []Param      `json:"params" doc:"in force, secrets masked"`
}

// ConfigFile is one configuration file, rendered. One that holds a secret has no content here, so that none stays in
// the record of the flow: the device fetches the blob of its digest.
type ConfigFile struct {
	Path    string `json:"path"`
	Content string `json:"content"`
	Mode    string `json:"mode,omitempty"`
	Digest  string `json:"digest"`
}

// Param is one parameter and where it comes from.
type Param struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	From  string          `json:"from" doc:"level/owner"`
}

// ConfigParams renders what the config center has for a device. Codes: module.unknown, device.unknown, config.invalid,
// config.missing.
func ConfigParams(ctx context.Context, env Env, in ConfigParamsIn) (ConfigParamsOut, error) {
	out := ConfigParamsOut{Device: in.Device, Configs: []ConfigFile{}, Params: []Param{}}
	if _, err := module(ctx, env, in.Module); err != nil {
		return out, err
	}
	if err := known(ctx, env, []string{in.Device}); err != nil {
		return out, err
	}
	files, err := control.Decode[control.ConfigFiles](env.Client.Configs.Files(ctx, connect.NewRequest(&pb.RenderRequest{Module: in.Module, Device: in.Device})))
	switch {
	case isCode(err, "not_found"):
		return out, fail("config.missing", "%s: zhiyun config set", named(err).Message)
	case isCode(err, "invalid"):
		return out, fail("config.invalid", "%s", named(err).Message)
	case err != nil:
		return out, err
	}
	for _, f := range files.Files {
		out.Configs = append(out.Configs, ConfigFile{Path: f.Path, Content: f.Content, Mode: f.Mode, Digest: f.Digest})
	}
	for _, p := range files.Params {
		out.Params = append(out.Params, Param{p.Key, p.Value, string(p.Level) + "/" + p.Owner})
	}
	return out, nil
}

// known fails by name for a device that is not in the CMDB.
func known(ctx context.Context, env Env, devices []string) error {
	if len(devices) == 0 {
		return fail("input.invalid", "no device is named; name at least one")
	}
	for _, name := range devices {
		_, err := resource[cmdb.Device](ctx, env, cmdb.KindDevice, name)
		if isCode(err, "resource.not_found") {
			return fail("device.unknown", "no device %q; zhiyun get devices lists those there are", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
