// Package e2e holds the end-to-end tests: a server, agents and a module as real processes, killed with SIGKILL at chosen
// moments of an expansion and of a contraction.
//
// Nothing in the product knows of it. Server and agents are told by --exe that a small script is their tool binary; where a
// trap is set for a tool, the script starts the test binary in its place, which stops before, during or after the real
// tool and has the tests kill whom they aim at. `go test` runs a sample; `make e2e` aims at each of the 23 steps in each of the
// three moments at each of the three targets, and adds random seeds.
package e2e
