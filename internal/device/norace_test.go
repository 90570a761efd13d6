//go:build !race

package device_test

const stride = 1
