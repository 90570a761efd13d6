package drift

import (
	"net/netip"
	"time"
)

// CoreTest drives the pure core from tests.
type CoreTest struct{ core *core }

// CoreAction is one thing that the core wants done.
type CoreAction struct {
	Tell   *Event
	Repair *Finding
	Look   *Key
}

// NewCoreTest returns the core that an agent of this configuration has. planted names a bug to put in, for tests that
// show that they would find it; "" is none.
func NewCoreTest(c Config, planted string) *CoreTest {
	core := newCore(policy{
		mode: c.Mode, modes: c.Modes, repairer: true, confirm: c.Confirm, settle: c.Settle,
		flapWindow: c.FlapWindow, flapLimit: c.FlapLimit, perHour: c.RepairsPerHour,
	})
	core.planted = planted
	return &CoreTest{core}
}

func (t *CoreTest) step(now time.Time, event any) []CoreAction {
	var out []CoreAction
	for _, a := range t.core.step(now, event) {
		out = append(out, CoreAction{a.tell, a.repair, a.look})
	}
	return out
}

func (t *CoreTest) Declare(now time.Time, s State) []CoreAction { return t.step(now, declaredEvent{s}) }

// Observe compares live with what is declared, as far as only reaches; nil is all.
func (t *CoreTest) Observe(now time.Time, live State, only []string) []CoreAction {
	if t.core.state == nil {
		return nil
	}
	return t.step(now, observedEvent{
		findings: Compare(part(*t.core.state, Kinds(), only), live), names: only, scope: scope(Kinds(), only, live),
	})
}

func (t *CoreTest) Repaired(now time.Time, key Key, err error) []CoreAction {
	return t.step(now, repairedEvent{key, err})
}

func (t *CoreTest) Hold(now time.Time, id int, h *Hold) []CoreAction {
	return t.step(now, holdEvent{id, h})
}

func (t *CoreTest) Tick(now time.Time) []CoreAction { return t.step(now, tickEvent{}) }
func (t *CoreTest) Wake() time.Time                 { return t.core.wake }
func (t *CoreTest) Open() []Finding                 { return t.core.open() }
func (t *CoreTest) Inflight() int                   { return t.core.inflight }

// The parsers, for their fuzz targets.

func ParseStat(text []byte) (byte, uint64, error) { return parseStat(text) }

func ParseBootTime(text []byte) (time.Time, error) { return parseBootTime(text) }

func ParseCmdline(text []byte) []string { return parseCmdline(text) }

func ParseSocketLink(link string) (uint64, bool) { return parseSocketLink(link) }

// ParseProcNet returns address, port and inode of each listening socket.
func ParseProcNet(proto string, text []byte) ([]netip.AddrPort, []uint64, error) {
	sockets, err := parseProcNet(nil, proto, text)
	var addrs []netip.AddrPort
	var inodes []uint64
	for _, s := range sockets {
		addrs = append(addrs, netip.AddrPortFrom(s.addr, s.port))
		inodes = append(inodes, s.inode)
	}
	return addrs, inodes, err
}

// ProcAt is Proc with another folder in place of /proc.
func ProcAt(proc, root string) ProcessLister { return &procLister{proc: proc, root: root} }
