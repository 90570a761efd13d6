package l5

// Observer is told what happens to the calls of a client, for tracing or statistics of one's own; package
// l5/contrib/otel has one for OpenTelemetry. Its methods are called in the goroutines of the calls, many at a time: they
// must be quick, must not block and must not call the client. Config.Observer is nil by default: then nothing is spent
// on it.
type Observer interface {
	// Done is called after each Route.Done.
	Done(route Route, outcome Outcome)
	// Refused is called when a call gets no route; err is what Route returns, and reason one of the keys of
	// Explanation.Refused.
	Refused(service, reason string, err error)
	// Moved is called when an instance changes its state of health, one at a time per service.
	Moved(event Event)
}
