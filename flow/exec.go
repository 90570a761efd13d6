package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// killGrace is how long a tool may take to end once it was told to, before its group is killed, and how long after that its
// pipes may stay open.
const killGrace = 2 * time.Second

// Exec registers an executable as a tool. One process is started per attempt, without a shell:
//
//   - stdin is the input, a JSON object; stdout must be one JSON object, the output; stderr is the log.
//   - Exit status 0 is success. Otherwise stdout may say {"error": {"code": "...", "message": "...", "retry": false}}; without
//     it, the last line of stderr is the message, and another attempt may be made.
//   - The environment is a clean one: PATH, HOME, the locale, the time zone, the folder for temporary files and what the Go runtime reads are taken over
//     from this process, then comes what the embedder adds, and ZHIYUN_KEY, ZHIYUN_EXECUTION, ZHIYUN_STEP, ZHIYUN_ITEM, ZHIYUN_ATTEMPT and ZHIYUN_DEVICE.
//     ZHIYUN_UNDO=1, ZHIYUN_PROBE=1 and ZHIYUN_PLAN=1 tell a tool that is its own undo or probe, or that plans, what is asked of it.
//
// The process leads its own group, which gets SIGTERM when the attempt times out or is cancelled, and SIGKILL two seconds later.
// A tool with Resident set is served by processes that stay; docs/guides/tools.md has that protocol as well.
func (t *Tools) Exec(m Manifest) {
	if len(m.Command) == 0 {
		if !m.OnDevice {
			t.fault("tool %q: command is empty; name the program to run", m.Name)
		}
		t.add(m, nil)
		return
	}
	m.Command = slices.Clone(m.Command)
	p := &executable{name: m.Name, command: m.Command, dir: m.Dir, digest: m.Digest, resources: m.Resources}
	if m.Resident != nil {
		stay := newPool(p, *m.Resident)
		t.mu.Lock()
		t.pools = append(t.pools, stay)
		t.mu.Unlock()
		t.add(m, stay.run)
		return
	}
	t.add(m, p.run)
}

// executable is a program that serves a tool.
type executable struct {
	name      string
	command   []string
	dir       string // its folder, "" for none
	digest    string // that dir must have; "" for any
	resources Resources
	seal      seal // of dir, as it was found last
}

// process makes a process that is ready to start, in a group of its own and with a clean environment.
func (x *executable) process(env []string) (*exec.Cmd, error) {
	if x.digest != "" {
		if err := x.seal.check(x.dir, x.digest); err != nil {
			return nil, fmt.Errorf("tool %s is not run: %w", x.name, err)
		}
	}
	program := x.command[0]
	if x.dir != "" && !filepath.IsAbs(program) && strings.ContainsRune(program, '/') {
		program = filepath.Join(x.dir, program)
	}
	process := exec.Command(program, x.command[1:]...)
	process.Dir = x.dir
	process.Env = append(cleanEnv(), env...)
	process.WaitDelay = killGrace
	ownGroup(process)
	return process, nil
}

// intact says whether the folder still has its digest, for a process that runs already.
func (x *executable) intact() bool { return x.digest == "" || x.seal.check(x.dir, x.digest) == nil }

// kept are the variables of this process that tools get as well. Credentials are in none of them: what a tool may know, the embedder hands in.
var kept = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"GODEBUG", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK", "GORACE", "GOCOVERDIR",
}

// ToolEnv returns the environment that a tool's process gets here, with what the embedder adds.
func ToolEnv(add []string) []string { return append(cleanEnv(), add...) }

