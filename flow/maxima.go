package flow

// Bounds on what is handed in and kept, so that no one execution can fill the store or the memory. What is larger is refused by name.
const (
	MaxDocument = 1 << 20   // bytes of a document
	MaxSteps    = 20_000    // of a document
	MaxParams   = 4 << 20   // bytes of the parameters of a start, as JSON
	MaxText     = 256 << 10 // characters of a parameter that is a text, unless its max says otherwise
	MaxOutput   = 1 << 20   // bytes of what a tool returns
	MaxLogs     = 8 << 10   // bytes of a tool's stderr that stand in the history; LogDir has more
	MaxSignal   = 256 << 10 // bytes of a signal's payload
	MaxBulk     = 100_000   // greatest Bulk.Max
)
