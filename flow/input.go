package flow

import "time"

// inputKind is what happens to an execution from outside.
type inputKind uint8

const (
	inGo      inputKind = iota + 1 // the engine has room: start, or go on
	inRecover                      // an engine has loaded it from the store
	inEnded                        // an attempt, a probe or an undo has ended
	inDue                          // a retry's time has come
	inCancel
	inPause
	inResume
	inRetry  // a person: try what is held again
	inSettle // a person: this is how a held task ended
	inSkip   // a person: end the step, and go on
	inFail
	inRetryStep
	inBack // a person: go back to a step
	inSignal
	inApprove
	inChoose
	inMigrate
	inRefuse
	inAdmitted // a queued attempt may start
	inLocked   // the locks of the flow may be free
	inWaits    // a running attempt says what it waits for
)

// input is one thing that happens to an execution.
type input struct {
	kind    inputKind
	step    string
	item    int
	attempt int
	undo    bool
	probe   bool
	result  Result
	actor   string
	reason  string
	at      time.Time // inDue: the RetryAt that the timer was set for
	name    string    // inSignal: its name; inChoose: the case; inWaits: what for
	version int       // inMigrate
	program *program  // inMigrate: of the version; Engine.resolve
	id      string    // inSignal: tells a repetition
	roles   []string  // of the actor
	grant   *ticket   // inAdmitted: the leave
	done    bool      // inSettle: it had its effect; inCancel: an execution that is done is turned back as well
}

// actionKind is what the shell has to do once a transition is durable.
type actionKind uint8

const (
	actRun    actionKind = iota + 1 // run an attempt; hand its end back as inEnded
	actStop                         // stop an attempt that runs; its end comes as inEnded all the same
	actTimer                        // hand in inDue at the time
	actUnused                       // give leave back
)

// action is one thing for the shell to do.
type action struct {
	kind   actionKind
	call   Call
	remote bool
	attach bool    // the attempt may be running or finished elsewhere already
	flow   bool    // run the flow named by call.Tool
	grant  *ticket // the leave to run
	lock   string  // an undo: the exclusive key of its task
	at     time.Time

	secrets []string // of the shell: what logs must not show
}
