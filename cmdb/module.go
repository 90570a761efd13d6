package cmdb

import (
	"slices"

	"github.com/zhiyun-ops/zhiyun/internal/state"
)

// Module is a business module (业务模块): one program of a service with all that it depends on. Its manifest
// is the whole truth of how a device that runs it must look; the layer of each field stands in its tag.
// What ops and developers keep comes first, what developers and testers keep is Tests and Gray.
type Module struct {
	Name     string            `json:"name" layer:"business"`
	Title    string            `json:"title,omitempty" layer:"business"`
	Business string            `json:"business,omitempty" layer:"business"`
	Owner    string            `json:"owner,omitempty" layer:"business"`
	Labels   map[string]string `json:"labels,omitempty" layer:"business"`

	Scale ScaleSpec `json:"scale,omitzero" layer:"hardware"`

	InitProfile string `json:"init_profile,omitempty" layer:"os"`

	Packages  []PackageSpec `json:"packages,omitempty" layer:"program"`
	Scripts   []ScriptSpec  `json:"scripts,omitempty" layer:"program"`
	Processes []ProcessSpec `json:"processes,omitempty" layer:"program"`
	Ports     []PortSpec    `json:"ports,omitempty" layer:"program"`

	Files   []FileSpec        `json:"files,omitempty" layer:"config"`
	Configs []ConfigSpec      `json:"configs,omitempty" layer:"config"`
	Params  map[string]string `json:"params,omitempty" layer:"config"` // defaults for templates

	Services     []ServiceSpec     `json:"services,omitempty" layer:"external"`
	VirtualAddrs []VirtualAddrSpec `json:"virtual_addrs,omitempty" layer:"external"`
	Permissions  []string          `json:"permissions,omitempty" layer:"external"` // service ids that it calls

	Tests []TestSpec `json:"tests,omitempty" layer:"program"`
	Gray  GraySpec   `json:"gray,omitzero" layer:"external"`
	Drift DriftSpec  `json:"drift,omitzero" layer:"program"`

	Meta Meta `json:"meta,omitzero"`
}

// Ref implements Object.
func (m *Module) Ref() Ref { return Ref{KindModule, m.Name} }

// Metadata implements Object.
func (m *Module) Metadata() Meta { return m.Meta }

func (m *Module) meta() *Meta    { return &m.Meta }
func (m *Module) copied() Object { c := *m; return &c }

func (m *Module) provides() []Ref {
	refs := make([]Ref, 0, len(m.Services))
	for _, s := range m.Services {
		refs = append(refs, Ref{kindService, s.ID})
	}
	return refs
}

func (m *Module) references() []reference {
	var refs []reference
	if m.Business != "" {
		refs = append(refs, reference{"business", Ref{KindBusiness, m.Business}})
	}
	if m.InitProfile != "" {
		refs = append(refs, reference{"init_profile", Ref{KindInitProfile, m.InitProfile}})
	}
	for i, site := range m.Scale.Sites {
		refs = append(refs, reference{at("scale.sites", i, ""), Ref{KindSite, site}})
	}
	for i, t := range m.Scale.Types {
		refs = append(refs, reference{at("scale.types", i, ""), Ref{KindDeviceType, t}})
	}
	for _, t := range sortedKeys(m.Scale.Capacity) {
		refs = append(refs, reference{"scale.capacity." + t, Ref{KindDeviceType, t}})
	}
	for i, id := range m.Permissions {
		refs = append(refs, reference{at("permissions", i, ""), Ref{kindService, id}})
	}
	return refs
}

// Callees are the service ids that the module calls: its permissions, each once.
func (m *Module) Callees() []string {
	out := slices.Clone(m.Permissions)
	slices.Sort(out)
	return slices.Compact(out)
}

// Service returns the declaration of a service id that the module provides.
func (m *Module) Service(id string) (ServiceSpec, bool) {
	i := slices.IndexFunc(m.Services, func(s ServiceSpec) bool { return s.ID == id })
	if i < 0 {
		return ServiceSpec{}, false
	}
	return m.Services[i], true
}

// byService files a module under the service ids that it provides.
func byService() state.TableOption[Module] {
	return state.Index("provides", func(m *Module) []string {
		ids := make([]string, len(m.Services))
		for i, s := range m.Services {
			ids[i] = s.ID
		}
		return ids
	})
}
