package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A verb on an execution that another engine owns travels as a letter through the store: the owner hands it to the machine, and the
// transition that it causes answers it, so that it is acted on once.

// letterBody is an input as JSON. Every field of input that a verb sets has its twin here; a test looks that none is forgotten.
type letterBody struct {
	Kind    inputKind       `json:"kind"`
	Step    string          `json:"step,omitempty"`
	Item    int             `json:"item,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	Undo    bool            `json:"undo,omitempty"`
	Probe   bool            `json:"probe,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"`
	Logs    string          `json:"logs,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Ran     Ran             `json:"ran,omitzero"`
	Hidden  []string        `json:"hidden,omitempty"`
	Actor   string          `json:"actor,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	At      time.Time       `json:"at,omitzero"`
	Name    string          `json:"name,omitempty"`
	ID      string          `json:"id,omitempty"`
	Roles   []string        `json:"roles,omitempty"`
	Version int             `json:"version,omitempty"`
	Done    bool            `json:"done,omitempty"`
}

func encodeInput(in input) ([]byte, error) {
	return json.Marshal(letterBody{
		Kind: in.kind, Step: in.step, Item: in.item, Attempt: in.attempt, Undo: in.undo, Probe: in.probe,
		Output: in.result.Output, Logs: in.result.Logs, Error: in.result.Error, Ran: in.result.Ran, Hidden: in.result.hidden, Actor: in.actor, Reason: in.reason, At: in.at, Name: in.name, ID: in.id, Roles: in.roles, Version: in.version, Done: in.done,
	})
}

func decodeInput(body []byte) (input, error) {
	var b letterBody
	if err := json.Unmarshal(body, &b); err != nil {
		return input{}, fmt.Errorf("flow: a letter from another engine: %w", err)
	}
	return input{
		kind: b.Kind, step: b.Step, item: b.Item, attempt: b.Attempt, undo: b.Undo, probe: b.Probe,
		result: Result{Output: b.Output, Logs: b.Logs, Error: b.Error, Ran: b.Ran, hidden: b.Hidden}, actor: b.Actor, reason: b.Reason, at: b.At, name: b.Name, id: b.ID, roles: b.Roles, version: b.Version, done: b.Done,
	}, nil
}

// fates are the errors that keep their identity on the way back.
var fates = map[string]error{"state": ErrState, "invalid": ErrInvalid, "not found": ErrNotFound, "not asked": ErrNotAsked, "denied": ErrDenied, "busy": ErrBusy}

// answerText is an error for a letter's answer.
func answerText(err error) string {
	if err == nil {
		return ""
	}
	for name, fate := range fates {
		if errors.Is(err, fate) {
			return name + "\n" + err.Error()
		}
	}
	return "\n" + err.Error()
}

// answered is an error that another engine answered.
type answered struct {
	text string
	fate error // nil: none of those that callers tell apart
}

func (a *answered) Error() string { return a.text }
func (a *answered) Unwrap() error { return a.fate }

func parseAnswer(text string) error {
	if text == "" {
		return nil
	}
	name, message, _ := strings.Cut(text, "\n")
	return &answered{message, fates[name]}
}

// errUnasked says that a letter was taken back before anybody acted on it.
var errUnasked = errors.New("flow: the letter was taken back")

// mail sends an input to whoever owns the execution and waits for the answer. When ctx ends first, the letter is taken back; if it was
// acted on just then, its answer is returned.
func (e *Engine) mail(ctx context.Context, id string, in input) error {
	body, err := encodeInput(in)
	if err != nil {
		return err
	}
	letter, err := e.shared.Send(ctx, id, body)
	if err != nil {
		return fmt.Errorf("execution %s: %w", id, err)
	}
	wait := 10 * time.Millisecond
	for {
		woken := e.woken()
		text, done, err := e.shared.Collect(ctx, letter, false)
		if err == nil && done {
			return parseAnswer(text)
		}
		if ctx.Err() == nil && err == nil {
			var row Row
			if row, err = e.config.Store.Get(ctx, id); err == nil && row.State.Ended() {
				return e.unask(ctx, letter, errUnasked) // it ended before it was handed in: look again
			}
		}
		if ctx.Err() != nil {
			return e.unask(ctx, letter, ctx.Err())
		}
		if err != nil {
			return fmt.Errorf("flow: execution %s: what became of the request is not known: %w", id, errors.Join(err, e.unask(ctx, letter, nil)))
		}
		timer := time.NewTimer(wait)
		select {
		case <-woken:
		case <-timer.C: // what is heard may be lost
			wait = min(2*wait, 500*time.Millisecond)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// unask takes a letter back and returns otherwise; one that was answered meanwhile has the answer for its fate.
func (e *Engine) unask(ctx context.Context, letter int64, otherwise error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	text, done, err := e.shared.Collect(ctx, letter, true)
	switch {
	case err != nil:
		return errors.Join(otherwise, err)
	case done:
		return parseAnswer(text)
	}
	return otherwise
}

// handIn hands a letter to an execution of this engine, and answers it.
func (e *Engine) handIn(ctx context.Context, l Letter) error {
	in, err := decodeInput(l.Body)
	if err != nil {
		return e.shared.Answer(ctx, Answer{l.ID, answerText(err)})
	}
	for {
		r, err := e.owned(ctx, l.Execution)
		if errors.Is(err, errStranded) {
			return e.shared.Answer(ctx, Answer{l.ID, answerText(err)})
		}
		if err != nil {
			return err
		}
		fate := make(chan error, 1)
		r.post(message{in: in, fate: fate, letter: l.ID})
		err = <-fate
		switch {
		case errors.Is(err, errNotLive):
			continue // it has just left memory
		case errors.Is(err, ErrFenced), errors.Is(err, ErrStale):
			return err // not acted on
		}
		return e.shared.Answer(ctx, Answer{l.ID, answerText(err)})
	}
}

// owned returns the run of an execution that a letter is for, which may rest, or be claimed and not yet taken up. Its error is errNotLive if others own it by
// now, or it has ended.
func (e *Engine) owned(ctx context.Context, id string) (*run, error) {
	find := func() (r *run, member int64) {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.runs[id], e.part.current()
	}
	r, member := find()
	switch {
	case r != nil:
		return r, nil
	case member == 0 || !e.live():
		return nil, errNotLive
	}
	if err := e.adopt(ctx, id, member); err != nil {
		return nil, err
	}
	if r, _ = find(); r == nil {
		return nil, errNotLive
	}
	return r, nil
}
