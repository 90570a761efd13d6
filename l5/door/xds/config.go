package xds

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// Config of a Door. A zero field means its documented default.
type Config struct {
	// Names is where services are looked up. Required.
	Names door.Names
	// Caller is on whose behalf: grants are decided by it. Required.
	Caller string
	// Listen is unix:///path, a socket of mode 0600, or a TCP address: an IP address and a port. Required.
	Listen string
	// Anyone lets Listen be a TCP address off loopback.
	Anyone bool
	// Services are those of clients that ask for all, as Envoy does for clusters. Default: none.
	Services []string
	// SiteLabel is the label that names the site of an instance whose Site is not set. Default: site.
	SiteLabel string
	// MaxServices bounds the services of a stream, and how many different ones are looked up within five minutes.
	// Default: 1024.
	MaxServices int
	// MaxConns bounds connections. Default: 256.
	MaxConns int
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes zhiyun_l5_door_xds_... Default: none.
	Metrics prometheus.Registerer
}

// check returns the config with defaults, or all its faults.
func (c Config) check() (Config, error) {
	var faults []error
	if c.Names == nil {
		faults = append(faults, errors.New("Names is nil: give the device's agent, or door.ByClient"))
	}
	if c.Caller == "" {
		faults = append(faults, errors.New("Caller is empty: name the module on whose behalf services are looked up"))
	}
	if path, unix := strings.CutPrefix(c.Listen, "unix://"); unix {
		if !filepath.IsAbs(path) {
			faults = append(faults, fmt.Errorf("Listen is %q: give unix:// and an absolute path", c.Listen))
		}
	} else if err := door.CheckListen(c.Listen, c.Anyone); err != nil {
		faults = append(faults, fmt.Errorf("Listen: %w", err))
	}
	for _, service := range c.Services {
		if err := l5.CheckService(service); err != nil {
			faults = append(faults, fmt.Errorf("Services: %w", err))
		}
	}
	if c.MaxServices < 0 || c.MaxConns < 0 {
		faults = append(faults, fmt.Errorf("MaxServices is %d and MaxConns %d: give none that is negative", c.MaxServices, c.MaxConns))
	}
	c.MaxServices = cmp.Or(c.MaxServices, 1024)
	c.MaxConns = cmp.Or(c.MaxConns, 256)
	c.SiteLabel = cmp.Or(c.SiteLabel, "site")
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if err := errors.Join(faults...); err != nil {
		return c, fmt.Errorf("l5/door/xds: config: %w", err)
	}
	return c, nil
}
