package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/vip"
)

// balancer serves the virtual addresses that modules declare, by the built-in proxy or by HAProxy. It is a
// center.Balancer: there a virtual address has a name, here it gets its address. HAProxy's backend has the name.
type balancer struct {
	vip   vip.VIP
	proxy *vip.Proxy // nil with HAProxy
	cmdb  *cmdb.DB
}

func newBalancer(config Config, db *cmdb.DB) (*balancer, error) {
	b := &balancer{cmdb: db}
	if config.HAProxy != "" {
		haproxy, err := vip.NewHAProxy(vip.HAProxyConfig{Socket: strings.TrimPrefix(config.HAProxy, "unix://")})
		b.vip = haproxy
		return b, err
	}
	proxy, err := vip.NewProxy(vip.ProxyConfig{Logger: config.Logger})
	b.vip, b.proxy = proxy, proxy
	return b, err
}

func (b *balancer) run(ctx context.Context) error {
	if b.proxy == nil {
		<-ctx.Done()
		return nil
	}
	return b.proxy.Run(ctx)
}

// address is what the VIP calls a virtual address of the given name.
func (b *balancer) address(name string) (string, error) {
	if b.proxy == nil {
		return name, nil
	}
	for _, module := range b.cmdb.Modules() {
		for _, virtual := range module.VirtualAddrs {
			if virtual.Name == name {
				return virtual.Addr, nil
			}
		}
	}
	return "", fmt.Errorf("virtual address %q: no module declares it; declare it under virtual_addrs", name)
}

// Add implements center.Balancer.
func (b *balancer) Add(ctx context.Context, virtual, addr string, weight int) error {
	address, err := b.address(virtual)
	if err != nil {
		return err
	}
	return b.vip.Add(ctx, address, addr, weight)
}

// Remove implements center.Balancer. A virtual address that nobody declares any more has nothing behind it.
func (b *balancer) Remove(ctx context.Context, virtual, addr string) error {
	address, err := b.address(virtual)
	if err != nil {
		return nil
	}
	return b.vip.Remove(ctx, address, addr)
}

// Servers implements center.Balancer.
func (b *balancer) Servers(ctx context.Context, virtual string) ([]string, error) {
	address, err := b.address(virtual)
	if err != nil {
		return nil, nil
	}
	servers, err := b.vip.Servers(ctx, address)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, 0, len(servers))
	for _, server := range servers {
		if server.State != vip.Draining {
			addrs = append(addrs, server.Addr)
		}
	}
	return addrs, nil
}
