package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A server that ends soon after its start is started again, later each time, and given up after a minute of that; one that ran well begins anew.
func TestAServerIsStartedAgainWithPatience(t *testing.T) {
	var r restarts
	var waits []time.Duration
	for {
		wait, again := r.next(time.Second)
		if !again {
			break
		}
		waits = append(waits, wait)
	}
	want := []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("it waits (-want +got):\n%s", diff)
	}
	r = restarts{}
	for range 3 * mostSoon {
		if wait, again := r.next(time.Minute); wait != 0 || !again {
			t.Fatalf("one that ran well: %v, %v", wait, again)
		}
		if _, again := r.next(time.Second); !again {
			t.Fatal("one bad start in between was one too many")
		}
	}
}
