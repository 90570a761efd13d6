// Package load offers load to a service as the world does: requests come when they come, whether the ones
// before were answered or not.
//
//	generator, err := load.New(load.Config{Call: call, Seed: 1})
//	generator.SetPhase(load.Phase{Name: "calm", Rate: 100})
//	group.Go(func() error { return generator.Run(ctx) })
//	group.Go(func() error { return generator.Control(os.Stdin) }) // lines such as "burst 300"
//	report := generator.Report()
//	fmt.Println(report.Phases[0].Latency.Quantile(0.99))
//
// The schedule comes from the seed and the rate alone (open loop). A request's latency counts from the moment
// at which it was to be sent: a generator or a service that falls behind shows in the figures, and is not left
// out of them. A request belongs to the phase in which it was scheduled.
//
// Life cycle: New starts nothing. Run sends until its context ends, and then waits for what is outstanding,
// each call bounded by Config.Timeout. SetPhase, Control and Report may be called at any time.
//
// Limits: at most MaxOutstanding calls are in flight; what comes above that is counted as dropped, which is a
// failure of the generator's machine or of a service that hangs, never silent.
package load
