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
	var callers agent.Callers
	var once sync.Once
	asked := make(chan struct{})
	callers = agent.NewCallers(func(string) {
		once.Do(func() { // of two that are forgotten, the first is; the other is about to be
			go func() {
				defer close(asked)
				callers.Ask("c", "a")
				callers.Ask("c", "b")
			}()
			select {
			case <-asked:
			case <-time.After(50 * time.Millisecond): // it waits, as it should
			}
		})
	})
	now := time.Now()
	for _, service := range []string{"a", "b"} {
		callers.Ask("c", service)
		callers.Release("c", service, now)
	}
	callers.Sweep(now.Add(time.Minute))
	<-asked
	if got := callers.Wanted(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("subscribed to %v, want a and b", got)
	}
}
