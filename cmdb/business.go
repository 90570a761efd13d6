package cmdb

// Business is what a set of modules is for: the view from above (业务视图).
type Business struct {
	Name    string            `json:"name"`
	Title   string            `json:"title,omitempty"`
	Owner   string            `json:"owner"`
	Parent  string            `json:"parent,omitempty"` // another business
	Metrics []MetricSpec      `json:"metrics,omitempty"`
	DR      *DRSpec           `json:"dr,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Meta    Meta              `json:"meta,omitzero"`
}

// MetricSpec is a number by which a business is judged (业务指标).
type MetricSpec struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit,omitempty"`
	Target float64 `json:"target,omitempty"`
}

// DRSpec is how a business is spread so as to outlive a disaster (容灾调度).
type DRSpec struct {
	Cities []string `json:"cities,omitempty"` // that must each hold a share
	Sites  []string `json:"sites,omitempty"`  // that must each hold a share
}

// Ref implements Object.
func (b *Business) Ref() Ref { return Ref{KindBusiness, b.Name} }

// Metadata implements Object.
func (b *Business) Metadata() Meta { return b.Meta }

func (b *Business) meta() *Meta    { return &b.Meta }
func (b *Business) copied() Object { c := *b; return &c }

func (b *Business) references() []reference {
	var refs []reference
	if b.Parent != "" {
		refs = append(refs, reference{"parent", Ref{KindBusiness, b.Parent}})
	}
	if b.DR != nil {
		for i, site := range b.DR.Sites {
			refs = append(refs, reference{at("dr.sites", i, ""), Ref{KindSite, site}})
		}
	}
	return refs
}

func (b *Business) check(c *checker) {
	c.name("name", b.Name)
	c.required("owner", b.Owner)
	if b.Parent != "" && b.Parent == b.Name {
		c.fault("parent", b.Parent, "is the business itself", "name another business, or leave it out")
	}
	for i, m := range b.Metrics {
		c.required(at("metrics", i, "name"), m.Name)
	}
	unique(c, "metrics", b.Metrics, "name", func(m MetricSpec) string { return m.Name })
	c.labels("labels", b.Labels)
}
