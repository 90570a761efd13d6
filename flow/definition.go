package flow

import (
	"encoding/json"
	"fmt"
	"time"
)

// Definition is one version of a flow: what it takes and what it does. It is made from a document by Engine.Save
// (or Parse) and never changes afterwards; an execution keeps the version with which it was started.
type Definition struct {
	Name    string    `json:"flow"`
	Title   string    `json:"title,omitempty"`
	Version int       `json:"version,omitempty"` // 1, 2, ...; 0 before it is saved
	Digest  string    `json:"digest,omitempty"`  // sha256 of Source in hex
	Params  []Param   `json:"params,omitempty"`
	Steps   []Step    `json:"steps"`
	Source  []byte    `json:"-"` // the document as it was saved
	SavedAt time.Time `json:"saved_at,omitzero"`
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

// Step is one step of a flow. Exactly one of Tool, Flow and Notify is set.
type Step struct {
	Name      string         `json:"name"`
	Stage     string         `json:"stage,omitempty"`
	Title     string         `json:"title,omitempty"`
	Tool      string         `json:"tool,omitempty"`
	Flow      string         `json:"flow,omitempty"`   // runs another flow, its latest version
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
)

// Defaults of a step.
const (
	DefaultTimeout    = 10 * time.Minute
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
