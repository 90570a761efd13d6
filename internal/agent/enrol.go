package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// ErrEnrol says that the server has refused the enrolment, by name.
var ErrEnrol = errors.New("agent: enrolment was refused")

// Enrolled says whether the agent of the device at root has a credential that is good at a moment.
func Enrolled(root string, at time.Time) bool {
	content, err := os.ReadFile(newCredential(Config{Root: root}).path("device.json"))
	var h held
	return err == nil && json.Unmarshal(content, &h) == nil && at.Before(h.Expires)
}

// obtain makes sure that there is a credential that is good now: the one that is held, or one that the enrolment token is
// exchanged for. It waits for a server that does not answer.
func (c *credential) obtain(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	have, err := c.held()
	if err != nil {
		return err
	}
	if have != nil && c.now().Before(have.Expires) {
		return nil
	}
	if c.config.Enrol == "" {
		if have != nil {
			return fmt.Errorf("%w (the last one, %s, ended at %s)", ErrNoCredential, have.ID, have.Expires.Format(time.RFC3339))
		}
		return ErrNoCredential
	}
	token, err := c.enrolment()
	if err != nil {
		return err
	}
	told := false
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := c.enrol(ctx, token)
		if err == nil || ctx.Err() != nil || !later(err) {
			return err
		}
		if !told {
			told = true
			c.config.Logger.Warn("waiting for the server, to enrol", "server", c.config.Server, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// later says whether the server may answer otherwise later.
func later(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeAborted:
		return !errors.Is(err, ErrEnrol)
	}
	return false
}

// enrolment reads the token that was given as text or as @FILE.
func (c *credential) enrolment() (auth.Token, error) {
	text := c.config.Enrol
	if path, file := strings.CutPrefix(text, "@"); file {
		var err error
		if text, err = auth.ReadToken(path); err != nil {
			return auth.Token{}, err
		}
	}
	token, err := auth.ParseToken(text)
	if err != nil {
		return token, fmt.Errorf("agent: the enrolment token: %w", err)
	}
	return token, nil
}

func enrolClient(dial transport.DialConfig) (controlpbconnect.EnrolServiceClient, func(), error) {
	client, base, err := transport.Dial(dial)
	if err != nil {
		return nil, nil, err
	}
	return controlpbconnect.NewEnrolServiceClient(client, base), client.CloseIdleConnections, nil
}

// enrol exchanges the token once.
func (c *credential) enrol(ctx context.Context, token auth.Token) error {
	secure, err := c.config.TLS.TLS()
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if token.Pin != "" {
		secure = certs.Pinned(token.Pin)
	}
	token.Pin = "" // the server need not be told
	client, done, err := enrolClient(transport.DialConfig{Target: c.config.Server, Token: token.String(), TLS: secure})
	if err != nil {
		return err
	}
	defer done()
	return c.exchange(ctx, func(ctx context.Context, q *controlpb.EnrolRequest) (*controlpb.EnrolResponse, error) {
		answer, err := client.Enrol(ctx, connect.NewRequest(q))
		if err == nil {
			return answer.Msg, nil
		}
		switch connect.CodeOf(err) {
		case connect.CodePermissionDenied, connect.CodeUnauthenticated, connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeUnimplemented:
			return nil, fmt.Errorf("%w: %w", ErrEnrol, err)
		}
		if errors.Is(err, certs.ErrPin) {
			return nil, fmt.Errorf("%w: %w", ErrEnrol, certs.ErrPin)
		}
		return nil, err
	})
}

// renew exchanges what is held for its successor.
func (c *credential) renew(ctx context.Context) error {
	return c.calling(func(client controlpbconnect.EnrolServiceClient) error {
		return c.exchange(ctx, func(ctx context.Context, q *controlpb.EnrolRequest) (*controlpb.EnrolResponse, error) {
			answer, err := client.Renew(ctx, connect.NewRequest(q))
			if err != nil {
				return nil, err
			}
			return answer.Msg, nil
		})
	})
}

// calling calls with what is held now.
func (c *credential) calling(do func(controlpbconnect.EnrolServiceClient) error) error {
	dial, err := c.dial()
	if err != nil {
		return err
	}
	client, done, err := enrolClient(dial)
	if err != nil {
		return err
	}
	defer done()
	return do(client)
}

// run renews at two thirds of the credential's life, and follows the CAs to trust, until ctx ends. What fails is tried
// again; meanwhile what is held is good.
func (c *credential) run(ctx context.Context) error {
	last := ""
	for ctx.Err() == nil {
		h, err := c.held()
		if err != nil {
			return err
		}
		if h == nil || c.config.TokenFile != "" { // somebody else keeps it fresh
			<-ctx.Done()
			return nil
		}
		pace := min(max(h.Expires.Sub(h.From)/20, 100*time.Millisecond), time.Hour)
		wait := min(pace, max(0, h.renewAt().Sub(c.now())))
		switch {
		case last != "":
			wait = pace
		case c.pending():
			wait = 0 // an agent was killed while it renewed
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err = c.upkeep(ctx, h)
		switch {
		case err == nil || ctx.Err() != nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			c.config.Logger.Warn("the device's credential is not kept fresh; trying again", "id", h.ID, "expires", h.Expires, "error", err)
		}
	}
	return nil
}

// upkeep does what is due.
func (c *credential) upkeep(ctx context.Context, h *held) error {
	if c.pending() || !c.now().Before(h.renewAt()) {
		return c.renew(ctx)
	}
	if !h.Trust {
		return nil
	}
	return c.calling(func(client controlpbconnect.EnrolServiceClient) error {
		bound, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		answer, err := client.Trust(bound, connect.NewRequest(&controlpb.TrustRequest{}))
		if err != nil {
			return err
		}
		have, err := os.ReadFile(c.path("ca.pem"))
		if err != nil || string(have) == string(answer.Msg.Trust) || len(answer.Msg.Trust) == 0 {
			return err
		}
		if _, err := certs.ParseBundle(answer.Msg.Trust); err != nil {
			return fmt.Errorf("agent: the CAs that the server tells: %w", err)
		}
		c.config.Logger.Info("the CAs to trust have changed")
		return auth.WriteSecret(c.path("ca.pem"), answer.Msg.Trust)
	})
}
