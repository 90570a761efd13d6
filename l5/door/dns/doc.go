// Package dns answers DNS queries for services: who can resolve a name can call a service, at the price that it is told no
// outcomes and so shares only the health that others found.
//
//	d, err := dns.New(dns.Config{Names: agent, Caller: "shop.web", Listen: "127.0.0.1:5300"})
//	group.Go(func() error { return d.Run(ctx) })
//
//	$ dig @127.0.0.1 -p 5300 shop.cart.l5 A
//	$ dig @127.0.0.1 -p 5300 shop.cart.l5 SRV       # or _http._tcp.shop.cart.l5
//
// A service is SERVICE.l5, in lower case: DNS does not tell cases apart. Only instances that take calls are answered, in an
// order drawn by weight; of large services a sample. An SRV target is an address in hexadecimal below addr.l5, or the
// instance's own host name.
//
// A service with instances of which none fits is NOERROR without an answer; a name that no service has is NXDOMAIN, unless a known
// service is below it. A service that the caller may not call and names of other zones are REFUSED. While the name service has never answered, SERVFAIL.
//
// Sources: RFC 1035, RFC 2308 (negative answers), RFC 2782 (SRV), RFC 6891 (EDNS), RFC 8020 (NXDOMAIN), RFC 8482 (ANY).
package dns
