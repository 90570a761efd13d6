package supervise

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MaxCount is how many instances one Spec may ask for.
const MaxCount = 256

// Spec is what should run. Two equal specs are the same wish: starting the second changes nothing.
type Spec struct {
	// Name is how the process is spoken of: letters, digits, dot, dash, underscore. Required.
	Name string `json:"name"`
	// Command is the executable, as an absolute path, and its arguments. Required.
	Command []string `json:"command"`
	// Dir is the working directory. Default: "/".
	Dir string `json:"dir,omitempty"`
	// Env is the whole environment, as NAME=value. Nothing is inherited; PATH is given a default, and
	// ZHIYUN_INSTANCE (0, 1, ...) and ZHIYUN_SUPERVISED are added.
	Env []string `json:"env,omitempty"`
	// Module is what the process is a part of: a program of this device that asks in the name of a module is known by it,
	// see Of. Handed to the process as ZHIYUN_MODULE. Default: none.
	Module string `json:"module,omitempty"`
	// Count is how many instances run. Default: 1.
	Count int `json:"count,omitempty"`
}

func (s Spec) normal() Spec {
	if s.Count == 0 {
		s.Count = 1
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	s.Command, s.Env = slices.Clone(s.Command), slices.Clone(s.Env)
	return s
}

// Equal tells whether both ask for the same.
func (s Spec) Equal(o Spec) bool {
	s, o = s.normal(), o.normal()
	return s.Name == o.Name && s.Dir == o.Dir && s.Count == o.Count && s.Module == o.Module &&
		slices.Equal(s.Command, o.Command) && slices.Equal(s.Env, o.Env)
}

// Validate reports every fault of the spec.
func (s Spec) Validate() error {
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...))
	}
	if !validName(s.Name) {
		bad("name %q: use letters, digits, dot, dash and underscore, 1 to 100 of them, not starting with a dot", s.Name)
	}
	if len(s.Command) == 0 {
		bad("process %q: command is empty; give the executable and its arguments", s.Name)
	} else if !filepath.IsAbs(s.Command[0]) {
		bad("process %q: executable %q is not an absolute path", s.Name, s.Command[0])
	}
	for _, arg := range slices.Concat(s.Command, s.Env) {
		if strings.ContainsRune(arg, 0) {
			bad("process %q: %q contains a zero byte", s.Name, arg)
		}
	}
	for _, e := range s.Env {
		if i := strings.IndexByte(e, '='); i < 1 {
			bad("process %q: environment %q is not NAME=value", s.Name, e)
		}
	}
	if s.Count < 0 || s.Count > MaxCount {
		bad("process %q: count %d; use 1 to %d", s.Name, s.Count, MaxCount)
	}
	if s.Dir != "" && !filepath.IsAbs(s.Dir) {
		bad("process %q: dir %q is not an absolute path", s.Name, s.Dir)
	}
	return errors.Join(faults...)
}

func validName(s string) bool {
	if s == "" || len(s) > 100 || s[0] == '.' {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)) {
			return false
		}
	}
	return true
}

// Process is one instance as it is now.
type Process struct {
	Name      string    `json:"name"`
	Instance  int       `json:"instance"`
	PID       int       `json:"pid,omitempty"` // 0 when none runs
	State     State     `json:"state"`
	StartedAt time.Time `json:"started_at,omitzero"` // of the process that runs, or ran last
	Restarts  int       `json:"restarts"`
	Exit      string    `json:"exit,omitempty"` // how it ended last: "exit status 1", "signal: killed", or why it could not start
	Exe       string    `json:"exe"`
	ExeDigest string    `json:"exe_digest,omitempty"` // "sha256:HEX" of the executable that runs
	Command   []string  `json:"command"`
}

var (
	// ErrInvalid says that a spec or a config is wrong; nothing was changed.
	ErrInvalid = errors.New("supervise: invalid")
	// ErrLocked says that another supervisor works on the folder.
	ErrLocked = errors.New("supervise: another supervisor runs over this folder; stop it first or use another folder")
	// ErrClosed says that Run has returned.
	ErrClosed = errors.New("supervise: the supervisor has ended; call Run on a new one")
	// ErrUnknown says that no such process was asked for.
	ErrUnknown = errors.New("supervise: unknown process; see List for those known")
)

// SpawnError says that an executable could not be started.
type SpawnError struct {
	Name string
	Exe  string
	Err  error
}

func (e *SpawnError) Error() string {
	return fmt.Sprintf("supervise: start %s: %s: %v; check that the file exists and is executable", e.Name, e.Exe, e.Err)
}

func (e *SpawnError) Unwrap() error { return e.Err }
