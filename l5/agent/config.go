package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
)

// Config of an Agent. A zero field means its documented default.
type Config struct {
	// Upstream is the server: "https://host:port", "http://127.0.0.1:port" or "unix:///path", or several with commas in
	// between: servers over one store, of which any may die. Required.
	Upstream string
	// Device is the name of the device the agent runs on; it holds the leases of what is registered here. Required.
	Device string
	// Socket is the absolute path of the unix socket that the device's programs connect to; it is made with mode 0600.
	// Required.
	Socket string
	// SnapshotFile is the absolute path of the file that keeps grants and registrations, so that the agent can start while
	// no server answers. Default: none is kept.
	SnapshotFile string
	// Table is the absolute path of the folder that keeps the routes, for the agent's next start and for programs that
	// start while it is away. They find it at Socket with ".table" appended; if it is elsewhere, that is a link to it.
	// Default: SnapshotFile with ".table" appended, or Socket with that if there is none.
	Table string
	// Token is sent upstream as a bearer token. Default: none.
	Token string
	// TLS is used for https upstreams. Default: the system's roots.
	TLS *tls.Config
	// LocalGrace is how long a program's registrations outlive its connection to the agent. Default: 5 s.
	LocalGrace time.Duration
	// Linger is how long a service stays subscribed after its last caller on the device went away. Default: 10 min.
	Linger time.Duration
	// ReportEvery is the pace at which outcomes go upstream. Default: 500 ms.
	ReportEvery time.Duration
	// Prove says for which module a process of this device may ask for routes, register and report, given what the kernel
	// knows of it; an error refuses it, and is told to it. It is called once per stream and report. Default: what a process
	// claims is believed; the socket's mode lets in none but the agent's own user.
	Prove func(ctx context.Context, process Process) (Standing, error)
	// Balance tunes how long an instance that the agent found down takes no calls from the device, and how much of a service may
	// be so.
	Balance balance.Config
	// Probe asks whether an instance that a program doubts, or that was down, serves. Default: Prober's, by ProbeLabel.
	Probe func(ctx context.Context, addr string, labels map[string]string) error
	// ProbeTimeout bounds one probe. Default: 1 s.
	ProbeTimeout time.Duration
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes the agent's metrics, named zhiyun_l5_agent_... Default: none.
	Metrics prometheus.Registerer

	now func() time.Time // time.Now, but for tests
}

// check returns the config with defaults filled in, or all its faults.
func (c Config) check() (Config, error) {
	var errs []error
	if c.Upstream == "" {
		errs = append(errs, errors.New("Upstream is empty: want https://host:port, http://127.0.0.1:port or unix:///path"))
	}
	if c.Device == "" {
		errs = append(errs, errors.New("Device is empty: name the device, as in web-17"))
	}
	if !filepath.IsAbs(c.Socket) {
		errs = append(errs, fmt.Errorf("Socket is %q: want an absolute path, as in /run/zhiyun/l5.sock", c.Socket))
	}
	if c.SnapshotFile != "" && !filepath.IsAbs(c.SnapshotFile) {
		errs = append(errs, fmt.Errorf("SnapshotFile is %q: want an absolute path, as in /var/lib/zhiyun/l5.snapshot", c.SnapshotFile))
	}
	if c.Table != "" && !filepath.IsAbs(c.Table) {
		errs = append(errs, fmt.Errorf("Table is %q: want an absolute path, as in /var/lib/zhiyun/l5.table", c.Table))
	}
	for _, d := range []struct {
		name  string
		field *time.Duration
		value time.Duration
	}{
		{"LocalGrace", &c.LocalGrace, 5 * time.Second}, {"Linger", &c.Linger, 10 * time.Minute}, {"ReportEvery", &c.ReportEvery, 500 * time.Millisecond},
		{"ProbeTimeout", &c.ProbeTimeout, time.Second},
	} {
		if *d.field < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: give it a positive duration, or 0 for %v", d.name, *d.field, d.value))
		}
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Table == "" {
		c.Table = cmp.Or(c.SnapshotFile, c.Socket) + ".table"
	}
	if c.Balance.MaxEjected > 1 || c.Balance.TrialShare > 1 {
		errs = append(errs, fmt.Errorf("Balance has MaxEjected %v and TrialShare %v: both are shares, at most 1", c.Balance.MaxEjected, c.Balance.TrialShare))
	}
	if c.Probe == nil {
		c.Probe = NewProber().Probe
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("l5/agent: config: %w", err)
	}
	return c, nil
}
