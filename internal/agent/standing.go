package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
)

// ErrRefused says that the server does not take the credential that the agent has. It does not help to try again.
var ErrRefused = errors.New("agent: the server does not take this device's credential")

// standingEvery is how often the server is asked whether it still takes the credential, beside what the agent does with it:
// rarely, since a fleet asks.
const standingEvery = 15 * time.Minute

// accepted asks the server whether it takes the credential. ErrRefused says that it does not, any other error that it could
// not be asked. Without a credential of the agent's own there is nothing to ask.
func (c *credential) accepted(ctx context.Context) error {
	h, err := c.held()
	if err != nil || h == nil || c.config.TokenFile != "" {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = c.calling(func(client controlpbconnect.EnrolServiceClient) error {
		_, err := client.Trust(bound, connect.NewRequest(&controlpb.TrustRequest{}))
		return err
	})
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		return err
	}
	return fmt.Errorf("%w, %s: %w; if it was revoked for a reason, leave it at that; else make a token on the server, zhiyun token enrol %s, "+
		"remove %s, and start the agent with --enrol @FILE", ErrRefused, h.ID, err, c.config.Device, c.dir)
}

// standing keeps an eye on whether the server takes the credential. An agent that starts without that ends at once; one that
// serves goes on, since what its programs call has done nothing wrong, and says so once, in its log and its metrics.
type standing struct {
	credential *credential
	refused    prometheus.Gauge
}

func newStanding(c *credential, registry prometheus.Registerer) (*standing, error) {
	s := &standing{credential: c, refused: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "zhiyun_agent_credential_refused", Help: "1 while the server does not take the device's credential.",
	})}
	return s, registry.Register(s.refused)
}

func (s *standing) run(ctx context.Context) error {
	log, told := s.credential.config.Logger, false
	for {
		timer := time.NewTimer(standingEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		switch err := s.credential.accepted(ctx); {
		case errors.Is(err, ErrRefused):
			s.refused.Set(1)
			if !told {
				log.Error("nothing new reaches this device; what it knows is served", "error", err)
			}
			told = true
		case err == nil && told:
			s.refused.Set(0)
			log.Info("the server takes the device's credential again")
			told = false
		}
	}
}
