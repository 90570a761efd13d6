package tooltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// describe: the program tells its manifest when it is asked.
func (s *subject) describe(ctx context.Context) error {
	if s.config.Dir == "" {
		return skip{"the manifest was handed in, not read from a folder"}
	}
	var out ran
	if err := s.in(func(p *place) error {
		out = run(ctx, s.command(p.World, flow.Call{}, "--describe"), 0, 0)
		return nil
	}); err != nil {
		return err
	}
	if out.err != nil {
		return fmt.Errorf("--describe: %w: %s", out.err, clip(out.stderr))
	}
	told, err := flow.DecodeManifest(out.stdout)
	if err != nil {
		return fmt.Errorf("--describe printed %s: %w", clip(out.stdout), err)
	}
	file := s.manifest
	told.Digest, file.Digest = "", "" // of the whole folder: a program cannot know it
	a, err := json.Marshal(told)
	if err != nil {
		return err
	}
	b, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if !same(a, b) {
		return fmt.Errorf("--describe and %s differ: %s and %s", flow.ManifestFile, a, b)
	}
	return nil
}

// lint: nothing in the manifest would hinder who uses it.
func (s *subject) lint(context.Context) error {
	var faults []error
	for _, p := range Lint(s.manifest) {
		if p.Fatal {
			faults = append(faults, fmt.Errorf("%s: %s", p.Field, p.Message))
		}
	}
	return errors.Join(faults...)
}

// examples: each works in an empty world, returns what it says, and prints nothing else.
func (s *subject) examples(ctx context.Context) error {
	if _, err := s.example(); err != nil {
		return err
	}
	var faults []error
	for i, example := range s.manifest.Examples {
		if err := s.one(ctx, example); err != nil {
			faults = append(faults, fmt.Errorf("examples[%d]: %w", i, err))
		}
	}
	return errors.Join(faults...)
}

func (s *subject) one(ctx context.Context, example flow.Example) error {
	return s.in(func(p *place) error {
		result := s.tools.Run(ctx, s.call("example", example.Input), p.env())
		switch {
		case result.Error != nil:
			return fmt.Errorf("%w; its log: %s", result.Error, clip([]byte(result.Logs)))
		case len(example.Output) > 0 && !same(example.Output, result.Output):
			return fmt.Errorf("it returned %s, and the manifest says %s", clip(result.Output), clip(example.Output))
		}
		return nil
	})
}

