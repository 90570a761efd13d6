// Package door is what the doors of a device's agent share: the doors let programs that do not speak l5 use its routes.
//
//	dns     A, AAAA and SRV records
//	sd      HTTP service discovery of Prometheus
//	xds     EDS, CDS, RDS and LDS for gRPC clients without a proxy, and for Envoy
//	json    resolve, watch, route and outcome in JSON over HTTP
//	proxy   a TCP address per service
//
// A door reads from Names, which an agent is (*agent.Agent) and ByClient makes of a client. Those that are told no outcomes
// show the health that the agent knows of. Each is a Config, a New that opens nothing and a Run that serves until its context
// ends; each bounds its connections, sizes and times, and listens on loopback unless it is told to serve others.
package door
