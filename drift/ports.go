package drift

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PortCollector observes listening ports. Make it with Ports. It is safe for concurrent use.
type PortCollector struct {
	addr   string
	lister ProcessLister
	own    bool // others have the address, too
	proc   string
}

// Ports returns a collector for the ports that are listened on at the device's address, an IP address, or at
// all addresses. lister, which may be nil, tells which processes are the device's: it names the listeners, and keeps
// those apart that listen at all addresses for another device on the same machine.
func Ports(addr string, lister ProcessLister) *PortCollector {
	return &PortCollector{addr: addr, lister: lister, proc: "/proc"}
}

// OwnPorts is Ports for a device that shares its address with others: only what one of lister's processes listens on is
// seen, where the system tells who listens.
func OwnPorts(addr string, lister ProcessLister) *PortCollector {
	c := Ports(addr, lister)
	c.own = true
	return c
}

// Kinds implements Collector.
func (c *PortCollector) Kinds() []Kind { return []Kind{KindPort} }

// socket is a listening socket.
type socket struct {
	proto string
	addr  netip.Addr
	port  uint16
	inode uint64
}

// Collect implements Collector; it always observes all. UDP sockets are looked at only if a UDP port is declared.
func (c *PortCollector) Collect(ctx context.Context, want State, _ []string) (State, error) {
	device, err := netip.ParseAddr(c.addr)
	if err != nil {
		return State{}, fmt.Errorf("drift: the device's address %q is no IP address: %w", c.addr, err)
	}
	protos := []string{"tcp"}
	if slices.ContainsFunc(want.Ports, func(p Port) bool { return p.proto() == "udp" }) {
		protos = append(protos, "udp")
	}
	sockets, via, gaps, err := listening(ctx, c.proc, device.Unmap(), protos, want.Ports)
	if err != nil {
		return State{}, err
	}
	cov := Coverage{Collector: "ports", Kinds: c.Kinds(), Via: via, At: time.Now()}
	for _, gap := range gaps {
		cov.gap(gap)
	}
	cov.gap(Gap{What: "ports that are open shorter than the time between two looks", Why: "they are polled"})
	owners, err := c.owners(ctx, want)
	if err != nil {
		cov.gap(Gap{What: "which process listens", Why: err.Error()})
	}
	var ports []Port
	for _, s := range sockets {
		addr := s.addr.Unmap()
		if addr != device.Unmap() && !addr.IsUnspecified() {
			continue
		}
		owner, known := owners[s.inode]
		if (addr.IsUnspecified() || c.own && s.inode != 0) && !known && c.lister != nil && err == nil {
			continue // another device's, on the same machine
		}
		ports = append(ports, Port{Proto: s.proto, Addr: addr.String(), Port: int(s.port), Process: owner.Name, PID: owner.PID, Exe: owner.Exe})
	}
	slices.SortFunc(ports, func(a, b Port) int { return strings.Compare(a.describe(), b.describe()) })
	return State{Ports: slices.Compact(ports), Coverage: []Coverage{cov}}, nil
}

// owners finds which of the device's processes has which socket, by inode. A process without a name goes by that of
// the declared process that it fits.
func (c *PortCollector) owners(ctx context.Context, want State) (map[uint64]Process, error) {
	if c.lister == nil {
		return nil, fmt.Errorf("no lister of processes was given")
	}
	list, err := c.lister.Processes(ctx)
	if err != nil {
		return nil, err
	}
	owners := make(map[uint64]Process)
	hidden := 0
	for _, p := range list.Processes {
		if p.Name == "" {
			if i := slices.IndexFunc(want.Processes, func(w Process) bool { return w.fits(p) }); i >= 0 {
				p.Name = want.Processes[i].Name
			}
		}
		dir := filepath.Join(c.proc, strconv.Itoa(p.PID), "fd")
		open, err := os.Open(dir)
		if err != nil {
			hidden++
			continue
		}
		names, _ := open.Readdirnames(-1) // what was read of a process that ends is enough
		open.Close()
		for _, name := range names {
			link, err := os.Readlink(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			if inode, ok := parseSocketLink(link); ok {
				owners[inode] = p
			}
		}
	}
	if hidden > 0 {
		return owners, fmt.Errorf("the open files of %d processes cannot be read", hidden)
	}
	return owners, nil
}

// parseSocketLink reads the inode from the target of a link in /proc/PID/fd: "socket:[12345]".
func parseSocketLink(link string) (uint64, bool) {
	text, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	text, ok = strings.CutSuffix(text, "]")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(text, 10, 64)
	return inode, err == nil
}
