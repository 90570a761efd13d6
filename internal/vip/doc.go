// Package vip puts real servers behind a virtual address, and takes them away without breaking a connection.
//
//	proxy, err := vip.NewProxy(vip.ProxyConfig{})              // the built-in TCP one
//	group.Go(func() error { return proxy.Run(ctx) })
//	err = proxy.Add(ctx, "127.0.9.1:80", "127.0.0.7:8080", 100)
//	servers, err := proxy.Servers(ctx, "127.0.9.1:80")
//	err = proxy.Remove(ctx, "127.0.9.1:80", "127.0.0.7:8080")  // returns when its connections are done
//
//	haproxy, err := vip.NewHAProxy(vip.HAProxyConfig{Socket: "/run/haproxy/admin.sock"})
//
// Both are a VIP. Add and Remove may be repeated: they say what shall be, not what to do.
//
// The proxy listens on a virtual address, which is host:port, as long as it has real servers. Each connection
// goes to one of them, by weight (smooth weighted round robin); one that refuses connections is passed over
// and tried again after a while, longer each time. When all refuse, each is tried before the client is let go.
//
// Removing drains: no new connection, the present ones go on. One that has been quiet after the server's last
// word, as kept alive between two requests, is closed; after the drain time so is everything else.
//
// Limits: the proxy forwards bytes and knows nothing of what they mean. HAProxy needs 2.4 or newer (tested with
// 2.6), a stats socket of level admin, and a backend per virtual address with a dynamic balance algorithm. Real
// servers that are added at run time are in no configuration file of HAProxy: after its restart they are added
// again by whoever keeps the list.
package vip
