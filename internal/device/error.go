package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Error is a tool's failure by name. Code is stable ("package.digest"); Retry tells that the same call may
// succeed later without anybody mending something.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Retry   bool   `json:"retry,omitempty"`
	err     error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func (e *Error) Unwrap() error { return e.err }

// Is makes errors.Is true for an *Error of the same code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// fail makes an Error; an error among args is kept for errors.Is.
func fail(code, format string, args ...any) *Error {
	e := &Error{Code: code, Message: fmt.Sprintf(format, args...)}
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			e.err = err
		}
	}
	return e
}

// later is fail for what may pass by itself.
func later(code, format string, args ...any) *Error {
	e := fail(code, format, args...)
	e.Retry = true
	return e
}

// named gives an error that has no code yet the one that fits its cause.
func named(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		if error(own) == err {
			return own
		}
		return &Error{Code: own.Code, Message: strings.TrimPrefix(err.Error(), own.Code+": "), Retry: own.Retry, err: err}
	}
	code, retry := "device.io", false
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code, retry = "tool.timeout", true
	case errors.Is(err, context.Canceled):
		code, retry = "tool.cancelled", true
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = "device.no_space"
	case strings.Contains(err.Error(), "path escapes from parent"):
		code = "path.outside"
	case errors.Is(err, fs.ErrPermission):
		code = "device.permission"
	}
	return &Error{Code: code, Message: err.Error(), Retry: retry, err: err}
}
