package tooltest

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// command makes the tool's process as flows start it, in a group of its own.
func (s *subject) command(w World, call flow.Call, args ...string) *exec.Cmd {
	program := s.manifest.Command[0]
	if s.config.Dir != "" && strings.ContainsRune(program, '/') && !filepath.IsAbs(program) {
		program, _ = filepath.Abs(filepath.Join(s.config.Dir, program)) // fails without a working folder alone
	}
	process := exec.Command(program, append(s.manifest.Command[1:len(s.manifest.Command):len(s.manifest.Command)], args...)...)
	process.Dir = s.config.Dir
	process.Env = append(flow.ToolEnv(w.env()), "ZHIYUN_KEY="+call.Key, "ZHIYUN_EXECUTION=test", "ZHIYUN_STEP=test", "ZHIYUN_ITEM=0", "ZHIYUN_ATTEMPT=1", "ZHIYUN_DEVICE=")
	process.Stdin = bytes.NewReader(call.Input)
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	process.WaitDelay = time.Second
	return process
}

// ran is a process that has ended.
type ran struct {
	stdout, stderr []byte
	err            error
	status         int // -1: by a signal
	orphans        bool
	took           time.Duration
}

// run runs a process to its end; after a while, unless that is 0, its group gets a signal. Whatever is left of the group is killed.
func run(ctx context.Context, process *exec.Cmd, after time.Duration, signal syscall.Signal) ran {
	var stdout, stderr bytes.Buffer
	process.Stdout, process.Stderr = &stdout, &stderr
	began := time.Now()
	if err := process.Start(); err != nil {
		return ran{err: err, status: -1}
	}
	group := -process.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }() // received below
	var due <-chan time.Time
	if after > 0 {
		timer := time.NewTimer(after)
		defer timer.Stop()
		due = timer.C
	}
	for {
		select {
		case err := <-ended:
			out := ran{stdout: stdout.Bytes(), stderr: stderr.Bytes(), err: err, took: time.Since(began)}
			out.orphans = syscall.Kill(group, 0) == nil
			_ = syscall.Kill(group, syscall.SIGKILL)
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				out.status = exit.ExitCode()
			} else if err != nil {
				out.status = -1
			}
			return out
		case <-due:
			_ = syscall.Kill(group, signal)
			due = nil
		case <-ctx.Done():
			_ = syscall.Kill(group, syscall.SIGKILL)
			err := <-ended
			return ran{err: errors.Join(ctx.Err(), err), status: -1, took: time.Since(began)}
		}
	}
}
