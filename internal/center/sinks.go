package center

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
)

// LogSink writes notices to a logger.
type LogSink struct{ Logger *slog.Logger }

// Name implements Sink.
func (LogSink) Name() string { return "log" }

// Deliver implements Sink.
func (s LogSink) Deliver(ctx context.Context, notice Notice) error {
	level := slog.LevelInfo
	switch notice.Severity {
	case Warning:
		level = slog.LevelWarn
	case Critical:
		level = slog.LevelError
	}
	s.Logger.LogAttrs(ctx, level, notice.Text, slog.String("notice", notice.ID), slog.String("kind", notice.Kind),
		slog.String("module", notice.Module), slog.String("device", notice.Device))
	return nil
}

// Webhook posts each notice as JSON to a URL; any 2xx answer takes it.
type Webhook struct {
	name, url string
	client    *http.Client
}

// NewWebhook returns a web hook. A nil client is one without credentials, which calls no link-local address; bounds come from the context.
func NewWebhook(name, target string, client *http.Client) (*Webhook, error) {
	if err := firstOf(checkName("web hook", name), checkURL("url", target)); err != nil {
		return nil, err
	}
	if client == nil {
		client = reach{}.client()
	}
	return &Webhook{name, target, client}, nil
}

func checkURL(field, target string) error {
	parsed, err := url.Parse(target)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return fault(field, target, "give an http or https URL, as in https://alerts.example/hook")
	}
	return nil
}

// Name implements Sink.
func (w *Webhook) Name() string { return w.name }

// Deliver implements Sink.
func (w *Webhook) Deliver(ctx context.Context, notice Notice) error {
	_, err := call(ctx, w.client, http.MethodPost, w.url, notice)
	return err
}

// call sends JSON and returns the body of a 2xx answer.
func call(ctx context.Context, client *http.Client, method, target string, in any) ([]byte, error) {
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("center: encode: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("center: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("center: %w", err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 8<<20))
	if err != nil {
		return nil, fmt.Errorf("center: %s %s: %w", method, target, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, &answerError{method, target, answer.StatusCode, clip(string(content))}
	}
	return content, nil
}

// answerError is an answer other than 2xx.
type answerError struct {
	method, target string
	status         int
	body           string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("center: %s %s answered %d: %s", e.method, e.target, e.status, e.body)
}
