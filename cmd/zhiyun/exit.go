package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control"
)

// Exit codes, the same for every verb but `tool NAME`, whose codes are those of the contract of tools. What a signal ended has 128 and the signal's number,
// as shells count. docs/guides/cli.md shows them to users.
const (
	exitFailed = 1 // it was asked for rightly, and failed, or what was looked at is not in order
	exitUsage  = 2 // the call was wrong: a flag, a file, a document, or the name of something that is not there
	exitNotNow = 3 // the server is away, busy, or others were faster: the same call may succeed later
)

// signalled is why a context ended: the program was sent a signal.
type signalled struct{ signal syscall.Signal }

func (s signalled) Error() string { return s.signal.String() }

// untilSignalled returns a context that the first SIGINT or SIGTERM ends; the next one ends the program. stop gives both back to the program.
func untilSignalled() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { // ends with stop, which waits for it
		defer close(ended)
		select {
		case got := <-signals:
			signal.Stop(signals)
			number, _ := got.(syscall.Signal)
			cancel(signalled{number})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(context.Canceled)
		<-ended
	}
}

// ending is what a verb's error says to the terminal, and the exit code; cause is why the context ended, if it has.
func ending(err, cause error) (message string, code int) {
	var by signalled
	var exit cli.ExitCoder
	switch {
	case err == nil:
		return "", 0
	case errors.As(cause, &by) && (errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled):
		return "", 128 + int(by.signal) // whoever sent it knows
	case errors.As(err, &exit):
		return exit.Error(), exit.ExitCode()
	case errors.Is(err, context.DeadlineExceeded):
		return err.Error(), exitNotNow
	}
	return err.Error(), exitFailed
}

// plainError is an error of the API without Connect's wrapping; its words say what to do, and it has the exit code that its kind has.
func plainError(err error) error {
	var wire *connect.Error
	if !errors.As(err, &wire) {
		return err
	}
	if changes, ok := control.Rehearsed(err); ok {
		return &rehearsedError{changes}
	}
	text := wire.Message()
	switch code := wire.Code(); {
	case code == connect.CodeCanceled:
		return fmt.Errorf("%s: %w", text, context.Canceled)
	case code == connect.CodeUnavailable && !connect.IsWireError(err):
		return cli.Exit("the server cannot be reached: "+text, exitNotNow)
	case code == connect.CodeUnauthenticated:
		return fmt.Errorf("the server wants a token: give --token-file (%s)", text)
	case code == connect.CodeInvalidArgument, code == connect.CodeNotFound, code == connect.CodeOutOfRange: // the text says what to do; no help knows of it
		return cli.Exit(text, exitUsage)
	case code == connect.CodeUnimplemented:
		return fmt.Errorf("the server does not do this: it is older than this zhiyun, or runs without that part (%s)", text)
	case control.Retryable(err):
		return cli.Exit(text, exitNotNow)
	}
	return errors.New(text)
}
