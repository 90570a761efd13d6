//go:build !race

package flow_test

const slowed = false
