//go:build !race

package tools_test

const sampled = false
