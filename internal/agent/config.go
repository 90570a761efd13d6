// Package agent is the agent of one device as an importable package: it runs the device's share of flows, keeps its
// processes, answers its programs' routes, and watches that it stays as declared.
package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/doors"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Config says which device this is and where the server is. Zero fields have the stated defaults.
type Config struct {
	// Device is the device's name in the CMDB. Required.
	Device string
	// Addr is its address. Required.
	Addr string
	// PortOffset is added to the ports that manifests name, as in the CMDB: the device shares its address with others, and
	// only ports of its own processes count as its. Default: the address is its own.
	PortOffset int
	// Site is where it stands; handed to scripts and processes.
	Site string
	// Root is the folder that the device's files live under: nothing outside of it is written. Required; made if absent.
	// Unix sockets stand below it: 80 bytes at most.
	Root string
	// Server is "unix:///path", "http://127.0.0.1:port" or "https://host:port". Required.
	Server string
	// FlowServers are further servers that share the flows of the first: each of them may have the device run a step. They are called as the first is, so its
	// credential must be good there: servers that share flows sign with one CA. Default: none.
	FlowServers []string
	// Enrol is a token of the role enrol, as text or, better, as "@/path" of a file of mode 0600: it is exchanged once for a
	// credential of the device's own, which the agent keeps below Root and renews by itself. Ignored while there is one.
	Enrol string
	// TokenFile holds a token that somebody else keeps fresh, mode 0600, read again when it changes. Default: the credential
	// that Enrol has brought; over a unix socket, none.
	TokenFile string
	// Believe takes a program that asks for routes for the module that it says it is. Default: only a process of a package
	// that the agent has started may ask, as its module; see package l5/agent's Config.Prove.
	Believe bool
	// TLS names the files for https servers: the tools of the device are processes, and get them too. Default: the system's
	// roots, and no certificate.
	TLS transport.ClientFiles
	// Exe is the zhiyun binary that runs the device's tools. Default: this program's own.
	Exe string
	// Tools is a folder of folders with tools of the device's owner, each with its tool.json. A tool that cannot be registered is an error. Default: the
	// device has the tools of Exe alone.
	Tools string
	// Rescan is the time between two full looks at the declared files; Poll between two at processes and ports.
	// Default 1 min and 5 s.
	Rescan, Poll time.Duration
	// Settle is how long after a change of the declaration repair waits for the deployment. Default 30 s.
	Settle time.Duration
	// Listen is a loopback address for /healthz, /readyz and /metrics. Default: none; the device's own socket is served anyway.
	Listen string

	// Doors say which doors for programs that do not speak l5 are open; its Logger and Metrics are the agent's. Default: JSON
	// on the routes' socket alone.
	Doors doors.Config

	Logger *slog.Logger // default: off
}

// filled returns the config with defaults, or all its faults at once.
func (c Config) filled() (Config, error) {
	var faults []error
	if c.Device == "" {
		faults = append(faults, errors.New("agent: Device is empty: give the device's name in the CMDB"))
	}
	if _, err := netip.ParseAddr(c.Addr); err != nil {
		faults = append(faults, fmt.Errorf("agent: Addr %q: give the device's IP address: %w", c.Addr, err))
	}
	if c.PortOffset < 0 || c.PortOffset > 50_000 {
		faults = append(faults, fmt.Errorf("agent: PortOffset %d: want 0 to 50000, as the device has it in the CMDB", c.PortOffset))
	}
	if c.Root == "" {
		faults = append(faults, errors.New("agent: Root is empty: name the folder that the device's files live under"))
	} else if root, err := filepath.Abs(c.Root); err != nil || len(root) > 80 {
		faults = append(faults, fmt.Errorf("agent: Root %q: want a path of 80 bytes at most, since sockets stand below it", c.Root))
	} else {
		c.Root = root
	}
	if c.Server == "" {
		faults = append(faults, errors.New("agent: Server is empty: want unix:///path, http://127.0.0.1:port or https://host:port"))
	}
	if c.Enrol != "" && c.TokenFile != "" {
		faults = append(faults, errors.New("agent: Enrol and TokenFile: give one of them"))
	}
	if c.Listen != "" {
		if addr, err := netip.ParseAddrPort(c.Listen); err != nil || !addr.Addr().IsLoopback() {
			faults = append(faults, fmt.Errorf("agent: Listen %q: metrics are for this host alone; give a loopback address, as 127.0.0.1:7071", c.Listen))
		}
	}
	if c.Doors.Opens() && c.Doors.Caller == "" {
		faults = append(faults, errors.New("agent: Doors are open and their Caller is empty: the server gives a device routes for modules that are placed on it, and for nobody else; "+
			"name the module whose programs ask, with --door-caller"))
	}
	if c.Exe == "" {
		exe, err := os.Executable()
		if err != nil {
			faults = append(faults, fmt.Errorf("agent: Exe is empty and this program's own path is unknown: %w", err))
		}
		c.Exe = exe
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(faults...)
}

// The layout below the root. What belongs to modules (pkg, etc, data) is the tools' business.
func (c Config) run(name string) string   { return filepath.Join(c.Root, "run", name) }
func (c Config) state(name string) string { return filepath.Join(c.Root, "var", "zhiyun", name) }

// RoutesSocket is where programs on the device route their calls.
func (c Config) RoutesSocket() string { return c.run("l5.sock") }

// DeviceSocket is where the device's tools reach the agent.
func (c Config) DeviceSocket() string { return c.run("device.sock") }
