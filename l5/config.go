package l5

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

// Config of a Client. A zero field means its documented default.
type Config struct {
	// Target is where the name service is: a device's agent as "unix:///run/zhiyun/l5.sock", a server as
	// "https://host:port", or "http://127.0.0.1:port" on this host; or several with commas in between, of which any may die.
	// Required.
	Target string
	// Caller is the module or service id on whose behalf calls are made; grants are decided by it. Required.
	Caller string
	// Table is the folder of the device's route table, from which first routes come while the name service cannot be
	// reached. Default: where the agent keeps it, if Target is an agent's socket; else none.
	Table string
	// Token is sent as a bearer token. Default: none.
	Token string
	// TLS is used for https targets. Default: the system's roots.
	TLS *tls.Config
	// Failures is how many calls in a row must fail for an instance to be ejected. Default: 5.
	Failures int
	// Refused is the same for calls that nobody answered (connection refused, host unreachable). Default: 2.
	Refused int
	// MaxInFlight bounds the calls in flight per instance; beyond it Route returns ErrOverloaded. Default: no bound.
	MaxInFlight int
	// Labels are the caller's own, for the routes of a service's rules. Default: none.
	Labels map[string]string
	// Device, Site and City are where this process runs, for locality and rules. Default: what the agent, or the name
	// service about Device, says.
	Device, Site, City string
	// Services says how instances of a service are chosen, by service id. It counts before what the service's own rules
	// say, and those before Policy, Locality and Subset; each field on its own. Default: nothing is said.
	Services map[string]rule.Settings
	// Policy is how an instance is chosen among those that health and weights leave. Default: balance.Adaptive.
	Policy balance.Policy
	// Guard keeps an overload of a service from becoming an avalanche. By default calls are refused only when a service rejects,
	// or leaves without an answer, more than half of at least 40 calls within ten seconds, and calls made again are
	// bounded. With Guard.Limit.Healthy calls in flight are, too: by Guard.Limit for the service, and by the same with a
	// Min of 1 for each instance. See package limit.
	Guard limit.GateConfig
	// Locality prefers instances that are near. Default: none is preferred.
	Locality rule.Locality
	// Subset is how many instances of a service this process calls. Default: all of them. A process that has less than a call
	// a second for each knows too little of them to choose well; some eight serve it better.
	Subset int
	// Balance tunes ejection, trial and the weight of slow instances.
	Balance balance.Config
	// Probe asks whether an ejected instance can be reached again; no user's call is spent on that. Default: a TCP
	// connection is opened and closed.
	Probe func(ctx context.Context, addr string) error
	// ProbeTimeout bounds one probe. Default: 1 s.
	ProbeTimeout time.Duration
	// ReportEvery is the pace of outcome reports. Default: 1 s.
	ReportEvery time.Duration
	// TickEvery is the pace at which latencies are compared and ejection times looked at. Default: 250 ms.
	TickEvery time.Duration
	// OnEvent is called when an instance changes its state of health, by one goroutine at a time per service. It must
	// not block or call the client. Default: not called.
	OnEvent func(Event)
	// Observer is told of each call's end, each refusal and each change of health. Default: nobody is.
	Observer Observer
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes the client's metrics, named zhiyun_l5_client_... Their label service has the services that this process
	// has called, and nothing else is unbounded: no label has instances or callers. Default: none.
	Metrics prometheus.Registerer

	now func() time.Time // time.Now, but for tests
}

// Event says that an instance changed its state of health in the eyes of this process.
type Event struct {
	At      time.Time      `json:"at"`
	Service string         `json:"service"`
	Addr    string         `json:"addr"`
	From    balance.Health `json:"from"`
	To      balance.Health `json:"to"`
	Reason  string         `json:"reason"` // with the evidence
}

// check returns the config with defaults filled in, or all its faults.
func (c Config) check() (Config, error) {
	var errs []error
	if c.Target == "" {
		errs = append(errs, errors.New("Target is empty: want unix:///path, http://127.0.0.1:port or https://host:port"))
	}
	if c.Caller == "" {
		errs = append(errs, errors.New("Caller is empty: name the module that calls, as in shop.web"))
	}
	for name, n := range map[string]int{"Failures": c.Failures, "Refused": c.Refused, "MaxInFlight": c.MaxInFlight} {
		if n < 0 || n > 1000 && name != "MaxInFlight" {
			errs = append(errs, fmt.Errorf("%s is %d: give it 1 to 1000, or 0 for the default", name, n))
		}
	}
	for name, d := range map[string]time.Duration{"ProbeTimeout": c.ProbeTimeout, "ReportEvery": c.ReportEvery, "TickEvery": c.TickEvery} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: give it a positive duration, or 0 for the default", name, d))
		}
	}
	if c.Balance.MaxEjected > 1 || c.Balance.TrialShare > 1 {
		errs = append(errs, fmt.Errorf("Balance has MaxEjected %v and TrialShare %v: both are shares, at most 1", c.Balance.MaxEjected, c.Balance.TrialShare))
	}
	if err := c.Guard.Check(); err != nil {
		errs = append(errs, fmt.Errorf("Guard: %w", err))
	}
	if err := (rule.Settings{Locality: c.Locality, Subset: c.Subset}).Check(); err != nil {
		errs = append(errs, err)
	}
	for _, service := range slices.Sorted(maps.Keys(c.Services)) {
		if err := errors.Join(CheckService(service), c.Services[service].Check()); err != nil {
			errs = append(errs, fmt.Errorf("Services[%s]: %w", service, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("l5: config: %w", err)
	}
	if c.Table == "" {
		c.Table = tableOf(c.Target)
	}
	if c.Failures == 0 {
		c.Failures = 5
	}
	if c.Refused == 0 {
		c.Refused = min(2, c.Failures)
	}
	if c.Probe == nil {
		c.Probe = dialProbe
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = time.Second
	}
	if c.ReportEvery == 0 {
		c.ReportEvery = time.Second
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.TickEvery == 0 {
		c.TickEvery = 250 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// strike weighs a failure so that Failures of any kind, or Refused of those that nobody answered, reach strikeLimit.
func (c *Config) strike(err error) uint32 {
	if unreachable(err) {
		return uint32(c.Failures)
	}
	return uint32(c.Refused)
}

func (c *Config) strikeLimit() uint32 { return uint32(c.Failures * c.Refused) }

func dialProbe(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
