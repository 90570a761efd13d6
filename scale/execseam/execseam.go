// Package execseam joins package scale to a program of yours: it is a scale.Modules, scale.Candidates and
// scale.Launcher over one executable, which is called with a verb as its last argument, JSON on stdin and JSON on
// stdout:
//
//	verb     stdin                  stdout
//	modules  {}                     {"modules": [scale.Module, ...]}
//	idle     {}                     {"devices": [scale.Candidate, ...]}
//	launch   scale.Order            {"id": "..."}    the same key gives the same id and begins nothing new
//	state    {"id": "..."}          {"state": "running" | "done" | "failed"}
//
// It exits with 0, or else with a message on stderr; exit code 3 of launch says that the order can never be
// launched.
package execseam

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/scale"
)

// Program is the executable. It is safe for concurrent use if several of its processes may run at once.
type Program struct{ command []string }

var (
	_ scale.Modules    = (*Program)(nil)
	_ scale.Candidates = (*Program)(nil)
	_ scale.Launcher   = (*Program)(nil)
)

// rejected is the exit code for an order that can never be launched.
const rejected = 3

// New finds the executable; arguments come before the verb.
func New(name string, arguments ...string) (*Program, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("execseam: %w; name an executable file", err)
	}
	return &Program{command: append([]string{path}, arguments...)}, nil
}

// Modules implements scale.Modules.
func (p *Program) Modules(ctx context.Context) ([]scale.Module, error) {
	var out struct {
		Modules []scale.Module `json:"modules"`
	}
	err := p.call(ctx, "modules", struct{}{}, &out)
	return out.Modules, err
}

// Idle implements scale.Candidates.
func (p *Program) Idle(ctx context.Context) ([]scale.Candidate, error) {
	var out struct {
		Devices []scale.Candidate `json:"devices"`
	}
	err := p.call(ctx, "idle", struct{}{}, &out)
	return out.Devices, err
}

// Launch implements scale.Launcher.
func (p *Program) Launch(ctx context.Context, o scale.Order) (string, error) {
	var out struct {
		ID string `json:"id"`
	}
	err := p.call(ctx, "launch", o, &out)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == rejected {
		return "", fmt.Errorf("%w: %w", scale.ErrRejected, err)
	}
	if err == nil && out.ID == "" {
		err = errors.New(`execseam: launch answered without an "id"`)
	}
	return out.ID, err
}

// State implements scale.Launcher.
func (p *Program) State(ctx context.Context, id string) (scale.Progress, error) {
	var out struct {
		State scale.Progress `json:"state"`
	}
	err := p.call(ctx, "state", map[string]string{"id": id}, &out)
	if err == nil && out.State != scale.Underway && out.State != scale.Done && out.State != scale.Failed {
		err = fmt.Errorf("execseam: state of %q is %q: want running, done or failed", id, out.State)
	}
	return out.State, err
}

// call runs the program once; ctx ending kills it.
func (p *Program) call(ctx context.Context, verb string, in, out any) error {
	input, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("execseam: %s: %w", verb, err)
	}
	command := exec.CommandContext(ctx, p.command[0], append(p.command[1:len(p.command):len(p.command)], verb)...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), &stdout, &stderr
	command.WaitDelay = time.Second // for what it leaves behind with our pipes open
	if err := command.Run(); err != nil {
		return fmt.Errorf("execseam: %s %s: %w: %s", p.command[0], verb, err, strings.TrimSpace(stderr.String()))
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		return fmt.Errorf("execseam: %s %s: its answer is not the JSON object that was asked for: %w", p.command[0], verb, err)
	}
	return nil
}
