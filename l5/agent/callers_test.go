package agent_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/agent"
)

// Who asks again for a service in the moment in which it is forgotten is subscribed to it.
func TestAskedAgainWhileForgotten(t *testing.T) {
	t.Parallel()
	services := []string{"a", "b", "c"}
	var callers agent.Callers
	var again []string
	var asking sync.WaitGroup
	callers = agent.NewCallers(func(service string) {
		if again == nil { // the first that is forgotten; the others are about to be
			for _, other := range services {
				if other != service {
					again = append(again, other)
					asking.Go(func() { callers.Ask("c", other) })
				}
			}
		}
		<-time.After(20 * time.Millisecond) // long enough for them to come
	})
	now := time.Now()
	for _, service := range services {
		callers.Ask("c", service)
		callers.Release("c", service, now)
	}
	callers.Sweep(now.Add(time.Minute))
	asking.Wait()
	if got := callers.Wanted(); !slices.Equal(got, again) {
		t.Errorf("subscribed to %v, want %v", got, again)
	}
}
