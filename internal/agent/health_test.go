package agent_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
)

// An agent lives before it is ready, and says what it waits for.
func TestReadyOnceEachPartServes(t *testing.T) {
	t.Parallel()
	var wrong error
	handler := agent.Health(prometheus.NewRegistry(), func(context.Context) error { return nil }, func(context.Context) error { return wrong })
	get := func(path string) (int, string) {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		return answer.Code, answer.Body.String()
	}
	wrong = errors.New("the socket is not open yet")
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, wrong.Error()) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	wrong = nil
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if code, body := get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
