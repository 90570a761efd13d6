package wiring

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
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

	mu    sync.Mutex
	live  map[string]bool      // guarded by mu
	since map[string]time.Time // guarded by mu; when a device was first seen to be away
	held  bool                 // guarded by mu; marking is held back, and that was told
	wake  chan struct{}
}

// NewLiveness returns a Liveness that does nothing until Run.
func NewLiveness(config LivenessConfig) *Liveness {
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
	return &Liveness{config: config, live: make(map[string]bool), since: make(map[string]time.Time), wake: make(chan struct{}, 1)}
}

// Seen takes note that a device's agent came or went. It does not block.
func (l *Liveness) Seen(device string, live bool) {
	l.mu.Lock()
	l.live[device] = live
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Live says whether the device's agent is connected.
func (l *Liveness) Live(device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live[device]
}

// Run looks at each coming and going, and four times within each grace period, until ctx ends. When it starts no
// agent is connected yet: all have the grace period to come.
func (l *Liveness) Run(ctx context.Context) error {
	tick := time.NewTicker(max(l.config.Grace/4, 50*time.Millisecond))
	defer tick.Stop()
	for {
		if err := l.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			l.config.Logger.Warn("look at lost devices", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-tick.C:
		}
	}
}

// look compares the fleet with the agents that are here.
func (l *Liveness) look(ctx context.Context, now time.Time) error {
	var lost, returned []cmdb.Device
	fleet := 0
	l.mu.Lock()
	for _, device := range l.config.CMDB.Devices(cmdb.DeviceFilter{}) {
		switch device.State {
		case cmdb.Retired:
			continue
		case cmdb.Faulty:
			delete(l.since, device.Name)
			if l.live[device.Name] && strings.HasPrefix(device.Fault, lostIdle) {
				returned = append(returned, device)
			}
			continue
		}
		fleet++
		if l.live[device.Name] {
			delete(l.since, device.Name)
			continue
		}
		since, away := l.since[device.Name]
		if !away {
			l.since[device.Name] = now
		} else if now.Sub(since) >= l.config.Grace {
			lost = append(lost, device)
		}
	}
	away := make(map[string]time.Time, len(lost))
	for _, device := range lost {
		away[device.Name] = l.since[device.Name]
	}
	l.mu.Unlock()
	for _, device := range returned {
		if err := l.config.CMDB.Repair(ctx, device.Name, cmdb.By("liveness"), cmdb.Because("its agent is back; it was idle when it was lost")); err != nil {
			return err
		}
		l.config.OnEvent(LivenessEvent{Device: device.Name, Action: "returned", Reason: "its agent is back"})
	}
	if l.brake(len(lost), fleet) {
		return nil
	}
	sort.Slice(lost, func(i, j int) bool { return lost[i].Name < lost[j].Name })
	for _, device := range lost {
		if err := l.mark(ctx, device, now.Sub(away[device.Name])); err != nil {
			return err
		}
	}
	return nil
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

func (l *Liveness) mark(ctx context.Context, device cmdb.Device, away time.Duration) error {
	reason := fmt.Sprintf("agent lost %s ago while %s", away.Round(time.Millisecond), device.State)
	if device.State == cmdb.Idle {
		reason = fmt.Sprintf("%s, %s ago", lostIdle, away.Round(time.Millisecond))
	}
	if err := l.config.CMDB.MarkFaulty(ctx, device.Name, reason, cmdb.By("liveness"), cmdb.Because(reason)); err != nil {
		return fmt.Errorf("mark device %s faulty: %w", device.Name, err)
	}
	l.config.Logger.Info("device is faulty", "device", device.Name, "reason", reason)
	l.config.OnEvent(LivenessEvent{Device: device.Name, Action: "faulty", Reason: reason})
	return l.config.Withdraw(ctx, device.Name)
}
