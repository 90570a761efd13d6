package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

var (
	// ErrAbsent says that this server runs without the part that was asked.
	ErrAbsent = errors.New("control: this server runs without that part; ask another, or start it with the part on")
	// ErrInput says that a request is wrong in itself.
	ErrInput = errors.New("control: invalid request")
)

// NameHeader carries the name of an error.
const NameHeader = "Zhiyun-Error"

// Kind is a kind of errors, with its Connect code and its name.
type Kind struct {
	Is   error
	Code connect.Code
	Name string
}

// The errors that every part has: those that count before a part's own, and those that count after them.
var (
	before = []Kind{
		{context.Canceled, connect.CodeCanceled, "cancelled"},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded, "timeout"},
		{ErrAbsent, connect.CodeUnimplemented, "absent"},
		{auth.ErrDenied, connect.CodePermissionDenied, "denied"},
		{ErrInput, connect.CodeInvalidArgument, "invalid"},
	}
	after = []Kind{
		{store.ErrFenced, connect.CodeAborted, "fenced"},
		{store.ErrConflict, connect.CodeAborted, "contended"},
		{store.ErrNoSpace, connect.CodeResourceExhausted, "no_space"},
	}
)

// Names gives every error of a handler its code and its name: those of Kinds, of which the first that matches counts, or those that every part has.
type Names struct{ Kinds []Kind }

// WrapUnary implements connect.Interceptor.
func (n Names) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		return response, n.wire(err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (Names) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (n Names) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return n.wire(next(ctx, conn))
	}
}

func (n Names) wire(err error) error {
	var already *connect.Error
	if err == nil || errors.As(err, &already) {
		return err
	}
	for _, kind := range slices.Concat(before, n.Kinds, after) {
		if errors.Is(err, kind.Is) {
			out := connect.NewError(kind.Code, err)
			out.Meta().Set(NameHeader, kind.Name)
			return out
		}
	}
	return connect.NewError(connect.CodeUnavailable, err)
}

// Refusal is an error with a name of its own.
func Refusal(code connect.Code, name, text string, args ...any) error {
	out := connect.NewError(code, fmt.Errorf(text, args...))
	out.Meta().Set(NameHeader, name)
	return out
}

// NameOf returns the name of an error that came over the API, or of its Connect code where it has none.
func NameOf(err error) string {
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return ""
	}
	if name := remote.Meta().Get(NameHeader); name != "" {
		return name
	}
	return remote.Code().String()
}

// Retryable says whether the same call may succeed later.
func Retryable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeAborted, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted:
		return true
	}
	return false
}
