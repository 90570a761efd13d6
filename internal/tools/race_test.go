//go:build race

package tools_test

// sampled: with the race detector each of the many processes that are tools costs ten times as much.
const sampled = true
