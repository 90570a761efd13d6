package limit

import (
	"context"
	"fmt"
)

// Priority says which calls are shed first. The zero value is Normal.
type Priority uint8

// The priorities. Sheddable goes first, Critical last.
const (
	Normal    Priority = iota // what a user waits for
	Critical                  // what money or safety depends on: a few per cent of all calls, or it means nothing
	Sheddable                 // what can be left out or done later: prefetching, batches, retries of a crawler
)

// priorities is how many there are.
const priorities = 3

// order is in which they are shed.
var order = [priorities]Priority{Sheddable, Normal, Critical}

// String returns "critical", "normal" or "sheddable".
func (p Priority) String() string {
	switch p {
	case Critical:
		return "critical"
	case Sheddable:
		return "sheddable"
	}
	return "normal"
}

// ParsePriority is the inverse of String. The empty string is Normal; an unknown one is an error, and Normal.
func ParsePriority(s string) (Priority, error) {
	switch s {
	case "", "normal":
		return Normal, nil
	case "critical":
		return Critical, nil
	case "sheddable":
		return Sheddable, nil
	}
	return Normal, fmt.Errorf("limit: priority %q is unknown: want critical, normal or sheddable", s)
}

// share is the part of a concurrency limit that a priority may fill: the rest is kept for those above it.
func (p Priority) share() float64 {
	switch p {
	case Critical:
		return 1
	case Sheddable:
		return 0.6
	}
	return 0.8
}

// of is how much of a limit the priority may fill: at least one call.
func (p Priority) of(limit int) int64 { return max(int64(float64(limit)*p.share()), 1) }

type priorityKey struct{}

// WithPriority returns a context whose calls have priority p.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority of ctx, Normal if it has none.
func PriorityOf(ctx context.Context) Priority {
	p, _ := ctx.Value(priorityKey{}).(Priority)
	return p
}
