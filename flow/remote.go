package flow

import "context"

// Remote runs attempts on devices. Package dispatch implements it for devices that run package worker.
type Remote interface {
	// Run has call.Device run the attempt and returns its end. Handed over again under the same call.ID, after a restart for
	// example, the attempt is not run twice: the device says how it ended, or goes on.
	//
	// A device that is gone for longer than the implementation's grace is an Error with CodeDeviceLost and Unknown. When ctx ends, the device is told to stop the
	// attempt, and Run returns once it has; but if context.Cause(ctx) is ErrClosed, Run returns at once and the
	// attempt goes on: the next engine will ask for it.
	Run(ctx context.Context, call Call) Result
	// Acknowledge says that the result is durable: the device may forget it. It does not block.
	Acknowledge(call Call)
}
