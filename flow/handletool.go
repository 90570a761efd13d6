package flow

import "context"

// Handle registers a Go function as a tool with a manifest that was written elsewhere, for tools whose types are not known when the program
// is compiled, and for fakes in tests. Inputs and outputs are checked against the manifest's schemas; Command is not run. The function
// must end soon after its context does.
func (t *Tools) Handle(m Manifest, run func(context.Context, Call) Result) {
	t.add(m, func(ctx context.Context, call Call, _ []string) Result { return run(ctx, call) })
}
