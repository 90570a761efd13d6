package device

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// Client speaks to an agent's device.sock. It is both Processes and Routes.
type Client struct {
	client *http.Client
	base   string
}

var (
	_ Processes = (*Client)(nil)
	_ Routes    = (*Client)(nil)
)

// Dial returns a client of the socket at path. It opens no connection.
func Dial(path string) (*Client, error) {
	client, base, err := transport.Dial(transport.DialConfig{Target: "unix://" + path})
	if err != nil {
		return nil, fail("env.agent", "%v", err)
	}
	return &Client{client, base}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.client.CloseIdleConnections() }

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := c.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return later("agent.unreachable", "ask the agent: %v; is it running?", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return later("agent.unreachable", "read the agent's answer: %v", err)
	}
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, out); err != nil {
			return fail("agent.answer", "the agent's answer to %s: %v", path, err)
		}
		return nil
	}
	var failure struct {
		Error *Error `json:"error"`
	}
	if err := json.Unmarshal(text, &failure); err != nil || failure.Error == nil {
		return later("agent.answer", "the agent answered %s to %s: %s", response.Status, path, text)
	}
	return failure.Error
}

// Start implements Processes.
func (c *Client) Start(ctx context.Context, spec supervise.Spec) error {
	return c.call(ctx, http.MethodPost, "/v1/start", spec, &struct{}{})
}

// Stop implements Processes.
func (c *Client) Stop(ctx context.Context, name string, grace time.Duration) error {
	return c.call(ctx, http.MethodPost, "/v1/stop", nameRequest{Name: name, Grace: grace}, &struct{}{})
}

// Kick implements Processes.
func (c *Client) Kick(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/kick", nameRequest{Name: name}, &struct{}{})
}

// List implements Processes.
func (c *Client) List(ctx context.Context) (list []supervise.Process, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/processes", nil, &list)
	return list, err
}

// Specs implements Processes.
func (c *Client) Specs(ctx context.Context) (specs []supervise.Spec, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/specs", nil, &specs)
	return specs, err
}

// Log implements Processes.
func (c *Client) Log(ctx context.Context, name string, instance int) (text string, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/log", nameRequest{Name: name, Instance: instance}, &text)
	return text, err
}

// Warm implements Routes.
func (c *Client) Warm(ctx context.Context, caller, service string) error {
	return c.call(ctx, http.MethodPost, "/v1/warm", warmRequest{caller, service}, &struct{}{})
}
