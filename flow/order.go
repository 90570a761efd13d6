package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The orders that a person can give to an open execution, by name.
const (
	OrderCancel = "cancel"
	OrderRetry  = "retry"
	OrderPause  = "pause"
	OrderResume = "resume"
	// What follows is about one step of it.
	OrderSkip      = "skip"
	OrderFail      = "fail"
	OrderRetryStep = "retry-step"
	OrderBack      = "back"
	OrderSettle    = "settle"
	OrderApprove   = "approve"
	OrderRefuse    = "refuse"
	OrderChoose    = "choose"

	OrderMigrate = "migrate"
)

// orders are the inputs that they come to.
var orders = map[string]inputKind{
	OrderCancel: inCancel, OrderRetry: inRetry, OrderPause: inPause, OrderResume: inResume,
	OrderSkip: inSkip, OrderFail: inFail, OrderRetryStep: inRetryStep, OrderBack: inBack, OrderSettle: inSettle,
	OrderApprove: inApprove, OrderRefuse: inRefuse, OrderChoose: inChoose, OrderMigrate: inMigrate,
}

// orderNames lists the orders.
func orderNames() []string { return slices.Sorted(maps.Keys(orders)) }

// Order gives an execution an order by its name: what the method of that name does.
func (e *Engine) Order(ctx context.Context, id, order string, i Intervention) error {
	kind, known := orders[order]
	if !known {
		return fmt.Errorf("flow: %w: there is no order %q; want one of %s", ErrInvalid, order, strings.Join(orderNames(), ", "))
	}
	return e.intervene(ctx, id, kind, i)
}

// RehearseOrder returns the events that an order would add to an execution at once, from what is stored of it: of those
// that come later, as undos end, it says nothing. None: the order would change nothing. It changes nothing itself.
func (e *Engine) RehearseOrder(ctx context.Context, id, order string, i Intervention) ([]Event, error) {
	kind, known := orders[order]
	if !known {
		return nil, fmt.Errorf("flow: %w: there is no order %q; want one of %s", ErrInvalid, order, strings.Join(orderNames(), ", "))
	}
	err := i.check()
	var events []Event
	if err == nil {
		_, events, err = e.rehearse(ctx, id, i.input(kind))
	}
	if err != nil {
		return nil, fmt.Errorf("flow: %w", err)
	}
	return events, nil
}

// rehearse applies an input to what is stored, and returns the row as it would be left, and the events.
func (e *Engine) rehearse(ctx context.Context, id string, in input) (Row, []Event, error) {
	x, err := e.load(ctx, id)
	if err != nil {
		return Row{}, nil, fmt.Errorf("execution %s: %w", id, err)
	}
	if x.State.Ended() {
		return Row{}, nil, fmt.Errorf("%w: execution %s is %s", ErrState, id, x.State)
	}
	if in.kind == inRetry {
		if err := x.retriable(); err != nil {
			return Row{}, nil, err
		}
	}
	p, err := e.version(ctx, x.Flow, x.Version)
	var broken *DefinitionError
	if err != nil && !(in.kind == inMigrate && errors.As(err, &broken)) { // migration is what mends that
		return Row{}, nil, err
	}
	secrets := x.secrets()
	if err := e.resolve(ctx, x.Flow, &in); err != nil {
		return Row{}, nil, err
	}
	m := &machine{p: p, x: x, now: now()}
	m.step(in)
	if m.refused != nil {
		return Row{}, nil, m.refused
	}
	for i := range m.events {
		m.events[i] = redact(m.events[i], secrets)
	}
	return x.row(), m.events, nil
}
