package flow

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotFound says that there is no such definition or execution.
	ErrNotFound = errors.New("not found")
	// ErrInvalid says that what was handed in is wrong; nothing was changed.
	ErrInvalid = errors.New("invalid")
	// errNotLive says that an execution left the engine before it could take a message.
	errNotLive = errors.New("flow: the execution is not live")
	// ErrState says that the execution's state does not allow the verb.
	ErrState = errors.New("not possible in this state")
	// ErrNotAsked says that the step asks other people.
	ErrNotAsked = errors.New("not asked")
	// ErrDenied says that the flow's start.by does not name who wants to start it.
	ErrDenied = errors.New("not allowed")
	// ErrBusy says that so many executions are open that no more are taken. It matches every *BusyError.
	ErrBusy = errors.New("too many executions are open")
	// ErrLocked says that another execution holds a lock. It matches every *LockedError.
	ErrLocked = errors.New("locked")
	// ErrStale says that another writer moved the execution on; the writer must read again.
	ErrStale = errors.New("flow: another engine has written this execution; only one engine may run on a store")
	// ErrFenced says that the engine has been silent for longer than its lease, and that others own its executions now. Nothing was
	// written. The engine joins them again by itself.
	ErrFenced = errors.New("flow: fenced: other engines own this engine's executions now")
	// ErrExists says that an execution of this flow with this key is already there.
	ErrExists = errors.New("an execution with this key exists")
	// ErrClosed says that the engine has stopped.
	ErrClosed = errors.New("flow: the engine has stopped; start it again with Run")
)

// Codes of an Error that the engine itself sets. Tools set their own.
const (
	CodeTimeout    = "timeout"        // the attempt took longer than it may
	CodeHeartbeat  = "heartbeat"      // the tool wrote nothing to its log for longer than its heartbeat
	CodePlan       = "plan.none"      // the tool has no plan mode, and was not run
	CodeCancelled  = "cancelled"      // the attempt was stopped because its execution was cancelled
	CodeDeviceLost = "device.lost"    // the device's worker is gone
	CodePerson     = "person"         // a person ended it
	CodeRefused    = "refused"        // people did not approve
	CodeRepeat     = "repeat"         // as many iterations as there may be, and the condition does not hold
	CodeLost       = "attempt.lost"   // the process that ran the attempt died
	CodeExit       = "exit"           // the tool exited with a status other than 0 and said nothing more
	CodeOutput     = "output.invalid" // what the tool printed is not what its manifest promises
	CodeInput      = "input.invalid"  // the resolved input is not what the tool's manifest demands
	CodeExpression = "expression"     // an expression of the flow failed on these values
	CodeSubflow    = "subflow"        // a sub-flow could not be started, or has failed
	CodeTool       = "tool.missing"   // no such tool is registered where it should run
	CodeLocked     = "locked"         // a sub-flow needs a lock that another execution holds, and may not wait for it
	CodeDigest     = "tool.changed"   // the tool's folder is not what its digest says
	CodeUnprobed   = "probe.negative" // the probe says that the tool's effect did not happen
)

// Error is why an attempt, a step or an execution failed.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Permanent: another attempt would fail in the same way, so none is made.
	Permanent bool `json:"permanent,omitempty"`
	// Unknown: whether the tool had its effect is not known. The tool's declared effect decides what happens next.
	Unknown bool `json:"unknown,omitempty"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func failure(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Permanent: true}
}

// Fault is one thing wrong with a flow's document.
type Fault struct {
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1
	Path    string `json:"path"`   // as in steps.acquire.with.count
	Message string `json:"message"`
	// Warning: Save takes the document all the same, since what is missing may come. As it stands, an execution would fail there.
	Warning bool `json:"warning,omitempty"`
}

func (f Fault) String() string {
	if f.Path == "" {
		return fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.Message)
	}
	return fmt.Sprintf("%d:%d: %s: %s", f.Line, f.Column, f.Path, f.Message)
}

// DefinitionError lists all faults of a document, in the order of their places.
type DefinitionError struct {
	Flow   string
	Faults []Fault
}

func (e *DefinitionError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, fault := range e.Faults {
		lines[i] = fault.String()
	}
	many := "1 fault"
	if len(lines) != 1 {
		many = fmt.Sprintf("%d faults", len(lines))
	}
	return fmt.Sprintf("flow %q has %s:\n%s", e.Flow, many, strings.Join(lines, "\n"))
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *DefinitionError) Is(target error) bool { return target == ErrInvalid }
