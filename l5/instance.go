package l5

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// DefaultWeight is the full weight of an instance that names none.
const DefaultWeight = 100

// State says whether an instance takes calls.
type State uint8

const (
	// StateUp takes calls. It is the zero value.
	StateUp State = iota
	// StateDraining finishes the calls it has and takes no new ones.
	StateDraining
)

// String returns "up" or "draining".
func (s State) String() string {
	if s == StateDraining {
		return "draining"
	}
	return "up"
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(text []byte) error {
	switch string(text) {
	case "up", "":
		*s = StateUp
	case "draining":
		*s = StateDraining
	default:
		return fmt.Errorf("l5: instance state %q; want up or draining", text)
	}
	return nil
}

// Instance is one address that serves a service id.
type Instance struct {
	Service string            `json:"service"`
	Addr    string            `json:"addr"` // host:port or [host]:port, at which callers reach it: not 0.0.0.0 or [::]
	Device  string            `json:"device,omitempty"`
	Site    string            `json:"site,omitempty"` // where the device is, and its city
	City    string            `json:"city,omitempty"`
	Module  string            `json:"module,omitempty"`
	Weight  int               `json:"weight,omitempty"` // full weight, at most MaxWeight; 0 means DefaultWeight
	Share   int               `json:"share"`            // percent of the full weight in force, 0..100
	State   State             `json:"state"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Owner is whose live Register stream is the lease of this instance; empty: it has no lease and stays until it is
	// deregistered.
	Owner string `json:"owner,omitempty"`
	// Suspect says that the lease's stream was lost and the grace period runs.
	Suspect bool `json:"suspect,omitempty"`
	// Isolated is why an operator took all calls from the instance; empty: nobody did.
	Isolated string `json:"isolated,omitempty"`
	// Down is why the owner says that nobody serves there now, as a process that ended; empty: it does not say so.
	Down string `json:"down,omitempty"`
}

// MaxWeight is the largest full weight.
const MaxWeight = 1_000_000

// out reports whether the instance takes no calls, whatever its weight.
func (i Instance) out() bool { return i.State != StateUp || i.Isolated != "" || i.Down != "" }

// member is the instance as its health is kept. One that takes no calls has no part of its weight.
func (i Instance) member() balance.Member {
	m := balance.Member{Addr: i.Addr, Weight: float64(i.Weight), Gray: float64(i.Share) / 100, Suspect: i.Suspect}
	if i.Weight == 0 {
		m.Weight = DefaultWeight
	}
	if i.out() {
		m.Gray = 0
	}
	return m
}

// EffectiveWeight is Weight * Share / 100, and 0 while draining, isolated or down. An instance of effective weight 0 is never picked.
func (i Instance) EffectiveWeight() float64 {
	if i.out() {
		return 0
	}
	weight := i.Weight
	if weight == 0 {
		weight = DefaultWeight
	}
	return float64(weight) * float64(i.Share) / 100
}

var serviceID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// hostName is a DNS name, loosely; an IP address is told apart by its parser.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,252}$`)

// checkAddr reports what is wrong with an instance's address. Whoever calls 0.0.0.0 or [::] calls itself; a listener on all
// addresses says that of itself, so it is what programs register by mistake.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	n, convErr := strconv.ParseUint(port, 10, 16)
	ip, notIP := netip.ParseAddr(host)
	switch {
	case err != nil || convErr != nil || n == 0 || notIP != nil && !hostName.MatchString(host):
		return fmt.Errorf("l5: address %q: want host:port or [host]:port with a port of 1..65535", addr)
	case notIP == nil && (ip.Unmap().WithZone("").IsUnspecified() || ip.Unmap().IsMulticast()):
		return fmt.Errorf("l5: address %q is of no host: it is where a program listens; give the one at which callers reach it", addr)
	}
	return nil
}

// checkSpelling reports that a good address can be written in a shorter way: the place where a program listens is one instance, not one for each way to write it.
func checkSpelling(addr string) error {
	host, port, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if plain := net.JoinHostPort(host, strings.TrimLeft(port, "0")); plain != addr {
		return fmt.Errorf("l5: address %q: write it as %q", addr, plain)
	}
	return nil
}

// CheckService reports what is wrong with a service id.
func CheckService(service string) error {
	if !serviceID.MatchString(service) {
		return fmt.Errorf("l5: service id %q: want 1 to 128 letters, digits, dots, dashes or underscores, the first a letter or digit", service)
	}
	return nil
}

// Check reports all that is wrong with the instance for whoever registers it. An IP address is written as netip.Addr.String does, and an IPv4 address as such.
func (i Instance) Check() error {
	if err := i.checkKnown(); err != nil {
		return err
	}
	return checkSpelling(i.Addr)
}

// checkKnown reports what makes an instance useless that was registered by whatever rules.
func (i Instance) checkKnown() error {
	errs := []error{CheckService(i.Service), checkAddr(i.Addr)}
	if i.Weight < 0 || i.Weight > MaxWeight {
		errs = append(errs, fmt.Errorf("l5: weight %d of %s: want 0 (meaning %d) to %d", i.Weight, i.Addr, DefaultWeight, MaxWeight))
	}
	if i.Share < 0 || i.Share > 100 {
		errs = append(errs, fmt.Errorf("l5: share %d of %s: want a percentage, 0 to 100", i.Share, i.Addr))
	}
	return errors.Join(errs...)
}

// InstanceFromProto converts from wire form. An absent share is 100.
func InstanceFromProto(p *l5pb.Instance) Instance {
	out := Instance{
		Service: p.GetService(), Addr: p.GetAddr(), Device: p.GetDevice(), Module: p.GetModule(),
		Weight: int(min(p.GetWeight(), MaxWeight)), Share: 100, Labels: maps.Clone(p.GetLabels()), Owner: p.GetOwner(), Suspect: p.GetSuspect(),
		Site: p.GetSite(), City: p.GetCity(), Isolated: p.GetIsolated(), Down: p.GetDown(),
	}
	if p.Share != nil {
		out.Share = int(min(p.GetShare(), 100))
	}
	if p.GetDraining() || out.Isolated == "" && out.Down == "" && p.GetState() == l5pb.State_STATE_DRAINING {
		out.State = StateDraining
	}
	return out
}

// Proto converts to wire form.
func (i Instance) Proto() *l5pb.Instance {
	out := &l5pb.Instance{
		Service: i.Service, Addr: i.Addr, Device: i.Device, Module: i.Module, Weight: uint32(max(i.Weight, 0)),
		Share: proto.Uint32(uint32(max(i.Share, 0))), State: l5pb.State_STATE_UP, Labels: maps.Clone(i.Labels), Owner: i.Owner, Suspect: i.Suspect,
		Site: i.Site, City: i.City, Isolated: i.Isolated, Down: i.Down,
	}
	if i.out() { // peers that do not know why are not to call it, either
		out.State = l5pb.State_STATE_DRAINING
		out.Draining = i.State == StateDraining && (i.Isolated != "" || i.Down != "")
	}
	return out
}
