package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Effect is what a tool promises about being run again when it is not known whether it had its effect: its process
// or its engine died, or it ran out of time.
type Effect string

const (
	Pure   Effect = "pure"   // it changes nothing: run it again
	Keyed  Effect = "keyed"  // it does its work once per key: run it again with the same key
	Probe  Effect = "probe"  // its probe tool can tell: ask it, then run it again or take its answer
	Manual Effect = "manual" // nobody can tell but a person. The default.
)

// Manifest describes a tool. A program prints its own as JSON when it is called with --describe alone; docs/guides/tools.md is
// the whole contract.
type Manifest struct {
	Name  string `json:"name"`
	Title string `json:"title,omitempty"`
	// Version is the tool's own, as in 1.4.0. It is recorded with each attempt. Default: none.
	Version string `json:"version,omitempty"`
	Stage   string `json:"stage,omitempty"`
	// Tags are words by which people find the tool.
	Tags []string `json:"tags,omitempty"`
	// Command is the program and its arguments, never a shell line. A tool that runs only on devices may leave it
	// empty at the server, whose registry then serves for checks alone.
	// In a manifest that lies in the tool's folder, a program with a relative path is one of that folder.
	Command []string `json:"command,omitempty"`
	// Input and Output are JSON Schemas of objects. Default: anything. Properties that a schema does not list are
	// refused in inputs, and cannot be referred to in outputs, unless it says "additionalProperties": true.
	Input  json.RawMessage `json:"input,omitempty"`
	Output json.RawMessage `json:"output,omitempty"`
	// Timeout of one attempt. Default: DefaultTimeout.
	Timeout time.Duration `json:"-"`
	// Heartbeat is how long an attempt may write nothing to its log before it counts as hung, and is killed. A step may say otherwise.
	// Default: the timeout alone bounds it.
	Heartbeat time.Duration `json:"-"`
	// Effect decides what happens when an attempt's outcome is unknown. Default: Manual.
	Effect Effect `json:"effect,omitempty"`
	// Undo names the tool that takes this one's effect back. It gets this tool's input and, as "done", its output
	// (absent if unknown). It must be idempotent, and succeed when nothing was done. A tool may name itself. Default: none.
	Undo string `json:"undo,omitempty"`
	// Probe names the tool that Effect Probe asks; a tool may name itself. It gets the input and answers {"done": bool, "output": {...}}.
	Probe string `json:"probe,omitempty"`
	// Plan says that the tool can tell what a call would touch, and touch nothing: see Tools.Plan. A pure tool need not say so.
	Plan bool `json:"plan,omitempty"`
	// Resident has calls answered by processes that stay, a line of JSON each way. Default: one process per call.
	Resident *Resident `json:"resident,omitempty"`
	// Resources bounds what one process of the tool and its children may take. Default: nothing is bounded.
	Resources Resources `json:"resources,omitzero"`
	// Platforms the tool runs on, as in linux or linux/arm64. Default: all.
	Platforms []string `json:"platforms,omitempty"`
	// Digest of the tool's folder, as DigestDir tells it. If it is set, it is compared before each process is started, and
	// recorded with each attempt. Default: not checked.
	Digest string `json:"digest,omitempty"`
	// OnDevice tools run on the device that the step names with "on", by its worker.
	OnDevice bool `json:"on_device,omitempty"`
	// Examples are inputs with the outputs to expect, for people and for tests: zhiyun tool test runs them.
	Examples []Example `json:"examples,omitempty"`
	// Dir is the tool's folder, in which its processes start. ReadManifest sets it. Default: the folder in which this process is.
	Dir string `json:"-"`
}

// Resident says how a tool is served by processes that stay. They are started when calls need them, with ZHIYUN_RESIDENT=1 in
// their environment, and each answers one call at a time.
type Resident struct {
	// Processes is how many there may be at a time; calls beyond wait. Default 4.
	Processes int `json:"processes,omitempty"`
	// Idle is how long a process may wait for a call before its stdin is closed. Default 1m.
	Idle Duration `json:"idle,omitempty"`
}

// Resources are bounds on one process and its children; zero fields bound nothing. They are kept by a control group where this
// process may make one, else the memory by a limit of the process; Ran.Limits says which.
type Resources struct {
	Memory    int64   `json:"memory,omitempty"`    // bytes
	CPU       float64 `json:"cpu,omitempty"`       // cores, as in 0.5
	Processes int     `json:"processes,omitempty"` // with threads
}

// runsHere says whether the tool runs on this machine's platform.
func (m *Manifest) runsHere() bool {
	if len(m.Platforms) == 0 {
		return true
	}
	for _, platform := range m.Platforms {
		if platform == runtime.GOOS || platform == runtime.GOOS+"/"+runtime.GOARCH {
			return true
		}
	}
	return false
}

