package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
)

// LivenessConfig says how lost devices are found.
type LivenessConfig struct {
	CMDB interface {
		Devices(cmdb.DeviceFilter) []cmdb.Device
		Device(name string) (cmdb.Device, error)
		MarkFaulty(ctx context.Context, name, reason string, opts ...cmdb.Option) error
		Repair(ctx context.Context, name string, opts ...cmdb.Option) error
	}
	// Withdraw takes the device's instances out of the name service.
	Withdraw func(ctx context.Context, device string) error
	// Grace is how long an agent may be away. Default 30 s.
	Grace time.Duration
	// Share bounds how much of the fleet may count as lost at a time: above it the control plane's own network is
	// suspected and nothing is marked. Two devices may always be. Default 0.3.
	Share float64
	// OnEvent is told each mark and each return, and when marking is held back.
	OnEvent func(LivenessEvent)
	Logger  *slog.Logger // default: off
}

// LivenessEvent is one thing that Liveness did, or did not do.
type LivenessEvent struct {
	Device string // empty when marking is held back
	Action string // "faulty", "returned" or "held"
	Reason string
}

// lostIdle begins the fault of a device that was lost while nothing ran on it: it may return by itself.
const lostIdle = "agent lost while idle"

// Liveness marks devices whose agent is gone as faulty, and takes their instances out of service. A device that was
// idle when it was lost returns to the pool when its agent does; any other waits for a person, since what ran on
// it may still run.
//
// The agent's live stream is what tells: Seen is called when an agent's first stream opens and when its last is lost.
type Liveness struct {
	config LivenessConfig
	loop   *reconcile.Loop

	mu    sync.Mutex
	live  map[string]bool      // guarded by mu
	since map[string]time.Time // guarded by mu; when each device that is away was first seen to be
	held  bool                 // guarded by mu; marking is held back, and that was told
}

