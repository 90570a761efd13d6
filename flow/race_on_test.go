//go:build race

package flow_test

// slowed says that the race detector is on: tests that try every point try some.
const slowed = true
