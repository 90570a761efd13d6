package l5

import (
	"errors"
	"fmt"
)

var (
	// ErrNoInstance says that a service has no instance that takes calls.
	ErrNoInstance = errors.New("l5: the service has no instance that takes calls; register one, or raise a share above 0")
	// ErrOverloaded says that a call is refused for overload. Route returns it when a guard does not let the call out, or the
	// instances chosen carry as many calls as they may; shed the call, or try later. An Outcome whose Err matches it is a rejection by the callee:
	// reported as such, and no failure.
	ErrOverloaded = errors.New("l5: overloaded; shed the call or try later")
	// ErrDenied says that the caller holds no grant for the service.
	ErrDenied = errors.New("l5: the caller may not call the service; request a grant")
	// ErrRefused says that the name service refused a registration: trying the same again will not help.
	ErrRefused = errors.New("l5: registration refused")
)

// RouteError says why there is no route. It matches one of the sentinels, or the error of the context that ended first.
type RouteError struct {
	Caller, Service string
	Reason          string // in words
	Err             error  // what it matches
}

func (e *RouteError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("route %q -> %q: %v", e.Caller, e.Service, e.Err)
	}
	return fmt.Sprintf("route %q -> %q: %v (%s)", e.Caller, e.Service, e.Err, e.Reason)
}

// Unwrap returns Err.
func (e *RouteError) Unwrap() error { return e.Err }
