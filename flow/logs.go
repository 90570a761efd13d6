package flow

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"
)

// attemptLog is where what one attempt writes goes: to its file, and to whoever listens. Both see it without secrets. nil if there is
// neither.
func (e *Engine) attemptLog(a *action, at time.Time) *attemptLog {
	if e.config.LogDir == "" && e.config.OnLog == nil {
		return nil
	}
	l := &attemptLog{page: e.logs.open(&a.call, a.secrets, at.UTC())}
	if e.config.OnLog != nil {
		l.listener = newStriker(listening{e.config.OnLog, &a.call}, a.secrets)
	}
	return l
}

type attemptLog struct {
	page *logPage

	mu       sync.Mutex // guards listener
	listener *striker
}

// listening hands on what is written to it.
type listening struct {
	to   func(Call, []byte)
	call *Call
}

func (l listening) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.to(*l.call, p)
	}
	return len(p), nil
}

func (l *attemptLog) write(p []byte) {
	l.page.write(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		_, _ = l.listener.Write(p) // it does not fail
	}
}

func (l *attemptLog) close(rest string) {
	if l == nil {
		return
	}
	l.page.close(rest)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		_ = l.listener.Close()
	}
}

// LogFilter selects logs of an execution. The zero filter selects all that there is.
type LogFilter struct {
	Step    string
	Item    *int
	Attempt int
	// Follow goes on with what comes, until the execution has ended.
	Follow bool
}

// LogPiece is a piece of what one attempt wrote to stderr.
type LogPiece struct {
	Step    string    `json:"step"`
	Item    int       `json:"item,omitempty"`
	Attempt int       `json:"attempt"`
	Kind    string    `json:"kind,omitempty"` // undo or probe; else the step's own tool
	Began   time.Time `json:"began"`          // the attempt, in this engine
	Text    string    `json:"text"`           // whole lines but for very long ones, and the end of a log
}

func (f *LogFilter) selects(p *LogPiece) bool {
	return (f.Step == "" || f.Step == p.Step) && (f.Item == nil || *f.Item == p.Item) && (f.Attempt == 0 || f.Attempt == p.Attempt)
}

// Logs yields what the attempts of an execution wrote to stderr, secrets struck out, attempt by attempt in the order in which they
// began; what comes while it follows, as it comes. Where the engine keeps no files of an execution, it yields the ends of logs that
// the history has. It ends after the last piece, when ctx ends, or after yielding an error.
func (e *Engine) Logs(ctx context.Context, id string, filter LogFilter) iter.Seq2[LogPiece, error] {
	return func(yield func(LogPiece, error) bool) {
		if _, err := e.config.Store.Get(ctx, id); err != nil {
			yield(LogPiece{}, fmt.Errorf("flow: logs of %s: %w", id, err))
			return
		}
		if !e.hasPages(id) && !filter.Follow || e.logs.dir == "" {
			e.inlineLogs(ctx, id, filter, yield)
			return
		}
		hidden, err := e.revealed(ctx, id) // what came after it was written is not struck out in the files
		if err != nil {
			yield(LogPiece{}, fmt.Errorf("flow: logs of %s: %w", id, err))
			return
		}
		all := yield
		yield = func(piece LogPiece, err error) bool {
			if err == nil && filter.Follow { // after the piece was read: what was secret when it was written is known by now
				if err = e.reveal(ctx, id, &hidden); err != nil {
					all(LogPiece{}, fmt.Errorf("flow: logs of %s: %w", id, err))
					return false
				}
			}
			piece.Text = redactText(piece.Text, hidden.secrets)
			return all(piece, err)
		}
		offsets := map[string]int64{}
		var grown, moved *bell
		defer func() {
			e.logs.grown.leave(id, grown)
			e.moved.leave(id, moved)
		}()
		for ctx.Err() == nil {
			grown, moved = e.logs.grown.wait(id, grown), e.moved.wait(id, moved)
			row, err := e.config.Store.Get(ctx, id)
			if err == nil {
				var more bool
				if more, err = e.newPieces(id, filter, offsets, yield); err == nil && !more {
					return
				}
			}
			if err != nil {
				if ctx.Err() == nil {
					yield(LogPiece{}, fmt.Errorf("flow: logs of %s: %w", id, err))
				}
				return
			}
			if !filter.Follow || row.State.Ended() {
				return
			}
			select {
			case <-grown.rung:
			case <-moved.rung:
			case <-ctx.Done():
			}
		}
	}
}

// hasPages reports whether there are files of an execution.
func (e *Engine) hasPages(id string) bool {
	pages, _, err := e.logs.pages(id)
	return err != nil || len(pages) > 0
}

// newPieces yields what the files have beyond the offsets; more is false once nobody listens.
func (e *Engine) newPieces(id string, filter LogFilter, offsets map[string]int64, yield func(LogPiece, error) bool) (more bool, err error) {
	pages, paths, err := e.logs.pages(id)
	if err != nil {
		return false, err
	}
	for i := range pages {
		if !filter.selects(&pages[i]) {
			continue
		}
		for {
			complete := !e.logs.isLive(paths[i]) || !filter.Follow
			data, err := e.logs.read(paths[i], offsets[paths[i]], complete)
			if err != nil {
				return false, err
			}
			if len(data) == 0 {
				break
			}
			offsets[paths[i]] += int64(len(data))
			piece := pages[i]
			piece.Text = strings.ToValidUTF8(string(data), "?")
			if !yield(piece, nil) {
				return false, nil
			}
		}
	}
	return true, nil
}

// inlineLogs yields the ends of logs that the history has.
func (e *Engine) inlineLogs(ctx context.Context, id string, filter LogFilter, yield func(LogPiece, error) bool) {
	began := map[string]time.Time{}
	for event, err := range e.events(ctx, id, filter.Follow) {
		if err != nil {
			yield(LogPiece{}, err)
			return
		}
		piece := LogPiece{Step: event.Step, Item: event.Item, Attempt: event.Attempt}
		switch event.Kind {
		case EventUndoStarted, EventUndoDone, EventUndoFailed, EventUndoHeld, EventUndoSkipped:
			piece.Kind = "undo"
		case EventProbeStarted, EventProbeFailed:
			piece.Kind = "probe"
		}
		key := fmt.Sprint(piece.Kind, piece.Step, piece.Item)
		switch event.Kind {
		case EventAttemptStarted, EventUndoStarted, EventProbeStarted:
			began[key] = event.At
		}
		piece.Began, piece.Text = began[key], event.Logs
		if event.Logs != "" && filter.selects(&piece) && !yield(piece, nil) {
			return
		}
	}
}