// badInput: what the schema refuses, the tool refuses as well, says so, and changes nothing. An engine may be older than the tool.
func (s *subject) badInput(ctx context.Context) error {
	example, err := s.example()
	if err != nil {
		return err
	}
	var faults []error
	for name, input := range spoil(s.manifest.Input, example.Input) {
		if err := s.in(func(p *place) error { return s.refused(ctx, p, input) }); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

func (s *subject) refused(ctx context.Context, p *place, input []byte) error {
	out := run(ctx, s.command(p.World, s.call("bad", input)), 0, 0)
	var said struct {
		Error *struct{ Code, Message string }
	}
	switch {
	case out.status == 0:
		return fmt.Errorf("it took %s, and printed %s", clip(input), clip(out.stdout))
	case out.status < 0:
		return fmt.Errorf("it did not end by itself on %s: %w", clip(input), out.err)
	case json.Unmarshal(out.stdout, &said) != nil || said.Error == nil || said.Error.Code == "" || said.Error.Message == "":
		return fmt.Errorf(`on %s it printed %s; want {"error": {"code": "...", "message": "...", "retry": false}}`, clip(input), clip(out.stdout))
	}
	return p.unchanged("it refused " + clip(input) + ", and changed")
}

// sameKey: a call that is made again with its key changes nothing, and returns the same. One that changes nothing at all, changes nothing.
func (s *subject) sameKey(ctx context.Context) error {
	example, err := s.example()
	if err != nil {
		return err
	}
	if s.manifest.Effect == flow.Manual || s.manifest.Effect == "" {
		return skip{"effect manual: nobody calls it again"}
	}
	return s.in(func(p *place) error {
		first := s.tools.Run(ctx, s.call("key", example.Input), p.env())
		if first.Error != nil {
			return first.Error
		}
		if s.manifest.Effect == flow.Pure {
			if err := p.unchanged("it says that it is pure, and changed"); err != nil {
				return err
			}
		}
		if s.manifest.Effect == flow.Probe {
			return s.probed(ctx, p.World, example.Input, true)
		}
		if err := p.look(); err != nil {
			return err
		}
		second := s.tools.Run(ctx, s.call("key", example.Input), p.env())
		if second.Error != nil {
			return fmt.Errorf("again with the same key: %w", second.Error)
		}
		if err := p.unchanged("again with the same key it changed"); err != nil {
			return err
		}
		if s.manifest.Effect == flow.Keyed && !same(first.Output, second.Output) {
			return fmt.Errorf("again with the same key it returned %s, first %s", clip(second.Output), clip(first.Output))
		}
		return nil
	})
}

// probed asks the probe tool and compares its answer.
func (s *subject) probed(ctx context.Context, w World, input []byte, want bool) error {
	done, err := s.ask(ctx, w, input)
	if err == nil && done != want {
		err = fmt.Errorf("the probe says done %t, want %t", done, want)
	}
	return err
}

func (s *subject) ask(ctx context.Context, w World, input []byte) (bool, error) {
	call := s.call("key", input)
	call.Tool, call.Probe = s.manifest.Probe, true
	result := s.tools.Run(ctx, call, w.env())
	if result.Error != nil {
		return false, fmt.Errorf("the probe: %w", result.Error)
	}
	var said struct{ Done *bool }
	if err := json.Unmarshal(result.Output, &said); err != nil || said.Done == nil {
		return false, fmt.Errorf(`the probe answered %s; want {"done": true or false, "output": {...}}`, clip(result.Output))
	}
	return *said.Done, nil
}

// undoing calls the undo tool.
func (s *subject) undoing(ctx context.Context, w World, key string, input, done json.RawMessage) error {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(input, &fields); err != nil {
		return fmt.Errorf("the example's input: %w", err)
	}
	if done != nil {
		fields["done"] = done
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	call := s.call(key, data)
	call.Tool, call.Undo = s.manifest.Undo, true
	if result := s.tools.Run(ctx, call, w.env()); result.Error != nil {
		return fmt.Errorf("%w; its log: %s", result.Error, clip([]byte(result.Logs)))
	}
	return nil
}

// undo: after it, all is as it was; it may be repeated.
func (s *subject) undo(ctx context.Context) error {
	if s.manifest.Undo == "" {
		return skip{"it has no undo tool"}
	}
	var faults []error
	for i, example := range s.manifest.Examples {
		if err := s.undone(ctx, example); err != nil {
			faults = append(faults, fmt.Errorf("examples[%d]: %w", i, err))
		}
	}
	return errors.Join(faults...)
}

func (s *subject) undone(ctx context.Context, example flow.Example) error {
	return s.in(func(p *place) error {
		result := s.tools.Run(ctx, s.call("key", example.Input), p.env())
		if result.Error != nil {
			return result.Error
		}
		for _, what := range []string{"undo", "undo a second time"} {
			if err := s.undoing(ctx, p.World, "key", example.Input, result.Output); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if err := p.unchanged("after " + what + " there is, against before"); err != nil {
				return err
			}
		}
		return nil
	})
}

// undoOfNothing: it succeeds, and takes nothing away that another key has made.
func (s *subject) undoOfNothing(ctx context.Context) error {
	if s.manifest.Undo == "" {
		return skip{"it has no undo tool"}
	}
	example, err := s.example()
	if err != nil {
		return err
	}
	return s.in(func(p *place) error {
		if err := s.undoing(ctx, p.World, "never", example.Input, nil); err != nil {
			return err
		}
		return p.unchanged("it changed")
	})
}

// killed: whenever the tool is killed, the way its effect class prescribes leads to what one whole call makes.
func (s *subject) killed(ctx context.Context) error {
	example, err := s.example()
	if err != nil {
		return err
	}
	if s.manifest.Effect == flow.Manual || s.manifest.Effect == "" {
		return skip{"effect manual: a person looks"}
	}
	var whole ran
	var want map[string]string
	if err := s.in(func(p *place) error {
		whole = run(ctx, s.command(p.World, s.call("key", example.Input)), 0, 0)
		err := p.look()
		want = p.was
		return errors.Join(err, whole.err)
	}); err != nil {
		return err
	}
	for _, share := range []int{5, 20, 40, 60, 80, 95} {
		if err := s.killedAt(ctx, example.Input, max(whole.took*time.Duration(share)/100, time.Microsecond), want); err != nil {
			return fmt.Errorf("killed after %d %% of its time: %w", share, err)
		}
	}
	return nil
}

func (s *subject) killedAt(ctx context.Context, input []byte, after time.Duration, want map[string]string) error {
	return s.in(func(p *place) error {
		run(ctx, s.command(p.World, s.call("key", input)), after, syscall.SIGKILL)
		if s.manifest.Effect == flow.Probe {
			done, err := s.ask(ctx, p.World, input)
			if err != nil || done {
				return err
			}
		}
		if result := s.tools.Run(ctx, s.call("key", input), p.env()); result.Error != nil {
			return fmt.Errorf("again with the same key: %w; its log: %s", result.Error, clip([]byte(result.Logs)))
		}
		p.was = want
		if err := p.unchanged("again with the same key it made, against a whole call"); err != nil {
			return err
		}
		if s.manifest.Undo == "" {
			return nil
		}
		return s.undoing(ctx, p.World, "key", input, nil)
	})
}

// termGrace is how long a tool may take to end after SIGTERM.
const termGrace = 2 * time.Second

// toldToEnd: SIGTERM ends the tool before it would be killed.
func (s *subject) toldToEnd(ctx context.Context) error {
	example, err := s.example()
	if err != nil {
		return err
	}
	var middle time.Duration
	if err := s.in(func(p *place) error {
		middle = max(run(ctx, s.command(p.World, s.call("whole", example.Input)), 0, 0).took/2, time.Millisecond)
		return nil
	}); err != nil {
		return err
	}
	return s.in(func(p *place) error {
		if out := run(ctx, s.command(p.World, s.call("key", example.Input)), middle, syscall.SIGTERM); out.took > middle+termGrace {
			return fmt.Errorf("it ended %s after SIGTERM; it would have been killed after %s", (out.took - middle).Round(time.Millisecond), termGrace)
		}
		return nil
	})
}

// nothingLeft: no process outlives the tool, and stdout holds one JSON object.
func (s *subject) nothingLeft(ctx context.Context) error {
	example, err := s.example()
	if err != nil {
		return err
	}
	return s.in(func(p *place) error {
		out := run(ctx, s.command(p.World, s.call("key", example.Input)), 0, 0)
		printed := bytes.TrimSpace(out.stdout)
		switch {
		case out.err != nil:
			return fmt.Errorf("%w: %s", out.err, clip(out.stderr))
		case out.orphans:
			return errors.New("it left processes behind, which flows kill; have a supervisor run what is to stay")
		case len(printed) > 0 && (!json.Valid(printed) || printed[0] != '{'):
			return fmt.Errorf("it printed %s; want one JSON object, and logs on stderr", clip(out.stdout))
		case len(out.stdout) > flow.MaxOutput:
			return fmt.Errorf("it printed %d bytes, at most %d are taken", len(out.stdout), flow.MaxOutput)
		}
		return nil
	})
}

// plan: it tells, and touches nothing.
func (s *subject) plan(ctx context.Context) error {
	if !s.manifest.Plan {
		return skip{"it has no plan mode"}
	}
	example, err := s.example()
	if err != nil {
		return err
	}
	return s.in(func(p *place) error {
		if _, err := s.tools.Plan(ctx, s.call("key", example.Input), p.env()); err != nil {
			return err
		}
		return p.unchanged("in plan mode it changed")
	})
}

// resident: one process answers all examples, refuses what is bad, and ends with its stdin.
func (s *subject) resident(ctx context.Context) error {
	if s.manifest.Resident == nil {
		return skip{"it is started anew for each call"}
	}
	return s.in(func(p *place) error { return s.stays(ctx, p.World) })
}

func (s *subject) stays(ctx context.Context, w World) error {
	tools := flow.NewTools()
	m := s.manifest
	m.OnDevice, m.Undo, m.Probe, m.Input = false, "", "", nil
	if m.Effect == flow.Probe {
		m.Effect = flow.Keyed
	}
	m.Resident = &flow.Resident{Processes: 1}
	tools.Exec(m)
	if err := tools.Err(); err != nil {
		return err
	}
	for i, example := range s.manifest.Examples {
		result := tools.Run(ctx, s.call(fmt.Sprint("key-", i), example.Input), w.env())
		if result.Error != nil {
			return fmt.Errorf("examples[%d]: %w", i, result.Error)
		}
		for name, input := range spoil(s.manifest.Input, example.Input) {
			if name == "not JSON" { // no engine sends such a line
				continue
			}
			if result := tools.Run(ctx, s.call("bad", input), w.env()); result.Error == nil || result.Error.Code == flow.CodeLost {
				return fmt.Errorf("%s: it answered %s, %w; want an error in the answer", name, clip(result.Output), asError(result.Error))
			}
		}
	}
	began := time.Now()
	tools.Close()
	if took := time.Since(began); took > termGrace {
		return fmt.Errorf("it ended %s after its stdin", took.Round(time.Millisecond))
	}
	return nil
}

func asError(e *flow.Error) error {
	if e == nil {
		return errors.New("without an error")
	}
	return e
}

func clip(data []byte) string {
	text := string(bytes.TrimSpace(data))
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	if text == "" {
		return "nothing"
	}
	return text
}
