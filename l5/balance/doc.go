// Package balance is the pure core of l5's choice: which instances are healthy and what each weighs (Group), how one is chosen for
// a call (Picker), and what a caller knows of an instance's load (Load). It has no clock and does no I/O: everything that
// happens to a Group is an Event with a time, and what is to be done comes back as Actions, so that every decision can be
// replayed and explained; all randomness of a Picker comes from its caller.
//
// A shell keeps one Group for each service and one Load for each instance. When a step says Reweighed, it builds a new Picker
// over the Loads with the weights of Statuses, or several over subsets of them, and swaps it in atomically; calls pick without a
// lock. Each call begins on the Load that was picked and ends there; a few times a second the shell hands what happened to the
// group as a Window and lets the Loads age.
//
//	                 Members, Struck, Probed, Window, Tick
//	name service, calls, probes ------------------> Group --- Reweighed ---> new Picker
//	                                                  |                        |  ^
//	                                                Probe                 Pick |  | calls, latency
//	                                                  v                        v  |
//	                                             the network                   Load
//
// What the policies do to the tail is played on a model of a published testbed: go test -run Tail -v prints the table,
// testdata/tail.table has it recorded.
package balance
