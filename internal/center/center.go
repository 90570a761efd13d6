package center

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/inflate"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// Config is what New takes.
type Config struct {
	// Store keeps the records. Required; scope it with store.Prefixed.
	Store Store
	// Dir is the folder of the blobs. Required, absolute; made if it is absent, private to this user.
	Dir string
	// MaxBlob bounds one blob, in bytes. Default 4 GiB.
	MaxBlob int64
	// MaxUnpacked bounds what a package may unpack to, in bytes; devices have a bound of their own. Default 4 GiB.
	MaxUnpacked int64
	// MaxRatio bounds how many bytes a package may unpack to for each of its own, beyond its first 64 MiB. Default 250.
	MaxRatio int64
	// Approve answers permission requests for services without a policy of their own. Default ApproveByHand.
	Approve Approval
	// Sinks take notices out. Default: none; notices are only recorded.
	Sinks []Sink
	// SinkNetworks are those in which sinks may be called although they are link-local, or known for the metadata services of clouds. Default: none;
	// each address is looked at after its name was resolved.
	SinkNetworks []netip.Prefix
	// Owner tells whose a module is, for routes by owner. It must return soon. Default: nobody's.
	Owner func(module string) string
	// Silencer takes silences to an alert system. Default: none; silences stop notices of this center alone.
	Silencer Silencer
	// Balancer serves virtual addresses. Default: none; adding a real server is then ErrNoBalancer.
	Balancer Balancer
	// Reconcile is how often the balancer is compared with the records. Default 5 s.
	Reconcile time.Duration
	// KeepDeliveries and KeepChanges bound how many records are kept. Default 2,000 and 10,000.
	KeepDeliveries, KeepChanges int
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger gets one line per change of state. Default: off.
	Logger *slog.Logger
	// Metrics takes zhiyun_center_... Default: off.
	Metrics prometheus.Registerer
}

// Centers joins the centers over one store and one folder. All its parts are safe for concurrent use, and work
// before Run, except for Permissions.MayCall.
type Centers struct {
	Blobs        *Blobs
	Packages     *Packages
	Files        *Files
	Configs      *Configs
	Permissions  *Permissions
	Notify       *Notify
	Changes      *Changes
	VirtualAddrs *VirtualAddrs
	Pause        *Pause
	Freezes      *Freezes
	Inspections  *Inspections
	Credentials  *Credentials

	store     Store
	logger    *slog.Logger
	now       func() time.Time
	reconcile time.Duration
	known     [2]chan struct{} // closed when the grants, and the credentials, are known
}

// New checks the config, reporting all its faults at once, and returns the centers. It opens and starts nothing.
func New(config Config) (*Centers, error) {
	var faults []error
	if config.Store == nil {
		faults = append(faults, fault("Config.Store", "nil", "give a store; store.NewMemory() keeps nothing over a restart"))
	}
	if !filepath.IsAbs(config.Dir) {
		faults = append(faults, fault("Config.Dir", config.Dir, "give the absolute path of a folder for blobs"))
	}
	for field, value := range map[string]int64{
		"Config.MaxBlob": config.MaxBlob, "Config.MaxUnpacked": config.MaxUnpacked, "Config.MaxRatio": config.MaxRatio, "Config.Reconcile": int64(config.Reconcile),
		"Config.KeepDeliveries": int64(config.KeepDeliveries), "Config.KeepChanges": int64(config.KeepChanges),
	} {
		if value < 0 {
			faults = append(faults, fault(field, value, "give 0 for the default, or more"))
		}
	}
	if config.Approve == "" {
		config.Approve = ApproveByHand
	}
	names := make(map[string]bool)
	for i, sink := range config.Sinks {
		if sink == nil || names[sink.Name()] {
			faults = append(faults, fault("Config.Sinks", i, "is nil or has the name of another; name each once"))
			continue
		}
		names[sink.Name()] = true
	}
	faults = append(faults, checkApproval(config.Approve))
	metrics, err := newMetrics(config.Metrics)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&config.MaxBlob, 4<<30)
	orDefault(&config.Reconcile, 5*time.Second)
	orDefault(&config.KeepDeliveries, 2000)
	orDefault(&config.KeepChanges, 10_000)
	return assemble(config, metrics), nil
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func assemble(config Config, metrics *metrics) *Centers {
	s, now := config.Store, config.Now
	blobs := &Blobs{dir: config.Dir, most: config.MaxBlob}
	to := reach{config.SinkNetworks}
	return &Centers{
		Blobs:    blobs,
		Packages: &Packages{shelf[Package]{s, "package/", "package"}, blobs, now, inflate.Limit{Bytes: config.MaxUnpacked, Ratio: config.MaxRatio}},
		Files:    &Files{shelf[File]{s, "file/", "file"}, blobs, now},
		Configs: &Configs{
			templates: shelf[Template]{s, "config/template/", "template"},
			params:    shelf[Param]{s, "config/param/", "parameter"},
			now:       now,
		},
		Permissions: &Permissions{
			grants:   shelf[Grant]{s, "permission/grant/", "grant"},
			policies: shelf[Policy]{s, "permission/policy/", "policy"},
			approve:  config.Approve,
			now:      now,
			view:     &grantView{grants: make(map[string]seenGrant), changed: make(chan struct{})},
		},
		Notify: &Notify{
			mutes:      shelf[Mute]{s, "notify/mute/", "mute"},
			silences:   shelf[Silence]{s, "notify/silence/", "silence"},
			deliveries: shelf[Delivery]{s, "notify/delivery/", "delivery"},
			templates:  shelf[NoticeTemplate]{s, "notify/template/", "template"},
			routes:     shelf[Route]{s, "notify/route/", "route"},
			specs:      shelf[SinkSpec]{s, "notify/sink/", "sink"},
			owner:      config.Owner, due: make(chan struct{}, 1),
			sinks: config.Sinks, reach: to, client: to.client(), silencer: config.Silencer, now: now,
			logger: config.Logger, metrics: metrics, most: config.KeepDeliveries,
		},
		Changes:      &Changes{shelf[Change]{s, "change/", "change record"}, now, config.KeepChanges},
		VirtualAddrs: &VirtualAddrs{shelf[RealServer]{s, "virtual/", "real server"}, config.Balancer, now, config.Logger},
		Pause:        &Pause{shelf[Paused]{s, "pause/", "pause"}, now},
		Freezes:      &Freezes{shelf[Freeze]{s, "freeze/", "freeze"}, now},
		Inspections:  &Inspections{shelf[Inspection]{s, "inspect/", "inspection"}, now},
		Credentials:  &Credentials{shelf: shelf[Credential]{s, "credential/", "credential"}, now: now, view: make(map[string]kept[Credential])},
		store:        s,
		logger:       config.Logger,
		now:          now,
		reconcile:    config.Reconcile,
		known:        [2]chan struct{}{make(chan struct{}), make(chan struct{})},
	}
}

