package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	l5agent "github.com/zhiyun-ops/zhiyun/l5/agent"
)

// ErrUnproved says that nobody vouches for a program that asks for routes.
var ErrUnproved = errors.New("agent: not started by this agent: start the program as a process of a package, or, for development, run the agent with --believe")

// prover knows for which module a process of this device may speak: that of the package's process that it is, or was
// started by. The kernel says which process asks, the supervisor which module it was started for.
type prover struct {
	supervisor interface {
		Of(ctx context.Context, pid int) (supervise.Spec, error)
	}
	believe bool // programs that nobody has started here are taken at their word
}

// Prove is an l5/agent.Config.Prove.
func (p prover) Prove(ctx context.Context, process l5agent.Process) (l5agent.Standing, error) {
	if int(process.UID) != os.Getuid() && process.UID != 0 {
		return l5agent.Standing{}, fmt.Errorf("%w: it is another user's than the agent's, %d", ErrUnproved, os.Getuid())
	}
	if process.PID == os.Getpid() { // the agent itself keeps routes warm for the modules of its device
		return l5agent.Standing{Any: true}, nil
	}
	bound, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	spec, err := p.supervisor.Of(bound, process.PID)
	switch {
	case err == nil && spec.Module != "":
		return l5agent.Standing{Module: spec.Module}, nil
	case p.believe:
		return l5agent.Standing{Any: true}, nil
	case err == nil:
		return l5agent.Standing{}, fmt.Errorf("%w: its process %s was started for no module", ErrUnproved, spec.Name)
	}
	return l5agent.Standing{}, fmt.Errorf("%w (%w)", ErrUnproved, err)
}
