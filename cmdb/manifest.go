package cmdb

import (
	"net"
	"slices"
	"strconv"
)

// ServiceSpec is a service id under which the module's devices are registered.
type ServiceSpec struct {
	ID     string `json:"id"`
	Port   int    `json:"port"`
	Weight int    `json:"weight,omitempty"` // of a whole device, 1..1000; default 100
}

// VirtualAddrSpec is an address in front of the module's devices.
type VirtualAddrSpec struct {
	Name string `json:"name"`
	Addr string `json:"addr"` // host:port that clients dial
	Port int    `json:"port"` // on each device
}

// PackageSpec is a package of the package store.
type PackageSpec struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// FileSpec is a file or a folder of the central file source.
type FileSpec struct {
	Source string `json:"source"`         // in the file source
	Path   string `json:"path"`           // on the device, below its root
	Mode   string `json:"mode,omitempty"` // octal, default 0644
}

// ConfigSpec is a file rendered from a template of the config center.
type ConfigSpec struct {
	Template string `json:"template"`
	Path     string `json:"path"`           // on the device, below its root
	Mode     string `json:"mode,omitempty"` // octal, default 0644
}

// ScriptSpec is a program run once, after files and configuration are in place.
type ScriptSpec struct {
	Name    string   `json:"name"`
	Package string   `json:"package,omitempty"` // that Path lies in
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Timeout Duration `json:"timeout,omitzero"` // default 1m
	// Undo is the path of the script in the same package that takes back what this one did, when the device leaves the
	// module. It may be run where nothing is left to take back. Empty: there is nothing to take back.
	Undo string `json:"undo,omitempty"`
}

// ProcessSpec is a process that must run.
type ProcessSpec struct {
	Name    string            `json:"name"`
	Package string            `json:"package,omitempty"` // that the command lies in
	Command []string          `json:"command"`
	Env     map[string]string `json:"env,omitempty"`
	Count   int               `json:"count,omitempty"` // default 1
}

// PortSpec is a port on which the device must listen.
type PortSpec struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol,omitempty"` // tcp (default) or udp
	Process  string `json:"process,omitempty"`  // that listens
}

// TestSpec is one automated test that a new device must pass.
type TestSpec struct {
	Name    string   `json:"name,omitempty"` // default: the kind, with what it tests
	Kind    string   `json:"kind"`           // tcp, http or l5
	Port    int      `json:"port,omitempty"`
	Path    string   `json:"path,omitempty"`    // http: default /
	Service string   `json:"service,omitempty"` // l5
	Status  int      `json:"status,omitempty"`  // http: default 200
	Body    string   `json:"body,omitempty"`    // http: text that the answer must contain
	Timeout Duration `json:"timeout,omitzero"`  // default 5s
}

// ScaleSpec bounds and steers how many devices the module has.
type ScaleSpec struct {
	Min      int                `json:"min,omitempty"`      // devices in service
	Max      int                `json:"max,omitempty"`      // 0: no bound
	Capacity map[string]float64 `json:"capacity,omitempty"` // requests a second that one device of a type serves
	Loss     float64            `json:"loss,omitempty"`     // share of requests that may be lost, 0..1
	City     string             `json:"city,omitempty"`     // preferred
	Sites    []string           `json:"sites,omitempty"`    // preferred, best first
	Types    []string           `json:"types,omitempty"`    // allowed, best first; none: every type with a capacity
	Params   map[string]string  `json:"params,omitempty"`   // overrides of the decider's numbers, such as react_within: 10s
}

// GraySpec says how new devices are taken to full weight.
type GraySpec struct {
	Policy string            `json:"policy,omitempty"` // name of a policy
	Params map[string]string `json:"params,omitempty"` // overrides of the policy's numbers
}

// DriftSpec says what is done about differences on the module's devices. Nothing is repaired unless told to.
type DriftSpec struct {
	Mode  string            `json:"mode,omitempty"`  // observe (default) or repair
	Modes map[string]string `json:"modes,omitempty"` // the same by kind: file, config, package, process, port
}

