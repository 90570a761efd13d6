package control

import (
	"context"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/center"
)

// news tells the streams of AgentService.Desired that what is declared for their device may have changed. It never
// blocks: a stream that is busy finds one signal waiting, however many came.
type news struct {
	mu      sync.Mutex
	streams map[string]map[chan struct{}]struct{} // guarded by mu; by device
}

func newNews() *news { return &news{streams: make(map[string]map[chan struct{}]struct{})} }

// subscribe returns a channel that gets a signal whenever the device is rung.
func (n *news) subscribe(device string) (bell chan struct{}, cancel func()) {
	bell = make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.streams[device] == nil {
		n.streams[device] = make(map[chan struct{}]struct{})
	}
	n.streams[device][bell] = struct{}{}
	return bell, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if delete(n.streams[device], bell); len(n.streams[device]) == 0 {
			delete(n.streams, device)
		}
	}
}

func ring(bells map[chan struct{}]struct{}) {
	for bell := range bells {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}

func (n *news) ring(device string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ring(n.streams[device])
}

func (n *news) ringAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, bells := range n.streams {
		ring(bells)
	}
}

// watchModel rings for changes of the CMDB.
func (a *API) watchModel(ctx context.Context) {
	a.follow(ctx, "CMDB", func() error {
		if err := a.config.CMDB.Ready(ctx); err != nil { // before that it has no revision to watch from
			return err
		}
		after := a.config.CMDB.Revision()
		a.news.ringAll()
		for event, err := range a.config.CMDB.Watch(ctx, after) {
			if err != nil {
				return err
			}
			for _, change := range event.Objects {
				switch change.Kind {
				case cmdb.KindDevice:
					a.news.ring(change.Name)
				case cmdb.KindModule:
					for _, device := range a.config.CMDB.Devices(cmdb.DeviceFilter{Module: change.Name}) {
						a.news.ring(device.Name)
					}
				}
			}
		}
		return ctx.Err()
	})
}

// watchCenters rings for changes of packages, files, configuration, pauses and inspections.
func (a *API) watchCenters(ctx context.Context) {
	a.follow(ctx, "centers", func() error {
		for change, err := range a.config.Centers.Watch(ctx) {
			if err != nil {
				return err
			}
			if change.Kind == center.WatchInspection {
				a.news.ring(change.Key)
				continue
			}
			a.news.ringAll()
		}
		return ctx.Err()
	})
}

// watchFindings rings for orders and for what is ignored; a brake touches a whole module.
func (a *API) watchFindings(ctx context.Context) {
	a.follow(ctx, "findings", func() error {
		a.news.ringAll()
		for change, err := range a.config.Drift.Watch(ctx, 0) {
			if err != nil {
				return err
			}
			if change.New == nil {
				continue
			}
			a.news.ring(change.New.Finding.Device)
			if change.New.Module == "" {
				continue
			}
			for _, device := range a.config.CMDB.Devices(cmdb.DeviceFilter{Module: change.New.Module}) {
				a.news.ring(device.Name)
			}
		}
		return ctx.Err()
	})
}

// follow repeats a watch that broke, until ctx ends.
func (a *API) follow(ctx context.Context, what string, watch func() error) {
	for ctx.Err() == nil {
		err := watch()
		if ctx.Err() != nil {
			return
		}
		a.logger.Warn("a watch broke; trying again", "of", what, "error", err)
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
