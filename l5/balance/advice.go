package balance

import (
	"fmt"
	"time"
)

// Advice says what somebody knows who sees more than this caller: the device's agent.
type Advice struct {
	Addr     string
	Says     Verdict
	Evidence string
}

func (Advice) event() {}

// Verdict is what an Advice says.
type Verdict uint8

const (
	// AdviceEnds: the one who gave advice is gone. An instance that was out on advice stays ejected for EjectFor, and is then
	// this caller's to probe.
	AdviceEnds Verdict = iota
	// AdviceUp: the instance was probed and is fit for a trial.
	AdviceUp
	// AdviceDown: the instance is down until another advice; this caller need not probe it.
	AdviceDown
)

// advise follows an advice. What an instance is ejected for on advice alone does not lengthen its next ejection.
func (g *Group) advise(now time.Time, m *member, a Advice) []Action {
	switch {
	case a.Says == AdviceDown && !m.advised:
		m.advised = true
		m.lasts = max(m.lasts, g.config.EjectFor)
		if m.health == Probing {
			m.health, m.since = Ejected, m.downSince() // it stays as long down as it was
			return nil
		}
		m.until = now.Add(m.lasts)
		if m.health != Ejected {
			return []Action{m.move(now, Ejected, a.Evidence)}
		}
	case a.Says == AdviceUp && (m.advised || m.health == Ejected || m.health == Probing):
		m.advised, m.successes = false, 0
		if m.health == Ejected || m.health == Probing {
			return []Action{m.move(now, Trial, fmt.Sprintf("%s; on trial at %.0f %% of its weight", a.Evidence, 100*g.config.TrialShare))}
		}
	case a.Says == AdviceEnds && m.advised:
		m.advised = false
		m.until = now.Add(g.config.EjectFor)
	}
	return nil
}
