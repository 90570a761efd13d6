package center

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// VirtualAddrs keeps which real servers stand behind each virtual address, and makes the balancer follow: at each
// change, and again every Config.Reconcile, since a balancer that restarts forgets.
type VirtualAddrs struct {
	members  shelf[RealServer]
	balancer Balancer
	now      func() time.Time
	logger   *slog.Logger
}

// RealServer is one server behind a virtual address.
type RealServer struct {
	Virtual string    `json:"virtual"` // name of the virtual address
	Addr    string    `json:"addr"`    // ip:port
	Weight  int       `json:"weight"`  // 1 to 256; default 100
	Device  string    `json:"device,omitempty"`
	Key     string    `json:"key"` // of the act that added it
	Actor   string    `json:"actor"`
	At      time.Time `json:"at"`
}

// Balancer serves virtual addresses: the built-in TCP proxy, or HAProxy through its runtime API. Add of a server that is
// there and Remove of one that is not change nothing.
type Balancer interface {
	Add(ctx context.Context, virtual, addr string, weight int) error
	Remove(ctx context.Context, virtual, addr string) error
	Servers(ctx context.Context, virtual string) ([]string, error) // addresses
}

// ErrNoBalancer says that no balancer is configured.
var ErrNoBalancer = errors.New("center: no balancer serves virtual addresses here; configure one, or remove the virtual address from the module")

func checkMember(virtual, addr string) error {
	if err := checkName("virtual", virtual); err != nil {
		return err
	}
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return fault("addr", addr, "give ip:port, as in 127.0.1.5:7000")
	}
	return nil
}

// Add puts a real server behind a virtual address and waits until the balancer has it. A server that stands there
// already is left as it is, with the key of the act that added it.
func (v *VirtualAddrs) Add(ctx context.Context, server RealServer) (RealServer, error) {
	if server.Weight == 0 {
		server.Weight = 100
	}
	if err := firstOf(checkMember(server.Virtual, server.Addr), checkKey("key", server.Key), checkActor(server.Actor)); err != nil {
		return RealServer{}, err
	}
	if server.Weight < 1 || server.Weight > 256 {
		return RealServer{}, fault("weight", server.Weight, "give 1 to 256")
	}
	if v.balancer == nil {
		return RealServer{}, ErrNoBalancer
	}
	server.At = v.now().UTC()
	done, _, err := v.members.change(ctx, server.Virtual+"/"+server.Addr, func(old RealServer, exists bool) (RealServer, verdict, error) {
		if exists {
			return old, keep, nil
		}
		return server, write, nil
	})
	if err != nil {
		return RealServer{}, err
	}
	if err := v.balancer.Add(ctx, server.Virtual, server.Addr, done.value.Weight); err != nil {
		return done.value, fmt.Errorf("center: add %s to virtual address %s: %w", server.Addr, server.Virtual, err)
	}
	return done.value, nil
}

// Remove takes a real server away and waits until the balancer has let go of it. With a key, only the act that added
// the server takes it away; another's stays. Nothing happens if it is absent.
func (v *VirtualAddrs) Remove(ctx context.Context, virtual, addr, key, actor string) error {
	if err := firstOf(checkMember(virtual, addr), checkActor(actor)); err != nil {
		return err
	}
	other := false
	if _, _, err := v.members.change(ctx, virtual+"/"+addr, func(old RealServer, exists bool) (RealServer, verdict, error) {
		if other = exists && key != "" && old.Key != key; !exists || other {
			return old, keep, nil
		}
		return old, remove, nil
	}); err != nil || other || v.balancer == nil {
		return err
	}
	if err := v.balancer.Remove(ctx, virtual, addr); err != nil {
		return fmt.Errorf("center: remove %s from virtual address %s: %w", addr, virtual, err)
	}
	return nil
}

// List returns the real servers of a virtual address, or of all for an empty name, in order.
func (v *VirtualAddrs) List(ctx context.Context, virtual string, page Page) ([]RealServer, string, error) {
	sub := ""
	if virtual != "" {
		if err := checkName("virtual", virtual); err != nil {
			return nil, "", err
		}
		sub = virtual + "/"
	}
	all, err := v.members.list(ctx, sub)
	if err != nil {
		return nil, "", err
	}
	return cut(all, page, nil)
}

// reconcile makes the balancer hold what the records say, for every virtual address that has records.
func (v *VirtualAddrs) reconcile(ctx context.Context) error {
	if v.balancer == nil {
		return nil
	}
	all, err := v.members.list(ctx, "")
	if err != nil {
		return err
	}
	want := make(map[string][]RealServer)
	for _, one := range all {
		want[one.value.Virtual] = append(want[one.value.Virtual], one.value)
	}
	var faults []error
	for virtual, servers := range want {
		have, err := v.balancer.Servers(ctx, virtual)
		if err != nil {
			faults = append(faults, fmt.Errorf("center: servers of virtual address %s: %w", virtual, err))
			continue
		}
		for _, server := range servers {
			if slices.Contains(have, server.Addr) {
				continue
			}
			v.logger.Info("real server was missing in the balancer", "virtual", virtual, "addr", server.Addr)
			faults = append(faults, v.balancer.Add(ctx, virtual, server.Addr, server.Weight))
		}
		for _, addr := range have {
			// Read again: it may have been added since the listing.
			if slices.ContainsFunc(servers, func(s RealServer) bool { return s.Addr == addr }) {
				continue
			}
			if _, exists, err := v.members.get(ctx, virtual+"/"+addr); err != nil || exists {
				faults = append(faults, err)
				continue
			}
			v.logger.Info("balancer holds a real server that nobody declared", "virtual", virtual, "addr", addr)
			faults = append(faults, v.balancer.Remove(ctx, virtual, addr))
		}
	}
	return errors.Join(faults...)
}

// Virtuals names the virtual addresses that have real servers.
func (v *VirtualAddrs) Virtuals(ctx context.Context) ([]string, error) {
	all, err := v.members.list(ctx, "")
	var out []string
	for _, one := range all {
		name, _, _ := strings.Cut(one.key, "/")
		out = append(out, name)
	}
	return slices.Compact(out), err
}
