package server_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/server"
)

func TestAFaultIsToldOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	tell := server.Faults(slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		tell("shop.cart", errors.New("scale.params.high"))
		tell("shop.web", nil)
	}
	tell("shop.cart", errors.New("scale.params.target"))
	tell("shop.cart", nil)
	tell("shop.cart", nil)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "high") || !strings.Contains(lines[1], "target") || !strings.Contains(lines[2], "again") {
		t.Errorf("told:\n%s", log.String())
	}
}