func (m *Module) normalize() {
	for i := range m.Services {
		defaultTo(&m.Services[i].Weight, 100)
	}
	for i := range m.Files {
		defaultTo(&m.Files[i].Mode, "0644")
	}
	for i := range m.Configs {
		defaultTo(&m.Configs[i].Mode, "0644")
	}
	for i := range m.Scripts {
		defaultTo(&m.Scripts[i].Timeout, Duration(minute))
	}
	for i := range m.Processes {
		defaultTo(&m.Processes[i].Count, 1)
	}
	for i := range m.Ports {
		defaultTo(&m.Ports[i].Protocol, "tcp")
	}
	for i := range m.Tests {
		t := &m.Tests[i]
		defaultTo(&t.Timeout, Duration(5*second))
		if t.Kind == "http" {
			defaultTo(&t.Path, "/")
			defaultTo(&t.Status, 200)
		}
		defaultTo(&t.Name, t.label())
	}
}

func (t *TestSpec) label() string {
	switch t.Kind {
	case "http":
		return "http:" + strconv.Itoa(t.Port) + t.Path
	case "l5":
		return "l5:" + t.Service
	}
	return t.Kind + ":" + strconv.Itoa(t.Port)
}

func (m *Module) check(c *checker) {
	c.name("name", m.Name)
	c.labels("labels", m.Labels)
	m.checkScale(c)
	m.checkProgram(c)
	m.checkConfig(c)
	m.checkExternal(c)
	m.checkTests(c)
	m.checkDrift(c)
}

func (m *Module) checkDrift(c *checker) {
	if m.Drift.Mode != "" {
		c.oneOf("drift.mode", m.Drift.Mode, "observe", "repair")
	}
	for _, kind := range sortedKeys(m.Drift.Modes) {
		c.oneOf("drift.modes", kind, "file", "config", "package", "process", "port")
		c.oneOf("drift.modes."+kind, m.Drift.Modes[kind], "observe", "repair")
	}
}

func (m *Module) checkScale(c *checker) {
	c.between("scale.min", m.Scale.Min, 0, 1_000_000)
	c.between("scale.max", m.Scale.Max, 0, 1_000_000)
	if m.Scale.Max > 0 && m.Scale.Max < m.Scale.Min {
		c.fault("scale.max", strconv.Itoa(m.Scale.Max), "is below scale.min", "give at least "+strconv.Itoa(m.Scale.Min)+", or leave it out for no bound")
	}
	if m.Scale.Loss < 0 || m.Scale.Loss > 1 {
		c.fault("scale.loss", number(m.Scale.Loss), "is not a share", "give a number from 0 to 1, such as 0.001")
	}
	for _, t := range sortedKeys(m.Scale.Capacity) {
		if v := m.Scale.Capacity[t]; !(v > 0 && v < 1e12) {
			c.fault("scale.capacity."+t, number(v), "is no capacity", "give the requests a second that one device serves, above 0")
		}
	}
	unique(c, "scale.types", m.Scale.Types, "", func(t string) string { return t })
	unique(c, "scale.sites", m.Scale.Sites, "", func(s string) string { return s })
}

