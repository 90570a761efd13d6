package agent

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	l5agent "github.com/zhiyun-ops/zhiyun/l5/agent"
)

func credentialOf(config Config, step func(string) error) (*credential, error) {
	config.Addr = "127.0.0.1"
	config, err := config.filled()
	c := newCredential(config)
	if step != nil {
		c.step = step
	}
	return c, err
}

// Obtain obtains a device's credential; step is called before each step and may kill the agent.
func Obtain(ctx context.Context, config Config, step func(string) error) error {
	c, err := credentialOf(config, step)
	return errors.Join(err, c.obtain(ctx))
}

// Renew renews it.
func Renew(ctx context.Context, config Config, step func(string) error) error {
	c, err := credentialOf(config, step)
	return errors.Join(err, c.renew(ctx))
}

// Keep keeps it fresh until ctx ends.
func Keep(ctx context.Context, config Config) error {
	c, err := credentialOf(config, nil)
	return errors.Join(err, c.run(ctx))
}

// Whoami calls the server with it, and returns its id.
func Whoami(ctx context.Context, config Config) (string, error) {
	c, err := credentialOf(config, nil)
	if err != nil {
		return "", err
	}
	h, err := c.held()
	if err != nil || h == nil {
		return "", errors.Join(err, errors.New("nothing is held"))
	}
	err = c.calling(func(client controlpbconnect.EnrolServiceClient) error {
		_, err := client.Trust(ctx, connect.NewRequest(&controlpb.TrustRequest{}))
		return err
	})
	return h.ID, err
}

// Process is a program at the other end of the agent's socket.
type Process = l5agent.Process

// Prove says for whom a process may speak.
func Prove(ctx context.Context, supervisor interface {
	Of(ctx context.Context, pid int) (supervise.Spec, error)
}, believe bool, process Process) (l5agent.Standing, error) {
	return prover{supervisor: supervisor, believe: believe}.Prove(ctx, process)
}

// Vigil is one address of a device, stepped by hand.
type Vigil struct{ vigil vigil }

// Sight is what is seen of it.
type Sight struct {
	Running bool
	Starts  int
	Exit    string
	Answers bool
}

// Step takes a sight.
func (v *Vigil) Step(now time.Time, s Sight) bool {
	return v.vigil.step(now, sight{s.Running, s.Starts, s.Exit, s.Answers})
}

// Serves reports whether callers are told that it serves.
func (v *Vigil) Serves() bool { return v.vigil.state == serving }

// String is the state and the reason.
func (v *Vigil) String() string {
	name := [...]string{opening: "opening", serving: "serving", fallen: "fallen", settling: "settling"}[v.vigil.state]
	if v.vigil.reason != "" {
		name += ": " + v.vigil.reason
	}
	return name
}

// Health is what the agent serves at Config.Listen.
var Health = health
