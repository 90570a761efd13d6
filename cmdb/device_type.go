package cmdb

// DeviceType is a hardware model. How many requests a device of it can serve is said by each module.
type DeviceType struct {
	Name     string            `json:"name"`
	Title    string            `json:"title,omitempty"`
	Cores    int               `json:"cores"`
	MemoryMB int               `json:"memory_mb,omitempty"`
	DiskGB   int               `json:"disk_gb,omitempty"`
	NICMbps  int               `json:"nic_mbps,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Meta     Meta              `json:"meta,omitzero"`
}

// Ref implements Object.
func (t *DeviceType) Ref() Ref { return Ref{KindDeviceType, t.Name} }

// Metadata implements Object.
func (t *DeviceType) Metadata() Meta { return t.Meta }

func (t *DeviceType) meta() *Meta    { return &t.Meta }
func (t *DeviceType) copied() Object { c := *t; return &c }

func (t *DeviceType) check(c *checker) {
	c.name("name", t.Name)
	c.between("cores", t.Cores, 1, 65536)
	c.between("memory_mb", t.MemoryMB, 0, 1<<40)
	c.between("disk_gb", t.DiskGB, 0, 1<<40)
	c.between("nic_mbps", t.NICMbps, 0, 1<<40)
	c.labels("labels", t.Labels)
}