// Run follows the grants and the credentials, keeps the balancer as recorded, and sweeps what has ended, until ctx ends; then it returns
// nil. A store or balancer that fails is tried again.
func (c *Centers) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	for i, one := range []struct {
		what   string
		follow func(context.Context, func()) error
	}{{"follow grants", c.Permissions.follow}, {"follow credentials", c.Credentials.follow}} {
		ready := sync.OnceFunc(func() { close(c.known[i]) })
		wait.Go(func() { c.again(ctx, one.what, func() error { return one.follow(ctx, ready) }) })
	}
	wait.Go(func() { c.Notify.run(ctx) })
	wait.Go(func() { c.every(ctx, c.reconcile, "reconcile virtual addresses", c.VirtualAddrs.reconcile) })
	wait.Go(func() {
		c.every(ctx, time.Minute, "sweep", func(ctx context.Context) error {
			return errors.Join(c.Notify.sweep(ctx), c.Changes.sweep(ctx), c.Blobs.sweep(c.now()), c.Credentials.sweep(ctx), c.Freezes.sweep(ctx),
				sweep(ctx, c.Inspections.shelf, func(i Inspection) bool { return i.Until.Before(c.now()) }))
		})
	})
	wait.Wait()
	return nil
}

// Ready waits until Run knows all grants and credentials.
func (c *Centers) Ready(ctx context.Context) error {
	for _, known := range c.known {
		select {
		case <-known:
		case <-ctx.Done():
			return fmt.Errorf("center: grants or credentials not yet known, is Run running? %w", ctx.Err())
		}
	}
	return nil
}

// Kinds of what Watch yields.
const (
	WatchAll        = "" // anything may have changed
	WatchPackage    = "package"
	WatchFile       = "file"
	WatchConfig     = "config"
	WatchPause      = "pause"
	WatchFreeze     = "freeze"
	WatchInspection = "inspect"
)

// Watched is one change: a kind and the key of what changed, as in "d1" of an inspection.
type Watched struct{ Kind, Key string }

// Watch yields what changes from now on in packages, files, configs, pauses, freezes and inspections, with WatchAll first and
// whenever changes may have been missed. It ends when ctx does, or after yielding an error of the store.
func (c *Centers) Watch(ctx context.Context) iter.Seq2[Watched, error] {
	return func(yield func(Watched, error) bool) {
		for {
			_, revision, err := c.store.List(ctx, "inspect/")
			if !yield(Watched{}, err) || err != nil {
				return
			}
			for event, err := range c.store.Watch(ctx, "", revision) {
				if errors.Is(err, store.ErrCompacted) {
					break
				}
				if err != nil {
					yield(Watched{}, err)
					return
				}
				keys := event.Deletes
				for _, put := range event.Puts {
					keys = append(keys, put.Key)
				}
				for _, key := range keys {
					kind, rest, _ := strings.Cut(key, "/")
					switch kind {
					case WatchPackage, WatchFile, WatchConfig, WatchPause, WatchFreeze, WatchInspection:
						if !yield(Watched{kind, rest}, nil) {
							return
						}
					}
				}
			}
		}
	}
}

// again repeats what should not end, a second apart, until ctx ends.
func (c *Centers) again(ctx context.Context, what string, do func() error) {
	for ctx.Err() == nil {
		err := do()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, store.ErrCompacted) {
			continue // list again at once
		}
		c.logger.Warn("trying again in a second", "what", what, "error", err)
		pause(ctx, time.Second)
	}
}

// every does something now and at each interval until ctx ends.
func (c *Centers) every(ctx context.Context, interval time.Duration, what string, do func(context.Context) error) {
	failing := false
	for ctx.Err() == nil {
		err := do(ctx)
		if failing != (err != nil) && ctx.Err() == nil {
			failing = err != nil
			c.logger.Warn("upkeep changed", "what", what, "failing", failing, "error", err)
		}
		pause(ctx, interval)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
