package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/sqlitestore"
)

// tool measures tools that are programs: a process per call within a durable flow, and a process that stays.
func (s *suite) tool(ctx context.Context) error {
	if err := s.processes(ctx); err != nil {
		return err
	}
	return s.resident(ctx)
}

// processes measures a flow of 23 steps, each a process, against 23 bare processes and the same flow of functions that do nothing.
func (s *suite) processes(ctx context.Context) (err error) {
	s.Progress("tool: flows of 23 processes")
	store, err := sqlitestore.Open(filepath.Join(s.dir, "tool.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	tools := flow.NewTools()
	defer tools.Close()
	flow.Func(tools, "function", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil }, flow.WithEffect(flow.Keyed))
	tools.Exec(flow.Manifest{Name: "process", Command: []string{"/bin/true"}, Effect: flow.Keyed})
	engine, err := flow.New(flow.Config{Store: store, Tools: tools})
	if err != nil {
		return err
	}
	for _, name := range []string{"function", "process"} {
		text := "flow: " + name + "\nsteps:\n"
		for i := range steps {
			text += fmt.Sprintf("  - {name: s%d, tool: %s}\n", i, name)
		}
		if _, err := engine.Save(ctx, []byte(text)); err != nil {
			return err
		}
	}
	stop := background(ctx, engine.Run)
	defer func() { err = errors.Join(err, stop()) }()
	run := func(name string) error {
		id, err := engine.Start(ctx, name, nil)
		if err != nil {
			return err
		}
		x, err := engine.Wait(ctx, id)
		if err == nil && x.State != flow.Done {
			err = fmt.Errorf("execution %s is %s: %v", id, x.State, x.Error)
		}
		return err
	}
	bare := func() error {
		for range steps {
			if err := exec.Command("/bin/true").Run(); err != nil {
				return err
			}
		}
		return nil
	}
	// In turns, so that what else the machine does weighs on all alike.
	var ours, floor time.Duration
	rounds := 0
	for until := time.Now().Add(3 * s.Span); rounds < 3 || time.Now().Before(until); rounds++ {
		for _, part := range []struct {
			sum *time.Duration
			do  func() error
		}{{&ours, func() error { return run("process") }}, {&floor, bare}, {&floor, func() error { return run("function") }}} {
			began := time.Now()
			if err := part.do(); err != nil {
				return err
			}
			*part.sum += time.Since(began)
		}
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(rounds) }
	s.add("tool.process.23", ms(ours), "ms", ms(floor), "23 bare fork/exec, and the flow with functions in their place")
	return nil
}

// resident measures a call of a process that stays. cat serves: a request without an output of its own is an answer.
func (s *suite) resident(ctx context.Context) (err error) {
	s.Progress("tool: calls of a process that stays")
	cat := exec.CommandContext(ctx, "cat")
	in, err := cat.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cat.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cat.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	line := []byte(`{"id":"b/1","tool":"cat","key":"b","input":{"from":"` + strings.Repeat("x", 60) + `"}}` + "\n")
	floor, err := s.each(func(int) error {
		if _, err := in.Write(line); err != nil {
			return err
		}
		_, err := lines.ReadSlice('\n')
		return err
	})
	if err = errors.Join(err, in.Close(), cat.Wait()); err != nil {
		return err
	}
	tools := flow.NewTools()
	defer tools.Close()
	schema := json.RawMessage(`{"type": "object", "properties": {"from": {"type": "string"}}, "required": ["from"]}`)
	tools.Exec(flow.Manifest{Name: "cat", Command: []string{"cat"}, Resident: &flow.Resident{}, Input: schema, Output: json.RawMessage(`{"type": "object"}`)})
	input := json.RawMessage(`{"from":"` + strings.Repeat("x", 60) + `"}`)
	ours, err := s.each(func(int) error {
		result := tools.Run(ctx, flow.Call{ID: "b/1", Tool: "cat", Key: "b", Input: input}, nil)
		if result.Error != nil {
			return result.Error
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.add("tool.resident", ours/1e3, "us", floor/1e3, "the same line to the same program over bare pipes")
	return nil
}
