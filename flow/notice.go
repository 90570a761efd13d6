package flow

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Notifier delivers notices to people or systems. A notice is stored in the transition that causes it and handed over until Notify
// returns nil: at least once. ID tells a repetition.
type Notifier interface {
	Notify(ctx context.Context, notice Notice) error
}

// Notice is something that people should know.
type Notice struct {
	ID        string    `json:"id"`
	Execution string    `json:"execution"`
	Flow      string    `json:"flow"`
	Module    string    `json:"module,omitempty"` // the execution's parameter "module", if it is a text: whose affair it is
	Kind      string    `json:"kind"`             // step (a notify step), approve, failed or stuck
	Severity  string    `json:"severity"`         // info, warning or critical
	Text      string    `json:"text"`
	At        time.Time `json:"at"`
}

func (m *machine) notice(kind, severity, text string) {
	id := fmt.Sprintf("%s/%d", m.x.ID, m.x.Seq)
	for n := 2; slices.ContainsFunc(m.notices, func(other Notice) bool { return other.ID == id }); n++ {
		id = fmt.Sprintf("%s/%d.%d", m.x.ID, m.x.Seq, n) // several of one event
	}
	secrets := m.x.secrets()
	m.notices = append(m.notices, Notice{
		ID: id, Execution: m.x.ID, Flow: m.x.Flow, Module: redactText(m.x.module(), secrets),
		Kind: kind, Severity: severity, Text: redactText(text, secrets), At: m.now,
	})
}

func itoa(n int) string { return strconv.Itoa(n) }

// deliver hands stored notices to the notifier, oldest first, until ctx ends.
func (e *Engine) deliver(ctx context.Context) {
	backoff := Retry{Backoff: Duration(time.Second), Max: Duration(time.Minute)}
	failed := 0
	for {
		var notices []Notice
		var err error
		if e.shared == nil || e.Leads() { // of several engines one delivers
			notices, err = e.config.Store.Notices(ctx, 100)
		}
		for _, notice := range notices {
			if err = e.config.Notifier.Notify(ctx, notice); err != nil {
				break
			}
			if err = e.config.Store.Delivered(ctx, notice.ID); err != nil {
				break
			}
		}
		wait := time.Minute // a safety net: publish wakes this loop
		if err != nil {
			failed++
			wait = backoff.delay(failed)
			if ctx.Err() == nil {
				e.log.Warn("notice not delivered, will be tried again", "error", err, "after", wait)
			}
		} else {
			failed = 0
			if len(notices) > 0 {
				continue
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-e.noticed:
			if err != nil {
				// What fails keeps its distance, however much comes in.
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}
