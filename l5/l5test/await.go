package l5test

import (
	"testing"
	"time"
)

// Await waits until ok returns true, and fails the test if it has not within a minute.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited a minute in vain: %s", what)
		case <-ticker.C:
		}
	}
}