// NewLiveness returns a Liveness that does nothing until Run. All faults of config are reported at once.
func NewLiveness(config LivenessConfig) (*Liveness, error) {
	var faults []error
	if config.CMDB == nil {
		faults = append(faults, errors.New("CMDB is nil: give what knows the devices"))
	}
	if config.Withdraw == nil {
		faults = append(faults, errors.New("Withdraw is nil: give what takes a device's instances out of the name service"))
	}
	if config.Grace < 0 {
		faults = append(faults, fmt.Errorf("Grace is %s: give a positive duration, or 0 for 30s", config.Grace))
	}
	if config.Share < 0 || config.Share > 1 {
		faults = append(faults, fmt.Errorf("Share is %g: give a share from 0 to 1, or 0 for 0.3", config.Share))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("liveness: invalid config: %w", errors.Join(faults...))
	}
	if config.Grace == 0 {
		config.Grace = 30 * time.Second
	}
	if config.Share == 0 {
		config.Share = 0.3
	}
	if config.OnEvent == nil {
		config.OnEvent = func(LivenessEvent) {}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Liveness{config: config, live: make(map[string]bool), since: make(map[string]time.Time)}
	var err error
	l.loop, err = reconcile.New(reconcile.Config{
		Name: "liveness", Interval: max(config.Grace/4, 50*time.Millisecond), Pass: l.look, Logger: config.Logger,
	})
	return l, err
}

// Seen takes note that a device's agent came or went. It does not block.
func (l *Liveness) Seen(device string, live bool) {
	l.mu.Lock()
	l.live[device] = live
	l.mu.Unlock()
	l.loop.Wake()
}

// Live says whether the device's agent is connected.
func (l *Liveness) Live(device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live[device]
}

// Run looks at each coming and going, and four times within each grace period, until ctx ends. When it starts no
// agent is connected yet: all have the grace period to come.
func (l *Liveness) Run(ctx context.Context) error { return l.loop.Run(ctx) }

// look compares the fleet with the agents that are here, and acts. What fails for one device keeps no other one.
func (l *Liveness) look(ctx context.Context) error {
	now := time.Now()
	fleet, lost, returned := l.survey(now)
	var errs []error
	for _, name := range returned {
		if err := l.config.CMDB.Repair(ctx, name, cmdb.By("liveness"), cmdb.Because("its agent is back; it was idle when it was lost")); err != nil {
			errs = append(errs, fmt.Errorf("return device %s to the pool: %w", name, err))
			continue
		}
		l.config.OnEvent(LivenessEvent{Device: name, Action: "returned", Reason: "its agent is back"})
	}
	if l.brake(len(lost), fleet) {
		return errors.Join(errs...)
	}
	for _, device := range lost {
		errs = append(errs, l.mark(ctx, device.Device, now.Sub(device.since)))
	}
	return errors.Join(errs...)
}

// away is a device whose agent is not here.
type away struct {
	cmdb.Device
	since time.Time
}

// survey tells how many devices ought to be here, which of them have been away for longer than the grace period, and
// which were lost while idle and are back; both by name.
func (l *Liveness) survey(now time.Time) (fleet int, lost []away, returned []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := make(map[string]time.Time, len(l.since)) // anew: what is retired, deleted or back is forgotten
	for _, device := range l.config.CMDB.Devices(cmdb.DeviceFilter{}) {
		live := l.live[device.Name]
		switch {
		case device.State == cmdb.Retired:
			continue
		case device.State == cmdb.Faulty:
			if live && strings.HasPrefix(device.Fault, lostIdle) {
				returned = append(returned, device.Name)
			}
			continue
		}
		fleet++
		if live {
			continue
		}
		first, known := l.since[device.Name]
		if !known {
			first = now
		}
		since[device.Name] = first
		if known && now.Sub(first) >= l.config.Grace {
			lost = append(lost, away{device, first})
		}
	}
	l.since = since
	slices.Sort(returned)
	slices.SortFunc(lost, func(a, b away) int { return strings.Compare(a.Name, b.Name) })
	return fleet, lost, returned
}

// brake says whether so much is lost at once that nothing is marked.
func (l *Liveness) brake(lost, fleet int) bool {
	tooMany := lost > 2 && float64(lost) > l.config.Share*float64(fleet)
	l.mu.Lock()
	news := tooMany && !l.held
	l.held = tooMany
	l.mu.Unlock()
	if news {
		reason := fmt.Sprintf("%d of %d devices are away, above %.0f %%: the control plane's own network is suspected, nothing is marked faulty", lost, fleet, 100*l.config.Share)
		l.config.Logger.Warn("marking lost devices is held back", "lost", lost, "fleet", fleet)
		l.config.OnEvent(LivenessEvent{Action: "held", Reason: reason})
	}
	return tooMany
}

// mark takes the device's instances out of service, then marks it: in this order, a device that is marked has no
// instance left whatever fails in between.
func (l *Liveness) mark(ctx context.Context, device cmdb.Device, away time.Duration) error {
	reason := fmt.Sprintf("agent lost %s ago while %s", away.Round(time.Millisecond), device.State)
	if device.State == cmdb.Idle {
		reason = fmt.Sprintf("%s, %s ago", lostIdle, away.Round(time.Millisecond))
	}
	if err := l.config.Withdraw(ctx, device.Name); err != nil {
		return fmt.Errorf("withdraw the instances of lost device %s: %w", device.Name, err)
	}
	if err := l.config.CMDB.MarkFaulty(ctx, device.Name, reason, cmdb.By("liveness"), cmdb.Because(reason)); err != nil {
		return fmt.Errorf("mark device %s faulty: %w", device.Name, err)
	}
	l.config.Logger.Info("device is faulty", "device", device.Name, "reason", reason)
	l.config.OnEvent(LivenessEvent{Device: device.Name, Action: "faulty", Reason: reason})
	return nil
}
