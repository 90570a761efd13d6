package flow

import (
	"bytes"
	"strings"
	"sync"
	"time"
)

// A tool that waits for something says so in a line of its log that begins with "waits:"; one with nothing behind the colon ends that. It is stored, so that
// lists and every engine show it, and a restart does not forget it: the first time at once, then after a second, after two, and so on to a minute, so that a
// tool that talks does not fill the history. What it says in between is passed over but for the last.

const (
	waitsPrefix = "waits:"
	maxSaying   = 1024 // bytes of a line that are looked at
	firstSaying = time.Second
	lastSaying  = time.Minute
)

// saying listens to the log of one attempt.
type saying struct {
	run     *run
	call    *Call
	secrets []string
	next    func([]byte) // who listens besides; may be nil

	telling sync.WaitGroup // the timer's function; close waits for it

	mu    sync.Mutex // guards what follows
	line  []byte     // as far as it has come
	text  string     // what it says now
	told  string     // what the execution knows
	knows bool       // that, and not from before a restart
	pause time.Duration
	timer *time.Timer // set while there is a pause
	ended bool
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
			text = strings.TrimSpace(text)
			if len(s.line) < maxSaying {
				text = redactText(text, s.secrets)
			} else {
				text = struckBeginning(text, s.secrets)
			}
			s.text = strings.ToValidUTF8(text, "?")
			if s.timer == nil {
				s.schedule(0)
			}
		}
		s.line = s.line[:0]
	}
}

// schedule has the execution told after a pause. The caller holds the mutex.
func (s *saying) schedule(pause time.Duration) {
	if s.ended || s.call.Undo || s.call.Probe {
		return
	}
	s.telling.Add(1)
	s.timer = time.AfterFunc(pause, s.tell) // stopped or waited for by close
}

// tell tells the execution what has changed; then there is a pause.
func (s *saying) tell() {
	defer s.telling.Done()
	s.mu.Lock()
	text, changed := s.text, s.text != s.told || !s.knows
	s.told, s.knows, s.timer = text, true, nil
	if changed {
		s.pause = min(max(2*s.pause, firstSaying), lastSaying)
		s.schedule(s.pause)
	}
	s.mu.Unlock()
	if changed {
		msg := message{in: input{kind: inWaits, step: s.call.Step, item: s.call.Item, attempt: s.call.Attempt, name: text}}
		if s.run.hand(&msg) {
			s.run.driveBeside() // the end of the attempt waits for this function, and is not to wait for what other attempts hand in
		}
	}
}

// close ends it: the attempt has ended.
func (s *saying) close() {
	s.mu.Lock()
	s.ended = true
	if s.timer != nil && s.timer.Stop() {
		s.telling.Done()
	}
	s.mu.Unlock()
	s.telling.Wait()
}
