package flow

import (
	"fmt"
	"strings"
	"time"
)

// Freeze keeps attempts from starting: of executions whose parameter "module" is Module, or of all. What runs goes on to its end, then its
// execution waits, and shows for what. Undos go on, since what is half done is worse than what is done or undone, and so do executions that
// were started with Exempt.
type Freeze struct {
	Module string    `json:"module"` // "" is everything
	Until  time.Time `json:"until,omitzero"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

func (f *Freeze) said() string {
	var b strings.Builder
	b.WriteString("waits for the end of the freeze")
	if f.Module != "" {
		fmt.Fprintf(&b, " of module %s", f.Module)
	}
	fmt.Fprintf(&b, " by %s", f.Actor)
	if !f.Until.IsZero() {
		fmt.Fprintf(&b, " until %s", f.Until.UTC().Format(time.RFC3339))
	}
	return b.String() + reasonText(f.Reason)
}

// SetFreezes replaces the freezes in force. The engine keeps them in memory alone: whoever orders them keeps them, and sets them before Run. What
// no freeze holds any longer starts at once.
func (e *Engine) SetFreezes(freezes []Freeze) { e.gate.setFreezes(freezes) }

// Freezes returns those in force.
func (e *Engine) Freezes() []Freeze { return e.gate.frozen() }
