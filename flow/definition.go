package flow

import (
	"encoding/json"
	"fmt"
	"time"
)

// Definition is one version of a flow: what it takes and what it does. It is made from a document by Engine.Save
// (or Parse), or by hand, to be written as a document by Build; a saved one never changes, and an execution keeps the version with which it was started.
type Definition struct {
	Name    string  `json:"flow"`
	Title   string  `json:"title,omitempty"`
	Version int     `json:"version,omitempty"` // 1, 2, ...; 0 before it is saved
	Digest  string  `json:"digest,omitempty"`  // sha256 of Source in hex
	Params  []Param `json:"params,omitempty"`
	Steps   []Step  `json:"steps"`
	// Output is what an execution returns: to a step that runs the flow, and to who asks.
	Output map[string]any `json:"output,omitempty"`
	// Locks are held from an execution's start to its end: texts that may hold expressions over params.
	Locks []string `json:"locks,omitempty"`
	// Start says who may start it. Default: everybody who may start flows.
	Start *Starters `json:"start,omitempty"`
	// Priority orders what waits for room, 0 (last) to 9. Default DefaultPriority.
	Priority *int      `json:"priority,omitempty"`
	Source   []byte    `json:"-"` // the document as it was saved
	SavedAt  time.Time `json:"saved_at,omitzero"`

	laid *layout
}

// shape returns the definition's layout.
func (d *Definition) shape() *layout {
	if d.laid == nil {
		return newLayout(d) // of a definition that was not parsed
	}
	return d.laid
}

// Param is a typed parameter of a flow.
type Param struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"` // string, int, float, bool, secret, any, list<T>, map<T>
	Title    string   `json:"title,omitempty"`
	Required bool     `json:"required,omitempty"`
	Default  any      `json:"default,omitempty"`
	Min      *float64 `json:"min,omitempty"` // of a number, or the least length of a text, list or map
	Max      *float64 `json:"max,omitempty"`
	Enum     []any    `json:"enum,omitempty"`
	Pattern  string   `json:"pattern,omitempty"` // RE2, of a whole text

	value *valueType
}

// Step is one step of a flow. Exactly one of Tool, Flow, Notify, If, Switch, Branches, Signal, Approve, Sleep and Window is set. A step of
// the kinds If, Switch and Branches holds others, in blocks; they run at most once in an execution.
type Step struct {
	Name      string         `json:"name"`
	Stage     string         `json:"stage,omitempty"`
	Title     string         `json:"title,omitempty"`
	Tool      string         `json:"tool,omitempty"`
	Flow      string         `json:"flow,omitempty"`   // runs another flow: NAME, its latest version, or NAME@VERSION
	Notify    *Notify        `json:"notify,omitempty"` // sends a notice
	With      map[string]any `json:"with,omitempty"`   // inputs; texts may hold ${expressions}
	When      string         `json:"when,omitempty"`   // false: the step is skipped
	Each      string         `json:"each,omitempty"`   // a list: the step runs once per entry, which is "item"
	Parallel  int            `json:"parallel,omitempty"`
	On        string         `json:"on,omitempty"` // the device whose worker runs the tool
	Retry     Retry          `json:"retry,omitzero"`
	Timeout   Duration       `json:"timeout,omitempty"` // of an attempt; default the tool's, else DefaultTimeout
	Total     Duration       `json:"total,omitempty"`   // of all attempts of one item; default none
	Undo      *Undo          `json:"undo,omitempty"`    // default: the tool's own
	OnFailure OnFailure      `json:"on_failure,omitempty"`
	// Handler runs when the step has failed for good, with the variable failure; then the flow goes on behind the step. It is
	// written on_failure: {steps: [...]}, and OnFailure is Handle.
	Handler []Step `json:"handler,omitempty"`

	If       string   `json:"if,omitempty"` // a condition: Then runs, or Else
	Then     []Step   `json:"then,omitempty"`
	Switch   []Case   `json:"switch,omitempty"`   // the first case that holds runs, or Else; none is no failure
	Else     []Step   `json:"else,omitempty"`     // of If and Switch
	Branches []Branch `json:"branches,omitempty"` // all run side by side; the step ends when all have
	Signal   string   `json:"signal,omitempty"`   // waits for the signal of that name; its payload is the output
	Approve  *Approve `json:"approve,omitempty"`  // waits for people to approve
	Sleep    string   `json:"sleep,omitempty"`    // waits so long: a duration, or an expression of one (or of seconds)
	Window   *Window  `json:"window,omitempty"`   // waits until inside a time window

	Batch     int            `json:"batch,omitempty"`     // with Each: the next so many items start when those before have ended
	Quota     string         `json:"quota,omitempty"`     // with Each: so many items, or "10%" of them, may fail before the step does
	Repeat    *Repeat        `json:"repeat,omitempty"`    // runs the step again and again; each iteration is a task of its own
	Output    map[string]any `json:"output,omitempty"`    // the step's output, made of what it returned (the variable output)
	Exclusive string         `json:"exclusive,omitempty"` // a text with expressions: one step of all executions runs under it at a time
	Heartbeat Duration       `json:"heartbeat,omitempty"` // a tool that says nothing for so long is lost
}

