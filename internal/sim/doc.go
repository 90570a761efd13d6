// Package sim runs pure cores in virtual time under faults, from a seed: the same seed gives the same run, event for
// event. A World is the event loop, a Plan says which faults happen when, Explore tries seeds and shrinks the plan of
// one that fails to the faults that matter.
//
//	failure := sim.Explore(sim.Config{Seeds: 300, Nodes: []string{"server", "agent"}}, func(w *sim.World) func() error {
//		... build the cores, w.After(...) and w.Send(...) between them ...
//		return func() error { return whatIsWrongAtTheEnd }
//	})
//	if failure != nil {
//		t.Fatal(failure) // the seed, the shrunken plan, what is wrong
//	}
//
// A scenario uses no clock, no goroutine, no map order and no randomness but the World's.
package sim
