package agent_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	l5agent "github.com/zhiyun-ops/zhiyun/l5/agent"
)

// origins is a supervisor that has started what it says.
type origins map[int]supervise.Spec

func (o origins) Of(_ context.Context, pid int) (supervise.Spec, error) {
	if spec, ok := o[pid]; ok {
		return spec, nil
	}
	return supervise.Spec{}, supervise.ErrUnknown
}

func TestWhoIsBelieved(t *testing.T) {
	t.Parallel()
	started := origins{10: {Name: "web", Module: "shop.web"}, 11: {Name: "cron"}}
	own := uint32(os.Getuid())
	for what, c := range map[string]struct {
		process agent.Process
		believe bool
		want    l5agent.Standing
		refused bool
	}{
		"a module's process":                 {agent.Process{UID: own, PID: 10}, false, l5agent.Standing{Module: "shop.web"}, false},
		"the same where claims are believed": {agent.Process{UID: own, PID: 10}, true, l5agent.Standing{Module: "shop.web"}, false},
		"a process of no module":             {agent.Process{UID: own, PID: 11}, false, l5agent.Standing{}, true},
		"a stranger":                         {agent.Process{UID: own, PID: 12}, false, l5agent.Standing{}, true},
		"a stranger that is believed":        {agent.Process{UID: own, PID: 12}, true, l5agent.Standing{Any: true}, false},
		"the kernel tells no process":        {agent.Process{UID: own}, false, l5agent.Standing{}, true},
		"another user's":                     {agent.Process{UID: own + 1, PID: 10}, true, l5agent.Standing{}, true},
		"the agent itself":                   {agent.Process{UID: own, PID: os.Getpid()}, false, l5agent.Standing{Any: true}, false},
	} {
		got, err := agent.Prove(t.Context(), started, c.believe, c.process)
		if got != c.want || errors.Is(err, agent.ErrUnproved) != c.refused {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}
