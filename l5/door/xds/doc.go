// Package xds serves services to gRPC programs without a proxy, and endpoints to Envoy, by the xDS protocol: LDS, RDS, CDS
// and EDS over one ADS stream, state of the world, version 3.
//
//	d, err := xds.New(xds.Config{Names: agent, Caller: "shop.web", Listen: "unix:///run/zhiyun/xds.sock"})
//	group.Go(func() error { return d.Run(ctx) })
//
// A gRPC program needs import _ "google.golang.org/grpc/xds", a bootstrap file named by GRPC_XDS_BOOTSTRAP, and the
// target xds:///shop.cart:
//
//	{"xds_servers": [{"server_uri": "unix:///run/zhiyun/xds.sock", "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
//	 "node": {"id": "web-17"}}
//
// The names of listener, route, cluster and endpoints are the service id. Only instances that take calls are endpoints; those
// with a host name for an address are left out, for endpoints are IP addresses. gRPC heeds weights of localities but not of endpoints:
// a locality therefore is a site and a weight, its weight the sum of its endpoints', and round robin within it is fair.
// gRPC's own outlier detection is turned on, since no outcomes are told.
//
// A service that the caller may not call does not exist. Types of resources that the door does not know are ignored.
//
// Sources: Envoy's xDS protocol description; gRFC A27, A42 (weighted localities) and A50 (outlier detection).
package xds
