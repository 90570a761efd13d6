package cmdb

// Site is a data centre (IDC): a place that fails, fills and is preferred as a whole.
type Site struct {
	Name   string            `json:"name"`
	Title  string            `json:"title,omitempty"`
	City   string            `json:"city"`             // sites of one city are near one another
	Zone   string            `json:"zone,omitempty"`   // network zone or carrier
	Labels map[string]string `json:"labels,omitempty"` // free
	Meta   Meta              `json:"meta,omitzero"`
}

// Ref implements Object.
func (s *Site) Ref() Ref { return Ref{KindSite, s.Name} }

// Metadata implements Object.
func (s *Site) Metadata() Meta { return s.Meta }

func (s *Site) meta() *Meta    { return &s.Meta }
func (s *Site) copied() Object { c := *s; return &c }

func (s *Site) check(c *checker) {
	c.name("name", s.Name)
	c.required("city", s.City)
	c.labels("labels", s.Labels)
}
