package wiring

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// AudienceConfig says whose audiences are kept, and where.
type AudienceConfig struct {
	Names interface {
		Audience() []l5server.Audience
	}
	Records interface {
		AddAudience(ctx context.Context, audiences []records.Audience) error
	}
	// Every is the time between two looks; half the width of a bucket of the records sees what a bucket needs.
	Every  time.Duration
	Logger *slog.Logger // default: off
}

// Audience keeps in the records who is there to report load, so that silence is told from rest: a service whose callers
// are all cut off has no load that anybody knows.
type Audience struct {
	config AudienceConfig
	loop   *reconcile.Loop
	noted  map[string]l5server.Audience // by the loop alone; as the records have it
}

// NewAudience returns an Audience that does nothing until Run. All faults of config are reported at once.
func NewAudience(config AudienceConfig) (*Audience, error) {
	if config.Names == nil || config.Records == nil {
		return nil, errors.New("audience: Names or Records is nil: give the name service and the records")
	}
	a := &Audience{config: config, noted: make(map[string]l5server.Audience)}
	var err error
	a.loop, err = reconcile.New(reconcile.Config{Name: "audience", Interval: config.Every, Pass: a.look, Logger: config.Logger})
	return a, err
}

// Run notes what changed, at each interval, until ctx ends. What the records hold from the run before stays until
// somebody of the service is seen: callers that do not come back after a restart are not taken for gone.
func (a *Audience) Run(ctx context.Context) error { return a.loop.Run(ctx) }

func (a *Audience) look(ctx context.Context) error {
	now := make(map[string]l5server.Audience, len(a.noted))
	var changed []records.Audience
	for _, s := range a.config.Names.Audience() {
		now[s.Service] = s
		if a.noted[s.Service] != s {
			changed = append(changed, records.Audience(s))
		}
	}
	for service := range a.noted {
		if _, there := now[service]; !there {
			changed = append(changed, records.Audience{Service: service})
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := a.config.Records.AddAudience(ctx, changed); err != nil {
		return err // noted stays: the next look writes it again
	}
	a.noted = now
	return nil
}
