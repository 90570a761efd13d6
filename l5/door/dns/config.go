package dns

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	wire "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// Config of a Door. A zero field means its documented default.
type Config struct {
	// Names is where services are looked up. Required.
	Names door.Names
	// Caller is on whose behalf: grants are decided by it. Required.
	Caller string
	// Listen is the address for UDP and TCP: an IP address and a port. Required.
	Listen string
	// Anyone lets Listen be an address off loopback.
	Anyone bool
	// Zone is the suffix of all names. Default: "l5."
	Zone string
	// TTL of answers, positive and negative ones. Default: 1 s.
	TTL time.Duration
	// MaxAnswers bounds the records of an answer. Default: 16.
	MaxAnswers int
	// MaxNames bounds how many services are looked up within five minutes. Default: 4096.
	MaxNames int
	// MaxConns bounds TCP connections, and MaxQueries queries under way. Default: 128 and 1024.
	MaxConns, MaxQueries int
	// Wait is how long the first query for a service waits for it. Default: 1 s.
	Wait time.Duration
	// Logger takes one line per change of state. Default: silent.
	Logger *slog.Logger
	// Metrics takes zhiyun_l5_door_dns_... Default: none.
	Metrics prometheus.Registerer
}

// check returns the config with defaults, or all its faults.
func (c Config) check() (Config, error) {
	var faults []error
	if c.Names == nil {
		faults = append(faults, errors.New("Names is nil: give the device's agent, or door.ByClient"))
	}
	if c.Caller == "" {
		faults = append(faults, errors.New("Caller is empty: name the module on whose behalf names are resolved"))
	}
	if err := door.CheckListen(c.Listen, c.Anyone); err != nil {
		faults = append(faults, fmt.Errorf("Listen: %w", err))
	}
	if c.Zone == "" {
		c.Zone = "l5."
	}
	if _, ok := wire.IsDomainName(c.Zone); !ok || c.Zone == "." || len(c.Zone) > 64 {
		faults = append(faults, fmt.Errorf("Zone is %q: give a domain name of at most 64 bytes, as l5.", c.Zone))
	}
	c.Zone = strings.ToLower(wire.Fqdn(c.Zone))
	for _, n := range []struct {
		name    string
		value   *int
		instead int
	}{{"MaxAnswers", &c.MaxAnswers, 16}, {"MaxNames", &c.MaxNames, 4096}, {"MaxConns", &c.MaxConns, 128}, {"MaxQueries", &c.MaxQueries, 1024}} {
		if *n.value < 0 {
			faults = append(faults, fmt.Errorf("%s is %d: give it 1 or more, or 0 for %d", n.name, *n.value, n.instead))
		}
		if *n.value == 0 {
			*n.value = n.instead
		}
	}
	if c.TTL < 0 || c.TTL > time.Hour || c.Wait < 0 {
		faults = append(faults, fmt.Errorf("TTL is %v and Wait %v: give a TTL of at most an hour and no negative time", c.TTL, c.Wait))
	}
	if c.TTL == 0 {
		c.TTL = time.Second
	}
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(faults...); err != nil {
		return c, fmt.Errorf("l5/door/dns: config: %w", err)
	}
	return c, nil
}
