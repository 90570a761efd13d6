package cmdb

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/state"
)

// Device is a host (设备). A document declares what it is; State and the fields below it are changed by the
// life cycle's verbs only.
type Device struct {
	Name string `json:"name"`
	Addr string `json:"addr"` // IPv4 or IPv6, without port
	Site string `json:"site"`
	Type string `json:"type"`
	// PortOffset is added to every port that a module's manifest names, on this device: for devices that share an address.
	// 0 to 50000.
	PortOffset int               `json:"port_offset,omitempty"`
	Serial     string            `json:"serial,omitempty"` // asset number
	Labels     map[string]string `json:"labels,omitempty"`

	State       State     `json:"state" life:"yes"`
	Since       time.Time `json:"since,omitzero" life:"yes"`        // it is in State
	Module      string    `json:"module,omitempty" life:"yes"`      // held for, or in service of
	Holder      string    `json:"holder,omitempty" life:"yes"`      // held: by whom, such as an execution's id
	HeldUntil   time.Time `json:"held_until,omitzero" life:"yes"`   // held: then it goes back
	HeldFrom    State     `json:"held_from,omitempty" life:"yes"`   // held: where it goes back to at expiry
	Fault       string    `json:"fault,omitempty" life:"yes"`       // faulty: what was seen
	Acquisition string    `json:"acquisition,omitempty" life:"yes"` // the one that took it, "owner/key"; kept in service
	Meta        Meta      `json:"meta,omitzero"`
}

const maxPortOffset = 50_000

// Port is the port on this device that a module's manifest calls port.
func (d *Device) Port(port int) int { return port + d.PortOffset }

// Ref implements Object.
func (d *Device) Ref() Ref { return Ref{KindDevice, d.Name} }

// Metadata implements Object.
func (d *Device) Metadata() Meta { return d.Meta }

func (d *Device) meta() *Meta    { return &d.Meta }
func (d *Device) copied() Object { c := *d; return &c }

func (d *Device) normalize() { defaultTo(&d.State, Idle) }

func (d *Device) references() []reference {
	refs := []reference{
		{"site", Ref{KindSite, d.Site}},
		{"type", Ref{KindDeviceType, d.Type}},
	}
	if d.Module != "" {
		refs = append(refs, reference{"module", Ref{KindModule, d.Module}})
	}
	return refs
}

func (d *Device) check(c *checker) {
	c.name("name", d.Name)
	if addr, err := netip.ParseAddr(d.Addr); err != nil {
		c.fault("addr", d.Addr, "is not an IP address", "give one without a port, such as 10.1.2.3 or fd00::1")
	} else if addr.Unmap().IsUnspecified() || addr.Unmap().IsMulticast() {
		c.fault("addr", d.Addr, "is of no host", "give the one at which other devices reach it, such as 10.1.2.3 or fd00::1")
	}
	if d.PortOffset < 0 || d.PortOffset > maxPortOffset {
		c.fault("port_offset", strconv.Itoa(d.PortOffset), "is out of bounds", "give 0 to 50000; 0, if no other device has the address")
	}
	c.required("site", d.Site)
	c.required("type", d.Type)
	c.labels("labels", d.Labels)
	c.oneOf("state", string(d.State), string(Idle), string(Held), string(InService), string(Faulty), string(Retired))
}

// declared returns d as a document declares it: with the life cycle of have, or a new device's.
func (d *Device) declared(have *Device) *Device {
	out := *d
	out.State, out.Since, out.Module, out.Holder, out.HeldUntil, out.HeldFrom, out.Fault, out.Acquisition = Idle, time.Time{}, "", "", time.Time{}, "", "", ""
	if have != nil {
		out.State, out.Since, out.Module, out.Holder = have.State, have.Since, have.Module, have.Holder
		out.HeldUntil, out.HeldFrom, out.Fault, out.Acquisition = have.HeldUntil, have.HeldFrom, have.Fault, have.Acquisition
	}
	return &out
}

// deviceIndexes are those by which devices are looked for.
func deviceIndexes() []state.TableOption[Device] {
	by := func(name string, value func(*Device) string) state.TableOption[Device] {
		return state.Index(name, func(d *Device) []string {
			if v := value(d); v != "" {
				return []string{v}
			}
			return nil
		})
	}
	return []state.TableOption[Device]{
		by("state", func(d *Device) string { return string(d.State) }),
		by("module", func(d *Device) string { return d.Module }),
		by("site", func(d *Device) string { return d.Site }),
		by("type", func(d *Device) string { return d.Type }),
	}
}

func deviceRefers(to Ref) (index, value string) {
	switch to.Kind {
	case KindSite:
		return "site", to.Name
	case KindDeviceType:
		return "type", to.Name
	case KindModule:
		return "module", to.Name
	}
	return "", ""
}
