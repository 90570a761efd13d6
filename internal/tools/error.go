package tools

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/control"
)

// Error is a tool's failure by name. Code is stable ("device.none"); Retry tells that the same call may succeed later
// without anybody mending something.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Retry   bool   `json:"retry"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Is makes errors.Is true for an *Error of the same code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

func fail(code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// later is fail for what may pass by itself.
func later(code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Retry: true}
}

// named gives an error of the API the name that it came with.
func named(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var remote *connect.Error
	if errors.As(err, &remote) {
		name := control.NameOf(err)
		if code := remote.Code(); code == connect.CodeCanceled || code == connect.CodeDeadlineExceeded {
			name = "timeout"
		}
		return &Error{Code: name, Message: remote.Message(), Retry: control.Retryable(err) || name == "timeout"}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Error{Code: "timeout", Message: err.Error(), Retry: true}
	}
	return &Error{Code: "tool.failed", Message: err.Error(), Retry: true}
}

// isCode tells whether an error of the API or of a tool has a name.
func isCode(err error, code string) bool { return err != nil && named(err).Code == code }