// check tells what is wrong with the fields that stand for themselves.
func (m *Manifest) check(fail func(format string, args ...any)) {
	if !toolName.MatchString(m.Name) {
		fail("a name is letters, digits, dots, dashes and underscores, and starts with a letter")
	}
	switch m.Effect {
	case "", Pure, Keyed, Probe, Manual:
	default:
		fail("effect %q is unknown; want pure, keyed, probe or manual", m.Effect)
	}
	for field, span := range map[string]time.Duration{"timeout": m.Timeout, "heartbeat": m.Heartbeat} {
		if span < 0 {
			fail("%s %s is negative", field, span)
		}
	}
	if r := m.Resident; r != nil && (r.Processes < 0 || r.Processes > maxResident || r.Idle < 0) {
		fail("resident: %d processes, idle %s: want 1 to %d processes and a positive time, or neither for the defaults", r.Processes, r.Idle, maxResident)
	}
	if r := m.Resources; r.Memory < 0 || r.CPU < 0 || r.Processes < 0 {
		fail("resources: memory %d, cpu %g, processes %d: want positive numbers, or none for no bound", r.Memory, r.CPU, r.Processes)
	}
	for _, platform := range m.Platforms {
		if system, arch, two := strings.Cut(platform, "/"); system == "" || two && (arch == "" || strings.Contains(arch, "/")) {
			fail("platform %q: want a system as in linux, or a system and an architecture as in linux/arm64", platform)
		}
	}
	if m.Dir != "" && len(m.Command) > 0 && !path.IsAbs(m.Command[0]) && strings.Contains(m.Command[0], "..") {
		fail("command %q leaves the tool's folder; name a program within it", m.Command[0])
	}
}

// Example is an input of a tool and the output to expect.
type Example struct {
	Title  string          `json:"title,omitempty"`
	Input  json.RawMessage `json:"input"`
	Output json.RawMessage `json:"output,omitempty"`
}

type manifestFields Manifest

// MarshalJSON writes times as text.
func (m Manifest) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		manifestFields
		Timeout   Duration `json:"timeout,omitempty"`
		Heartbeat Duration `json:"heartbeat,omitempty"`
	}{manifestFields(m), Duration(m.Timeout), Duration(m.Heartbeat)})
}

// UnmarshalJSON reads times as text.
func (m *Manifest) UnmarshalJSON(data []byte) error {
	both := struct {
		*manifestFields
		Timeout   Duration `json:"timeout"`
		Heartbeat Duration `json:"heartbeat"`
	}{manifestFields: (*manifestFields)(m)}
	if err := json.Unmarshal(data, &both); err != nil {
		return err
	}
	m.Timeout, m.Heartbeat = time.Duration(both.Timeout), time.Duration(both.Heartbeat)
	return nil
}

// Call is one attempt of a tool.
type Call struct {
	ID        string          `json:"id"` // of the attempt; unique, and the same when it is handed over again
	Execution string          `json:"execution"`
	Flow      string          `json:"flow,omitempty"`
	Step      string          `json:"step"`
	Item      int             `json:"item,omitempty"`
	Attempt   int             `json:"attempt"`
	Key       string          `json:"key"` // the same over all attempts of a step's item, and for its undo
	Device    string          `json:"device,omitempty"`
	Tool      string          `json:"tool"`
	Undo      bool            `json:"undo,omitempty"`
	Probe     bool            `json:"probe,omitempty"`
	Plan      bool            `json:"plan,omitempty"` // tell what would be touched, and touch nothing
	Input     json.RawMessage `json:"input"`
	Timeout   time.Duration   `json:"timeout"`
	Heartbeat time.Duration   `json:"heartbeat,omitempty"` // how long it may write nothing to its log; 0 is what the manifest says

	// Log receives what the tool writes to stderr, as it is written. May be nil. It must not block for long.
	Log func([]byte) `json:"-"`
}

// Result is how an attempt ended: with an output or an error.
type Result struct {
	Output json.RawMessage `json:"output,omitempty"`
	Error  *Error          `json:"error,omitempty"`
	Logs   string          `json:"logs,omitempty"` // the last bytes of stderr, at most MaxLogs

	Ran Ran `json:"ran,omitzero"`

	hidden []string // the secrets of a sub-flow that stand in its output
}

// Ran says what it was that ran.
type Ran struct {
	Version string `json:"version,omitempty"` // of the tool
	Digest  string `json:"digest,omitempty"`  // of its folder, if that is checked
	Limits  string `json:"limits,omitempty"`  // what kept Manifest.Resources: "cgroup2", "cgroup1", "rlimit for memory", with what was not bounded
}

// ValidateJSON says what a JSON Schema of a manifest has against a value; nil if it has nothing. closed: properties that the schema does not list are
// refused unless it says otherwise, as they are in inputs.
func ValidateJSON(schema, value json.RawMessage, closed bool) error {
	if len(schema) == 0 {
		return nil
	}
	_, compiled, err := compileSchema("value", schema, closed)
	if err != nil {
		return err
	}
	return validate(compiled, value)
}

// Check tells all that is wrong with the fields that stand for themselves. Schemas and other tools are looked at by Tools.Err.
func (m Manifest) Check() error {
	var faults []error
	m.check(func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) })
	return errors.Join(faults...)
}

// ProgramVersion is the version of the running program as its build says it, for manifests of tools that are built into it: a release, or
// the first twelve digits of the revision. Empty if the build does not know.
func ProgramVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value[:min(12, len(setting.Value))]
		}
	}
	return ""
}
