// Package json lets any program with an HTTP client resolve services, watch them, route calls and tell how they went.
//
//	d, err := json.New(json.Config{Names: agent, Caller: "shop.web", Router: client})
//	agent.Handle("/v1/", d.Handler())                  // on the agent's own socket, whose mode decides who may
//	group.Go(func() error { return d.Run(ctx) })       // and on Config.Listen, for those who bear Config.Token
//
//	$ curl --unix-socket /run/zhiyun/l5.sock http://l5/v1/services/shop.cart
//	{"service":"shop.cart","revision":7,"instances":[{"addr":"10.0.0.7:8080","weight":100, ...}]}
//
//	GET  /v1/services/SERVICE               what is known, with an ETag
//	       If-None-Match: TAG, ?wait=30s    the next state, or 304 after that time
//	       Accept: text/event-stream        each state as it comes
//	POST /v1/services/SERVICE/route         one pick: {"id": ..., "addr": ...}
//	POST /v1/outcomes                       how it went: {"id": ..., "error": "...", "overloaded": false, "latency_ms": 3.2}
//
// weight is that in force: an instance of weight 0 takes no calls. A pick counts as a call in flight until its
// outcome comes, or for Config.OpenFor; then it is forgotten as if it had not been made. An outcome without an error is a success; its
// latency is that given, or else the time from pick to outcome. Where Config.Protocol is set, Config.Listen serves Connect, gRPC
// and gRPC-Web as well: the agent's own protocol.
//
// Errors are {"error": "..."} with 400 for a bad request, 401 and 403 as door.Guard says, 403 without a grant, 404 for a service
// without an instance to route to and for ids that are not open, 429 for overload and 503 while nothing is known or too much is asked.
package json
