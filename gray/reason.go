package gray

import (
	"strconv"
	"strings"
	"time"
)

// Reason says why something happened: a code from the list below and the numbers that decided. The same reason
// stands in the record, the log, the API and the CLI; metrics carry the code alone.
type Reason struct {
	Code    string   `json:"code"`
	Numbers []Number `json:"numbers,omitempty"`
	Text    string   `json:"text,omitempty"`  // a person's words, or the text of an error
	Actor   string   `json:"actor,omitempty"` // the person or program that asked; empty: the controller
}

// Number is one named figure of a Reason.
type Number struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Codes of verdicts.
const (
	CodeSuccessOK       = "success.ok"        // pass: the new devices are good enough beside the old
	CodeSuccessLow      = "success.low"       // fail: they are not
	CodeFloorOK         = "floor.ok"          // pass: no old devices; success reaches the absolute floor
	CodeFloorLow        = "floor.low"         // fail: no old devices; success does not
	CodeRequestsFew     = "requests.few"      // hold: fewer requests than the minimum
	CodeReportsFew      = "reports.few"       // hold: fewer reports than the minimum
	CodeBaselineMissing = "baseline.missing"  // hold: there are old devices, but nobody called them
	CodeUncertain       = "success.uncertain" // hold: the evidence decides neither way yet
	CodeDataGap         = "data.gap"          // hold: a part of the window is unknown
	CodeDataError       = "data.error"        // hold: the outcomes cannot be read
	CodeWeightsPending  = "weights.pending"   // hold: the wanted shares are not in force yet
	CodeWeightsError    = "weights.error"     // hold: the shares cannot be read
	CodeSoaking         = "soaking"           // hold: good so far, and the soak is not over
	CodeStopped         = "stopped"           // hold: a person has stopped automation
)

// Codes of transitions.
const (
	CodeCreated       = "created"
	CodeStarted       = "started"        // no other rollout of the service is under way
	CodeInForce       = "stage.in_force" // the wanted shares were read back; soak and window begin
	CodeGateGreen     = "stage.green"    // gate green after its soak: the next stage, or done
	CodePromoted      = "promoted"       // a person ended the stage
	CodeOverdue       = "stage.overdue"  // not green within MaxStage: paused for a person
	CodePaused        = "paused"
	CodeResumed       = "resumed"
	CodeAborted       = "aborted" // a person asked for it
	CodeRolledBack    = "rolled_back"
	CodeDrifted       = "weights.drifted"  // somebody else changed a share: set again, window restarted
	CodeWindowRestart = "window.restarted" // the gap in the data does not close: evidence counts from here
	CodeMemberLost    = "member.lost"      // a member left the service: the rollout goes on without it
	CodeMembersGone   = "members.gone"     // all of them did: abort
)

// Number returns the figure of that name, and whether there is one.
func (r Reason) Number(name string) (float64, bool) {
	for _, n := range r.Numbers {
		if n.Name == name {
			return n.Value, true
		}
	}
	return 0, false
}

// String is the code with its numbers, such as "success.low new=0.91 old=0.998 margin=0.05".
func (r Reason) String() string {
	var b strings.Builder
	b.WriteString(r.Code)
	for _, n := range r.Numbers {
		b.WriteByte(' ')
		b.WriteString(n.Name)
		b.WriteByte('=')
		b.WriteString(strconv.FormatFloat(n.Value, 'g', 6, 64))
	}
	if r.Actor != "" {
		b.WriteString(" by ")
		b.WriteString(r.Actor)
	}
	if r.Text != "" {
		b.WriteString(": ")
		b.WriteString(r.Text)
	}
	return b.String()
}

// Decision is what a verdict says.
type Decision string

const (
	Hold Decision = "hold" // neither way: wait
	Pass Decision = "pass"
	Fail Decision = "fail"
)

// Verdict is one look at a stage.
type Verdict struct {
	Decision Decision  `json:"decision"`
	Reason   Reason    `json:"reason"`
	At       time.Time `json:"at,omitzero"`
}

// String is the decision with its reason.
func (v Verdict) String() string { return string(v.Decision) + " " + v.Reason.String() }
