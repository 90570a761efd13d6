package flow

import (
	"context"
	"encoding/json"
	"fmt"
)

// SignalOption says more about a signal.
type SignalOption func(*input)

// SignalID makes a signal idempotent: an execution takes the signals of one ID once, and acknowledges repetitions without a change. Default: each is another one.
func SignalID(id string) SignalOption { return func(in *input) { in.id = id } }

// SignalFrom names who sends it.
func SignalFrom(actor string) SignalOption { return func(in *input) { in.actor = actor } }

// Signal tells an execution that something has happened; payload is any JSON, nil for none. It returns once the signal is durable. A step that waits for a signal of that
// name takes it; if several do, the first in the document, and if none does, the first that will: a signal may be early. One that comes
// after the execution's end is an ErrState.
func (e *Engine) Signal(ctx context.Context, id, name string, payload json.RawMessage, options ...SignalOption) error {
	in, err := signalInput(name, payload, options)
	if err == nil {
		err = e.tell(ctx, id, in)
	}
	if err != nil {
		return fmt.Errorf("flow: signal %s: %w", name, err)
	}
	return nil
}

// RehearseSignal returns the events that a signal would add to an execution at once, as RehearseOrder does.
func (e *Engine) RehearseSignal(ctx context.Context, id, name string, payload json.RawMessage, options ...SignalOption) ([]Event, error) {
	in, err := signalInput(name, payload, options)
	var events []Event
	if err == nil {
		_, events, err = e.rehearse(ctx, id, in)
	}
	if err != nil {
		return nil, fmt.Errorf("flow: signal %s: %w", name, err)
	}
	return events, nil
}

func signalInput(name string, payload json.RawMessage, options []SignalOption) (input, error) {
	in := input{kind: inSignal, name: name, result: Result{Output: payload}}
	for _, option := range options {
		option(&in)
	}
	switch {
	case name == "" || len(name) > 256:
		return in, fmt.Errorf("%w: a signal has a name of 1 to 256 bytes", ErrInvalid)
	case len(payload) > MaxSignal:
		return in, fmt.Errorf("%w: the payload of signal %q has %d bytes; at most %d are taken", ErrInvalid, name, len(payload), MaxSignal)
	case len(payload) > 0 && !json.Valid(payload):
		return in, fmt.Errorf("%w: the payload of signal %q is not JSON", ErrInvalid, name)
	}
	return in, nil
}
