package cmdb

// InitProfile says how a device's system is before any module is put on it (系统初始化): the OS layer.
type InitProfile struct {
	Name    string            `json:"name"`
	Title   string            `json:"title,omitempty"`
	OS      string            `json:"os,omitempty"`      // e.g. "linux"
	Kernel  string            `json:"kernel,omitempty"`  // least version, e.g. "6.1"
	Sysctls map[string]string `json:"sysctls,omitempty"` // kernel parameters by their dotted name
	Users   []UserSpec        `json:"users,omitempty"`
	Limits  map[string]int64  `json:"limits,omitempty"` // by name, e.g. nofile
	Dirs    []DirSpec         `json:"dirs,omitempty"`
	Meta    Meta              `json:"meta,omitzero"`
}

// UserSpec is an account that a device must have.
type UserSpec struct {
	Name   string   `json:"name"`
	UID    int      `json:"uid,omitempty"` // 0: the system chooses
	Groups []string `json:"groups,omitempty"`
	Shell  string   `json:"shell,omitempty"`
}

// DirSpec is a directory that a device must have.
type DirSpec struct {
	Path string `json:"path"`
	Mode string `json:"mode,omitempty"` // octal, default 0755
}

// Ref implements Object.
func (p *InitProfile) Ref() Ref { return Ref{KindInitProfile, p.Name} }

// Metadata implements Object.
func (p *InitProfile) Metadata() Meta { return p.Meta }

func (p *InitProfile) meta() *Meta    { return &p.Meta }
func (p *InitProfile) copied() Object { c := *p; return &c }

func (p *InitProfile) normalize() {
	for i := range p.Dirs {
		if p.Dirs[i].Mode == "" {
			p.Dirs[i].Mode = "0755"
		}
	}
}

func (p *InitProfile) check(c *checker) {
	c.name("name", p.Name)
	for i, u := range p.Users {
		c.required(at("users", i, "name"), u.Name)
		c.between(at("users", i, "uid"), u.UID, 0, 1<<31-1)
	}
	for i, d := range p.Dirs {
		c.path(at("dirs", i, "path"), d.Path)
		c.mode(at("dirs", i, "mode"), d.Mode)
	}
	unique(c, "users", p.Users, "name", func(u UserSpec) string { return u.Name })
	unique(c, "dirs", p.Dirs, "path", func(d DirSpec) string { return d.Path })
}
