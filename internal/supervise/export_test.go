package supervise

import (
	"fmt"
	"strings"
	"time"
)

type fixed struct{ next time.Duration }

func (f *fixed) Next() time.Duration { f.next *= 2; return f.next }
func (f *fixed) Reset()              { f.next = 500 * time.Millisecond }

// Script plays lines "AT EVENT [GRACE]" on a machine and returns a line per step.
func Script(text string) (string, error) {
	names := map[string]event{"tick": evTick, "spawned": evSpawned, "failed": evFailed, "ended": evEnded, "stop": evStop, "gone": evGone, "kick": evKick}
	actions := map[action]string{actNone: "-", actSpawn: "spawn", actTerm: "term", actKill: "kill"}
	m := &machine{state: Starting, delays: &fixed{500 * time.Millisecond}, stable: 10 * time.Second}
	zero := time.Unix(0, 0)
	var out strings.Builder
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0][0] == '#' {
			continue
		}
		at, err := time.ParseDuration(fields[0])
		if err != nil {
			return "", err
		}
		e, ok := names[fields[1]]
		if !ok {
			return "", fmt.Errorf("event %q", fields[1])
		}
		var grace time.Duration
		if len(fields) > 2 {
			if grace, err = time.ParseDuration(fields[2]); err != nil {
				return "", err
			}
		}
		act := m.step(zero.Add(at), e, grace)
		until := "-"
		if m.state == Waiting || m.state == Stopping {
			until = m.until.Sub(zero).String()
		}
		fmt.Fprintf(&out, "%-6s %-8s -> %-8s %-5s until=%s restarts=%d\n", fields[0], fields[1], m.state, actions[act], until, m.restarts)
	}
	return out.String(), nil
}

// Machine is the state machine of one instance, under a virtual clock.
type Machine struct{ m *machine }

// NewMachine is a machine that is about to start.
func NewMachine() Machine {
	return Machine{&machine{state: Starting, delays: &fixed{500 * time.Millisecond}, stable: 10 * time.Second}}
}

// Step names what is done: "", "spawn", "term" or "kill".
func (m Machine) Step(now time.Time, name string, grace time.Duration) (State, string) {
	e := map[string]event{"tick": evTick, "spawned": evSpawned, "failed": evFailed, "ended": evEnded, "stop": evStop, "gone": evGone, "kick": evKick}[name]
	act := map[action]string{actSpawn: "spawn", actTerm: "term", actKill: "kill"}[m.m.step(now, e, grace)]
	return m.m.state, act
}