func (m *Module) checkProgram(c *checker) {
	for i, p := range m.Packages {
		c.name(at("packages", i, "name"), p.Name)
		c.required(at("packages", i, "version"), p.Version)
	}
	unique(c, "packages", m.Packages, "name", func(p PackageSpec) string { return p.Name })
	for i, s := range m.Scripts {
		c.required(at("scripts", i, "name"), s.Name)
		c.path(at("scripts", i, "path"), s.Path)
		if s.Undo != "" {
			c.path(at("scripts", i, "undo"), s.Undo)
		}
		m.checkPackage(c, at("scripts", i, "package"), s.Package)
		c.positive(at("scripts", i, "timeout"), s.Timeout)
	}
	unique(c, "scripts", m.Scripts, "name", func(s ScriptSpec) string { return s.Name })
	for i, p := range m.Processes {
		c.name(at("processes", i, "name"), p.Name)
		if len(p.Command) == 0 || p.Command[0] == "" {
			c.fault(at("processes", i, "command"), "", "is empty", "give the program and its arguments as a list")
		}
		c.between(at("processes", i, "count"), p.Count, 1, 10_000)
		m.checkPackage(c, at("processes", i, "package"), p.Package)
	}
	unique(c, "processes", m.Processes, "name", func(p ProcessSpec) string { return p.Name })
	for i, p := range m.Ports {
		c.port(at("ports", i, "port"), p.Port)
		c.oneOf(at("ports", i, "protocol"), p.Protocol, "tcp", "udp")
		if p.Process != "" && !slices.ContainsFunc(m.Processes, func(q ProcessSpec) bool { return q.Name == p.Process }) {
			c.fault(at("ports", i, "process"), p.Process, "names no process of this module", "declare it under processes, or leave it out")
		}
	}
	unique(c, "ports", m.Ports, "port", func(p PortSpec) string { return p.Protocol + "/" + strconv.Itoa(p.Port) })
}

func (m *Module) checkPackage(c *checker, field, name string) {
	if name != "" && !slices.ContainsFunc(m.Packages, func(p PackageSpec) bool { return p.Name == name }) {
		c.fault(field, name, "names no package of this module", "declare it under packages")
	}
}

func (m *Module) checkConfig(c *checker) {
	type target struct{ path string }
	var targets []target
	for i, f := range m.Files {
		c.required(at("files", i, "source"), f.Source)
		c.path(at("files", i, "path"), f.Path)
		c.mode(at("files", i, "mode"), f.Mode)
		targets = append(targets, target{f.Path})
	}
	for i, f := range m.Configs {
		c.required(at("configs", i, "template"), f.Template)
		c.path(at("configs", i, "path"), f.Path)
		c.mode(at("configs", i, "mode"), f.Mode)
		targets = append(targets, target{f.Path})
	}
	unique(c, "files and configs", targets, "path", func(t target) string { return t.path })
}

func (m *Module) checkExternal(c *checker) {
	for i, s := range m.Services {
		c.name(at("services", i, "id"), s.ID)
		c.port(at("services", i, "port"), s.Port)
		c.between(at("services", i, "weight"), s.Weight, 1, 1000)
	}
	unique(c, "services", m.Services, "id", func(s ServiceSpec) string { return s.ID })
	for i, v := range m.VirtualAddrs {
		c.name(at("virtual_addrs", i, "name"), v.Name)
		c.port(at("virtual_addrs", i, "port"), v.Port)
		if _, port, err := net.SplitHostPort(v.Addr); err != nil || port == "" {
			c.fault(at("virtual_addrs", i, "addr"), v.Addr, "is not host:port", "give what clients dial, such as 10.0.0.1:80")
		}
	}
	unique(c, "virtual_addrs", m.VirtualAddrs, "name", func(v VirtualAddrSpec) string { return v.Name })
	for i, id := range m.Permissions {
		c.name(at("permissions", i, ""), id)
	}
	unique(c, "permissions", m.Permissions, "", func(id string) string { return id })
}

func (m *Module) checkTests(c *checker) {
	for i, t := range m.Tests {
		c.oneOf(at("tests", i, "kind"), t.Kind, "tcp", "http", "l5")
		switch t.Kind {
		case "tcp", "http":
			c.port(at("tests", i, "port"), t.Port)
		case "l5":
			if _, ok := m.Service(t.Service); !ok {
				c.fault(at("tests", i, "service"), t.Service, "names no service of this module", "declare it under services")
			}
		}
		if t.Kind == "http" {
			c.between(at("tests", i, "status"), t.Status, 100, 599)
		}
		c.positive(at("tests", i, "timeout"), t.Timeout)
	}
	unique(c, "tests", m.Tests, "name", func(t TestSpec) string { return t.Name })
}
