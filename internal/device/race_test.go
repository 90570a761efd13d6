//go:build race

package device_test

// stride: with the race detector each of the many processes costs ten times as much, so every third moment serves.
const stride = 3
