package flow

import (
	"bytes"
	"strings"
	"sync"
)

// A tool that waits for something says so in a line of its log that begins with "waits:". The last such line of a running attempt is shown with its step, by the
// engine that runs it; one with nothing behind the colon ends that. It is not stored.

const (
	waitsPrefix = "waits:"
	maxSaying   = 1024 // bytes of a line that are looked at
)

// saying listens to the log of one attempt.
type saying struct {
	run     *run
	id      string // the attempt's
	secrets []string
	next    func([]byte) // who listens besides; may be nil

	mu   sync.Mutex // guards line
	line []byte     // as far as it has come
}

func (s *saying) write(p []byte) {
	if s.next != nil {
		s.next(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		piece, rest, ended := bytes.Cut(p, []byte("\n"))
		s.line = append(s.line, piece[:min(len(piece), maxSaying-len(s.line))]...)
		if p = rest; !ended {
			return
		}
		if text, says := strings.CutPrefix(string(s.line), waitsPrefix); says {
			s.run.say(s.id, redactText(strings.ToValidUTF8(strings.TrimSpace(text), "?"), s.secrets))
		}
		s.line = s.line[:0]
	}
}

// say notes what an attempt waits for; "" is nothing.
func (r *run) say(attempt, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text == "" {
		delete(r.says, attempt)
		return
	}
	if r.stops[attempt] == nil {
		return // it has ended
	}
	if r.says == nil {
		r.says = map[string]string{}
	}
	r.says[attempt] = text
}

// overhear completes what is shown of an execution with what its attempts here say that they wait for.
func (e *Engine) overhear(x *Execution) {
	e.mu.Lock()
	r := e.runs[x.ID]
	e.mu.Unlock()
	if r == nil || x.State.Ended() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.says) == 0 {
		return
	}
	m := machine{x: x}
	for i := range x.Steps {
		s := &x.Steps[i]
		for j := range s.Tasks {
			t := &s.Tasks[j]
			if t.State != TaskRunning {
				continue
			}
			if t.Waits = r.says[m.call(s, j, t.Attempt, "").ID]; t.Waits != "" && x.Wake.Kind == WakeLease && x.Wake.For == "" {
				x.Wake.For = "step " + s.Name + ": " + t.Waits
				x.Waiting = x.Wake.For
			}
		}
	}
}