func cleanEnv() []string {
	env := make([]string, 0, 24)
	for _, name := range kept {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// run serves a call by a process of its own.
func (x *executable) run(ctx context.Context, call Call, env []string) Result {
	process, err := x.process(env)
	if err != nil {
		return Result{Error: failure(CodeDigest, "%v", err)}
	}
	process.Env = append(process.Env,
		"ZHIYUN_KEY="+call.Key,
		"ZHIYUN_EXECUTION="+call.Execution,
		"ZHIYUN_STEP="+call.Step,
		"ZHIYUN_ITEM="+strconv.Itoa(call.Item),
		"ZHIYUN_ATTEMPT="+strconv.Itoa(call.Attempt),
		"ZHIYUN_DEVICE="+call.Device,
	)
	for name, set := range map[string]bool{"ZHIYUN_PLAN=1": call.Plan, "ZHIYUN_UNDO=1": call.Undo, "ZHIYUN_PROBE=1": call.Probe} {
		if set {
			process.Env = append(process.Env, name)
		}
	}
	logs := &tail{limit: MaxLogs, forward: call.Log}
	output := &limited{limit: MaxOutput + 1}
	process.Stdin = bytes.NewReader(call.Input)
	process.Stdout, process.Stderr = output, logs
	if ctx.Err() != nil {
		return Result{Error: errUnbegun}
	}
	running, err := launch(process, x.resources)
	if err != nil {
		return Result{Error: exitError(err, nil, "")}
	}
	err = running.wait(ctx)
	result := Result{Logs: logs.String(), Ran: Ran{Limits: running.limits}}
	switch {
	case err != nil:
		result.Error = exitError(err, output.buffer.Bytes(), result.Logs)
		if running.verdict != "" {
			result.Error.Message += ": " + running.verdict
		}
	case output.overflow:
		result.Error = failure(CodeOutput, "%s printed more than %d bytes; print a reference instead", call.Tool, MaxOutput)
	default:
		result.Output, result.Error = printedObject(call.Tool, output.buffer.Bytes())
	}
	return result
}

// printedObject returns the one JSON object that a tool printed, without spaces.
func printedObject(tool string, printed []byte) (json.RawMessage, *Error) {
	data := bytes.TrimSpace(printed)
	if len(data) == 0 {
		data = []byte("{}")
	}
	if !json.Valid(data) || data[0] != '{' {
		return nil, failure(CodeOutput, "%s printed %.80q; a tool prints one JSON object and logs to stderr", tool, data)
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, data) // valid, as just checked
	return compact.Bytes(), nil
}

// running is a process that leads its group.
type running struct {
	process *exec.Cmd
	ended   chan struct{} // closed once it is reaped and its group is killed
	err     error         // set before ended is closed
	limits  string        // what bounds its resources
	verdict string        // why the bounds ended it; set before ended is closed
}

// launch starts a process, bounded by resources. Its end is waited for by a goroutine of its own, which ends with it.
func launch(process *exec.Cmd, resources Resources) (*running, error) {
	r := &running{process: process, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel kills the tool when the thread that started it ends: keep that thread until the tool has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		bounds, err := confine(process, resources)
		if err == nil {
			err = process.Start()
		}
		if err == nil {
			bounds.started(process.Process.Pid)
		}
		r.limits = bounds.kept
		started <- err
		if err != nil {
			bounds.release()
			return
		}
		r.err = process.Wait()
		// What the tool left behind in its group does not outlive it.
		killGroup(process)
		r.verdict = bounds.verdict()
		bounds.release()
		close(r.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return r, nil
}

// wait returns how the process ended. When ctx ends first, the group is told to end, and killed if it does not.
func (r *running) wait(ctx context.Context) error {
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		r.stop()
		return ctx.Err()
	}
}

// stop tells the group to end, kills it if it does not, and returns once the process has ended.
func (r *running) stop() {
	select {
	case <-r.ended:
		return
	default:
	}
	endGroup(r.process)
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
		killGroup(r.process)
		<-r.ended
	}
}

// said is what a tool prints, or answers, in place of an output.
type said struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Retry   *bool  `json:"retry"`
	Unknown bool   `json:"unknown"`
}

func (s *said) error() *Error {
	e := &Error{Code: s.Code, Message: s.Message, Permanent: s.Retry != nil && !*s.Retry, Unknown: s.Unknown}
	if e.Code == "" {
		e.Code = CodeExit
	}
	return e
}

// exitError turns a process's failure into an Error.
func exitError(err error, stdout []byte, logs string) *Error {
	if errors.Is(err, exec.ErrWaitDelay) { // it succeeded, but what it printed may not be whole
		return &Error{Code: CodeExit, Message: "it ended, and a process that it left behind keeps its stdout or stderr open: start what is to stay with >/dev/null 2>&1", Unknown: true}
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return &Error{Code: CodeExit, Message: err.Error(), Permanent: errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound)}
	}
	var printed struct {
		Error *said `json:"error"`
	}
	if json.Unmarshal(stdout, &printed) == nil && printed.Error != nil {
		return printed.Error.error()
	}
	lines := strings.Split(strings.TrimSpace(logs), "\n")
	message := exit.Error()
	if last := lines[len(lines)-1]; last != "" {
		message += ": " + last
	}
	// A tool that a signal ended did not get to say whether it had its effect.
	return &Error{Code: CodeExit, Message: message, Unknown: exit.ExitCode() < 0}
}
