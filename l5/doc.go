// Package l5 routes calls to the instances of a service: the address is picked in the caller's own process, from a
// copy that is pushed to it, and how the call went decides what is picked next.
//
//	client, err := l5.New(l5.Config{Target: "unix:///run/zhiyun/l5.sock", Caller: "shop.web"})
//	group.Go(func() error { return client.Run(ctx) })
//
//	route, err := client.Route(ctx, "shop.cart") // waits for the first push, later takes nanoseconds
//	begin := time.Now()
//	err = call(route.Addr())
//	route.Done(l5.Outcome{Err: err, Latency: time.Since(begin)})
//
//	web := &http.Client{Transport: l5http.NewTransport(client)} // the same for http://shop.cart/items
//
//	registration, err := client.Register(ctx, "shop.cart", "10.0.0.7:8080") // the other side
//	defer registration.Drain(ctx)
//
// # Who is who
//
// A name server (package server) keeps the registry in a Store. A device's agent (package agent) keeps a copy of what
// the device's programs call, survives the server's death, and holds the lease of what they register. Both speak the
// protocol of package l5pb: Config.Target names either.
//
// # How a route is picked
//
// Each instance has a full weight and a share of it in percent; 0 takes no calls. Two instances are drawn by weight, and
// the one with fewer calls in flight for its weight gets the call. An instance that fails some times in a row is
// ejected for a second, and twice as long each further time; a probe, not a user's call, finds it back; then it is on
// trial. One much slower than the faster quarter of its peers gets less. All this takes away no more than a bounded share
// of a service (balance.Config.MaxEjected): beyond it, instances stay in use although they are down, and Route.Panic,
// Explain, the metrics and the log say so. Client.Explain tells every instance's weight factor by
// factor, with its evidence.
//
// What a service's operator says (package rule) decides before that who is a candidate, and for what part of the calls:
// routes by labels and callers, canaries, instances that are near, a subset for large fan-outs, isolation. RouteFor is
// Route for a call that says something about itself: labels, a hash, the routes that were tried before. None of
// it is evaluated on the call, and neither allocates. A setting comes from Config.Services, then the service's rules, then
// Config.
//
// The processes of a device share what they find out through its agent: of 50 processes, the first to fail warns the others,
// and the agent's probes bring the instance back for all of them. An instance that hangs takes as many calls of theirs as
// begin until three of them have waited for twice as long as nearly all calls take, and not until the first time-outs.
//
// # When a service has too much to do
//
// A service that rejects calls, or lets them wait until nobody does, is sent about twice what it takes and no more: the rest
// gets an ErrOverloaded at once, with the numbers in its RouteError, the least important calls first
// (limit.WithPriority). A call whose deadline is nearer than any answer is not sent either. With Config.Guard.Limit.Healthy,
// the latency above which the service is in trouble, calls in flight are bounded as well, for the service and for each
// instance. Callers of few calls see none of this; package limit says why, and what it was measured to do.
//
// Call makes a call with retries, which a budget bounds to a share of the calls that succeed, and if asked to with a hedge:
//
//	items, err := l5.Call(ctx, client, "shop.cart", fetch, l5.Hedged())
//
// Servers do their part with l5http.Limit or l5grpc.Limit: they refuse at once what they have no place for, and tell callers
// how full they are, from which weights and throttles follow.
//
// # Life cycle
//
// New checks the Config and opens nothing. Run connects, reports outcomes about once a second, and blocks until its
// context ends. Route may be called before, during and after Run: before, it waits; after, it goes on from what is known,
// with health standing still and guards open. While the name service is away everything goes on from memory, and is reported later. A
// process that starts meanwhile routes by the table that the device's agent left (Config.Table); Explain says from when
// that is.
//
// # Limits
//
// A service stays subscribed to until the process ends. Calls that a program makes without Route and Done are not seen.
// Outcomes that were acknowledged by an agent which then crashes within half a second are lost to the statistics.
package l5
