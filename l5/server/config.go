package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5"
)

// Config of a Server. A zero field means its documented default.
type Config struct {
	// Store keeps the registry. Required.
	Store Store
	// Sink takes the outcomes that callers report. Nil: they are acknowledged and counted in metrics only.
	Sink Sink
	// Grants decides who may call what. Nil: everyone may call everything.
	Grants Grants
	// Identify returns who is calling, from what the transport knows (a token, a certificate, a peer's uid), given the
	// name that the caller claims: a device's agent may vouch for the modules that are placed on its device, and for no
	// other. An error refuses a subscription with that reason, and leaves the caller's outcomes out of a report; the rest of
	// the stream, and of the report, goes on. It is asked again whenever Grants.Changed fires. Nil: claims are believed.
	Identify func(ctx context.Context, header http.Header, claimed string) (string, error)
	// IdentifyOwner is the same for who registers: an agent holds leases in no name but its device's. An error ends the
	// stream. Nil: Identify decides.
	IdentifyOwner func(ctx context.Context, header http.Header, claimed string) (string, error)
	// MayChange decides whether the holder of a register stream may register, replace, drain or remove an instance: it is
	// asked about the instance as it is to be, and about what stands in its place. An error refuses that instance
	// and no other of the request. Nil: every owner may change every instance.
	MayChange func(ctx context.Context, owner string, instance l5.Instance) error
	// MayServe decides whether that holder may register an instance, beyond MayChange: it is asked about what is to be
	// registered alone, so that what is not served there any more can still be drained and removed. Nil: MayChange decides.
	MayServe func(ctx context.Context, owner string, instance l5.Instance) error
	// Place returns the site and the city of a device; both empty: not known. Instances registered without a site get it,
	// and agents are told their own. It must be quick. Nil: nothing is known.
	Place func(device string) (site, city string)
	// Grace is how long the instances of an owner whose stream was lost wait for it to come back. Default: 10 s.
	Grace time.Duration
	// ExpiriesPerMinute bounds how many instances may expire in any minute, over all services. Default: 60.
	ExpiriesPerMinute int
	// ExpiryShare bounds how much of one service may expire within any ten minutes: above it, expiry stops and the
	// instances are held. One instance of a service may always expire, but never the last. Default: 0.3.
	ExpiryShare float64
	// OnOwner is called when an owner's first stream opens and when its last is lost, in order, one call at a time. It
	// must not block. Nil: not called.
	OnOwner func(OwnerEvent)
	// Logger takes one line per change of state. Nil: silent.
	Logger *slog.Logger
	// Metrics takes the server's metrics, named zhiyun_l5_server_... Nil: none.
	Metrics prometheus.Registerer

	now func() time.Time // time.Now, but for tests
}

// OwnerEvent says that the holder of leases came or went.
type OwnerEvent struct {
	Owner string
	Live  bool
}

// Grants decides who may call what. It is asked for each subscription, and again when Changed fires, so it must be
// quick. It is called from many goroutines.
type Grants interface {
	MayCall(caller, service string) bool
	// Changed returns a channel that is closed when any grant changes; each call returns the channel of the next change.
	Changed() <-chan struct{}
}

// Sink takes outcomes: all of a call, or none if it returns an error; then the reporter sends them again. It is
// called by one goroutine at a time.
type Sink interface {
	Outcomes(ctx context.Context, outcomes []Outcome) error
}

// Outcome is what callers report on one instance, summed up since their last report.
type Outcome struct {
	Caller, Service, Addr, Device string
	Requests                      int64 // all calls, failed and rejected ones included
	Failures                      int64
	Rejected                      int64         // refused by the callee for overload; no failures
	LatencySum                    time.Duration // of the calls that neither failed nor were rejected
	Histogram                     []int64       // of the same calls, by the bounds of l5.LatencyBound
	Reports                       int64         // how many processes' reports are folded into this
}

// check returns the config with defaults filled in, or all its faults.
func (c Config) check() (Config, error) {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("Store is nil: give it memstore.New() or etcdstore.New(client, prefix)"))
	}
	if c.Grace < 0 {
		errs = append(errs, fmt.Errorf("Grace is %v: give it a positive duration, or 0 for 10s", c.Grace))
	}
	if c.ExpiriesPerMinute < 0 {
		errs = append(errs, fmt.Errorf("ExpiriesPerMinute is %d: give it a positive number, or 0 for 60", c.ExpiriesPerMinute))
	}
	if c.ExpiryShare < 0 || c.ExpiryShare > 1 {
		errs = append(errs, fmt.Errorf("ExpiryShare is %v: give it a share in (0, 1], or 0 for 0.3", c.ExpiryShare))
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.ExpiriesPerMinute == 0 {
		c.ExpiriesPerMinute = 60
	}
	if c.ExpiryShare == 0 {
		c.ExpiryShare = 0.3
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.IdentifyOwner == nil {
		c.IdentifyOwner = c.Identify
	}
	if c.Grants == nil {
		c.Grants = everyone{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("l5/server: config: %w", err)
	}
	return c, nil
}

// everyone may call everything.
type everyone struct{}

func (everyone) MayCall(string, string) bool { return true }
func (everyone) Changed() <-chan struct{}    { return nil }
