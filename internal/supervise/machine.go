package supervise

import "time"

// State is what an instance is doing.
type State string

const (
	Starting State = "starting" // to be spawned by the next reconciliation
	Running  State = "running"
	Waiting  State = "waiting" // ended by itself; restarted after the backoff
	Stopping State = "stopping"
	Stopped  State = "stopped"
)

// machine is the state of one instance, without clock or process:
//
//	            spawned              ended
//	starting ------------> running --------> waiting
//	 ^  | failed              |                |  | stop
//	 |  +---------------------)--------------->+  |
//	 +------------------------)--- due, kick --+  |
//	                     stop |                   |
//	                          v      group gone   v
//	                       stopping ----------> stopped
type machine struct {
	state    State
	since    time.Time // of state
	until    time.Time // waiting: when to start; stopping: when to kill
	restarts int       // times that it was started again after it ended
	killed   bool      // stopping: SIGKILL was sent
	delays   delays
	stable   time.Duration // a run this long resets the delays
}

// delays says how long to wait before each further start.
type delays interface {
	Next() time.Duration
	Reset()
}

type event uint8

const (
	evTick    event = iota // time has passed
	evSpawned              // the process was started, or found again
	evFailed               // the process could not be started
	evEnded                // the process ended by itself
	evStop                 // somebody wants it stopped
	evGone                 // no process of the group is left
	evKick                 // do not wait any longer
)

type action uint8

const (
	actNone action = iota
	actSpawn
	actTerm
	actKill
)

// step moves the machine. grace counts for evStop alone.
func (m *machine) step(now time.Time, e event, grace time.Duration) action {
	switch e {
	case evTick:
		switch {
		case m.state == Starting:
			return actSpawn
		case m.state == Waiting && !now.Before(m.until):
			m.restarts++
			m.enter(now, Starting)
			return actSpawn
		case m.state == Stopping && !m.killed && !now.Before(m.until):
			m.killed = true
			return actKill
		}
	case evKick:
		if m.state == Waiting {
			m.until = now
		}
	case evSpawned:
		if m.state == Starting {
			m.enter(now, Running)
		}
	case evFailed:
		if m.state == Starting {
			m.until = now.Add(m.delays.Next())
			m.enter(now, Waiting)
		}
	case evEnded:
		switch m.state {
		case Running:
			if now.Sub(m.since) >= m.stable {
				m.delays.Reset()
			}
			m.until = now.Add(m.delays.Next())
			m.enter(now, Waiting)
			return actKill // what it left behind in its group
		}
	case evStop:
		switch m.state {
		case Running:
			m.until = now.Add(grace)
			m.enter(now, Stopping)
			return actTerm
		case Starting, Waiting:
			m.enter(now, Stopped)
		case Stopping: // a later, shorter grace counts
			if until := now.Add(grace); until.Before(m.until) {
				m.until = until
			}
		}
	case evGone:
		if m.state == Stopping {
			m.enter(now, Stopped)
		}
	}
	return actNone
}

func (m *machine) enter(now time.Time, s State) {
	m.state, m.since = s, now
	if s == Stopping {
		m.killed = false
	}
}
