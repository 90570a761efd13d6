// Package limit holds what keeps an overload from becoming an avalanche, on the side of the caller and of the callee:
// pure cores without a clock, stepped with what became of the calls of a window, and thin shells that lay their
// decisions into atomics, so that a call which meets no overload pays a comparison.
//
//	Throttle   caller   refuses what the callee would reject
//	Adaptive   both     bounds the calls in flight by latency, below a hard healthy bound
//	Budget     caller   bounds the calls that are made again
//	Latencies  caller   quantiles, for hedging and for deadlines
//	Gate       caller   Throttle, Adaptive and Budget before the calls of one service
//	Limiter    callee   Adaptive before a server's handler
//
// Package l5 puts a Gate before each service, and package l5http a Limiter before an http.Handler; most programs need
// no more of this package than its Config types and WithPriority.
//
// # What is refused first
//
// A call has a Priority, carried by its context. Sheddable calls are refused before normal ones, those before critical
// ones: by the throttle in full, by a concurrency limit through shares of 60, 80 and 100 % that each may fill.
//
// # What a caller of few calls sees
//
// Nothing. The throttle asks for 40 calls within ten seconds, the limit for 20 to measure, the budget always has a floor, and a
// limit is on only where its healthy bound is given.
//
// # How it is tested
//
// Scripts in testdata replay the cores step by step. TestOverload and its neighbours run the shipped cores in a seeded
// simulation of callers and servers at two and five times the capacity, through an hour of trouble and a storm of retries,
// and record what came of it; bugs planted on purpose must be found.
package limit