// Case is one way of a switch.
type Case struct {
	When  string `json:"when"`
	Steps []Step `json:"steps"`
}

// Branch is one of the lists of steps that run side by side.
type Branch struct {
	Name  string `json:"name"`
	Steps []Step `json:"steps"`
}

// Approve asks people whether the flow may go on. A refusal is a failure with the code CodeRefused.
type Approve struct {
	Text  string   `json:"text"`            // may hold expressions
	By    []string `json:"by,omitempty"`    // actors, or "role:NAME"; default anybody who may
	Count int      `json:"count,omitempty"` // different people who have to; default 1
}

// Window is a time of the day on some days of the week, in a time zone. To before From is on the next day.
type Window struct {
	Days []string `json:"days,omitempty"` // mon ... sun; default all
	From string   `json:"from"`           // 01:00
	To   string   `json:"to"`             // 05:30
	Zone string   `json:"zone,omitempty"` // IANA name; default UTC
}

// Repeat runs a step until a condition over its output holds. A step that has run Max times without it has failed.
type Repeat struct {
	Until string   `json:"until"`           // over output and index, besides what the step sees
	Every Duration `json:"every,omitempty"` // between the end of an iteration and the next; default none
	Max   int      `json:"max"`             // iterations
}

// Starters says who may start a flow.
type Starters struct {
	By []string `json:"by"` // actors, or "role:NAME"
}

// Notify is what a notify step says.
type Notify struct {
	Severity string `json:"severity,omitempty"` // info (default), warning or critical
	Text     string `json:"text"`
}

// Retry says how often a failed attempt is made again, and after how long: Backoff, then twice that, up to Max.
type Retry struct {
	Attempts int      `json:"attempts,omitempty"` // in all; default 1
	Backoff  Duration `json:"backoff,omitempty"`  // default 1s
	Max      Duration `json:"max,omitempty"`      // default 1m
	On       []string `json:"on,omitempty"`       // codes of the errors that are tried again; default all that are not permanent
}

// Undo is how a step is taken back when its execution fails or is cancelled.
type Undo struct {
	None      bool           `json:"none,omitempty"`
	Tool      string         `json:"tool,omitempty"` // default: the step's tool's own undo
	With      map[string]any `json:"with,omitempty"` // default: the step's input
	Retry     Retry          `json:"retry,omitzero"` // default 10 attempts, 500ms doubling to 30s
	OnFailure OnFailure      `json:"on_failure,omitempty"`
}

// OnFailure says what becomes of the execution when a step (or an undo) has failed for good.
type OnFailure string

const (
	Fail  OnFailure = "fail"  // compensate, then end as failed; for an undo: wait for a person. The default.
	Skip  OnFailure = "skip"  // go on without the step's output
	Pause OnFailure = "pause" // wait for a person, who retries, settles or cancels
	// Handle runs the step's Handler, then goes on. In documents it is a mapping with steps.
	Handle OnFailure = "handle"
)

// What holds where nothing else is said.
const (
	DefaultTimeout    = 10 * time.Minute // of an attempt
	DefaultPriority   = 5
	DefaultBulk       = 20      // Bulk.Max
	DefaultLogLimit   = 4 << 20 // bytes of an attempt's log that its file keeps
	DefaultBackoff    = time.Second
	DefaultBackoffMax = time.Minute
	undoAttempts      = 10
	undoBackoff       = 500 * time.Millisecond
	undoBackoffMax    = 30 * time.Second
)

// delay returns how long to wait after the given number of failed attempts.
func (r Retry) delay(failed int) time.Duration {
	wait := time.Duration(r.Backoff)
	for range failed - 1 {
		if wait *= 2; wait >= time.Duration(r.Max) {
			break
		}
	}
	return min(wait, time.Duration(r.Max))
}

func (r Retry) or(attempts int, backoff, limit time.Duration) Retry {
	if r.Attempts == 0 {
		r.Attempts = attempts
	}
	if r.Backoff == 0 {
		r.Backoff = Duration(backoff)
	}
	if r.Max == 0 {
		r.Max = Duration(max(limit, time.Duration(r.Backoff)))
	}
	return r
}

// Duration is a time.Duration that documents write as text: 200ms, 30s, 2m.
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit, as in 200ms, 30s or 2m", text)
	}
	*d = Duration(parsed)
	return nil
}

// secrets returns the values of the secret parameters, to be struck out of what is shown.
func (d *Definition) secrets(params map[string]any) []string {
	var out []string
	for _, p := range d.Params {
		if p.value == nil || !p.value.secret {
			continue
		}
		if text, ok := params[p.Name].(string); ok && text != "" {
			out = append(out, text)
		}
	}
	return out
}

func mustJSON(value any) json.RawMessage {
	data, err := json.Marshal(value)
	if err != nil {
		// Only values that came out of JSON, YAML or CEL are passed here, and all of those have a JSON form but
		// NaN and infinities, which the resolver refuses.
		return json.RawMessage("null")
	}
	return data
}
