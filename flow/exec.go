package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// killGrace is how long after its process group was killed a tool's pipes may stay open.
const killGrace = 2 * time.Second

// Exec registers an executable as a tool. One process is started per attempt, without a shell:
//
//   - stdin is the input, a JSON object; stdout must be one JSON object, the output; stderr is the log.
//   - Exit status 0 is success. Otherwise stdout may say {"error": {"code": "...", "message": "...", "retry": false}}; without
//     it, the last line of stderr is the message, and another attempt may be made.
//   - The environment is this process's, what the embedder adds, and ZHIYUN_KEY, ZHIYUN_EXECUTION, ZHIYUN_STEP, ZHIYUN_ITEM, ZHIYUN_ATTEMPT and
//     ZHIYUN_DEVICE.
//
// The process leads its own group, which is killed when the attempt times out or is cancelled.
func (t *Tools) Exec(m Manifest) {
	if len(m.Command) == 0 {
		if !m.OnDevice {
			t.mu.Lock()
			t.faults = append(t.faults, fmt.Errorf("tool %q: command is empty; name the program to run", m.Name))
			t.mu.Unlock()
		}
		t.add(m, nil)
		return
	}
	command := slices.Clone(m.Command)
	t.add(m, func(ctx context.Context, call Call, env []string) Result { return runProcess(ctx, command, call, env) })
}

func runProcess(ctx context.Context, command []string, call Call, env []string) Result {
	logs := &tail{limit: MaxLogs, forward: call.Log}
	output := &limited{limit: MaxOutput + 1}
	process := exec.Command(command[0], command[1:]...)
	process.Env = append(os.Environ(), env...)
	process.Env = append(process.Env,
		"ZHIYUN_KEY="+call.Key,
		"ZHIYUN_EXECUTION="+call.Execution,
		"ZHIYUN_STEP="+call.Step,
		"ZHIYUN_ITEM="+strconv.Itoa(call.Item),
		"ZHIYUN_ATTEMPT="+strconv.Itoa(call.Attempt),
		"ZHIYUN_DEVICE="+call.Device,
	)
	process.Stdin = bytes.NewReader(call.Input)
	process.Stdout, process.Stderr = output, logs
	process.WaitDelay = killGrace
	ownGroup(process)
	err := supervise(ctx, process)
	result := Result{Logs: logs.String()}
	switch {
	case err == nil && output.overflow:
		result.Error = failure(CodeOutput, "%s printed more than %d bytes; print a reference instead", call.Tool, MaxOutput)
	case err == nil:
		data := bytes.TrimSpace(output.buffer.Bytes())
		if len(data) == 0 {
			data = []byte("{}")
		}
		if !json.Valid(data) || data[0] != '{' {
			result.Error = failure(CodeOutput, "%s printed %.80q; a tool prints one JSON object and logs to stderr", call.Tool, data)
			return result
		}
		var compact bytes.Buffer
		_ = json.Compact(&compact, data) // valid, as just checked
		result.Output = compact.Bytes()
	default:
		result.Error = exitError(err, output.buffer.Bytes(), result.Logs)
	}
	return result
}

// supervise starts the process and waits for its end; when ctx ends first, its whole group is killed.
func supervise(ctx context.Context, process *exec.Cmd) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// The kernel kills the tool when the thread that started it ends: keep that thread until the tool has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := process.Start()
		started <- err
		if err == nil {
			done <- process.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	select {
	case err := <-done:
		// What the tool left behind in its group does not outlive it.
		killGroup(process)
		return err
	case <-ctx.Done():
		killGroup(process)
		<-done
		return ctx.Err()
	}
}

// exitError turns a process's failure into an Error.
func exitError(err error, stdout []byte, logs string) *Error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return &Error{Code: CodeExit, Message: err.Error(), Permanent: errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound)}
	}
	var said struct {
		Error *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Retry   *bool  `json:"retry"`
		} `json:"error"`
	}
	if json.Unmarshal(stdout, &said) == nil && said.Error != nil {
		e := &Error{Code: said.Error.Code, Message: said.Error.Message, Permanent: said.Error.Retry != nil && !*said.Error.Retry}
		if e.Code == "" {
			e.Code = CodeExit
		}
		return e
	}
	lines := strings.Split(strings.TrimSpace(logs), "\n")
	message := exit.Error()
	if last := lines[len(lines)-1]; last != "" {
		message += ": " + last
	}
	// A tool that a signal ended did not get to say whether it had its effect.
	return &Error{Code: CodeExit, Message: message, Unknown: exit.ExitCode() < 0}
}

// tail keeps the last bytes written to it.
type tail struct {
	limit   int
	forward func([]byte)

	mu   sync.Mutex // guards what follows
	data []byte
	lost bool
}

func (t *tail) Write(p []byte) (int, error) {
	if t.forward != nil {
		t.forward(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data, t.lost = append(t.data[:0], t.data[over:]...), true
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.ToValidUTF8(string(t.data), "?")
	if t.lost {
		return "...\n" + text
	}
	return text
}

// limited keeps the first bytes written to it and drops the rest.
type limited struct {
	buffer   bytes.Buffer // not embedded: io.Copy would find its ReadFrom and pass the limit by
	limit    int
	overflow bool
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.limit - l.buffer.Len(); len(p) > room {
		l.overflow = true
		l.buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.buffer.Write(p)
}
