package scale

import (
	"strconv"
	"strings"
)

// Reason says why something was decided: a code from the list below and the numbers that decided. The same
// reason stands in the record, the log, the API and the CLI; metrics carry the code alone.
type Reason struct {
	Code    string   `json:"code"`
	Numbers []Number `json:"numbers,omitempty"`
	Text    string   `json:"text,omitempty"`  // a person's words, or the text of an error
	Actor   string   `json:"actor,omitempty"` // the person or program that asked; empty: the decider
}

// Number is one named figure of a Reason.
type Number struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Codes of decisions.
const (
	CodeBelowMin    = "below.min"        // out: fewer devices than Min
	CodeLoadHigh    = "load.high"        // out: load is above High of the capacity
	CodeLoadRising  = "load.rising"      // out: it will be, by its trend, before devices ordered now can serve
	CodeLossHigh    = "loss.high"        // out: more is lost than Loss, and load is above Target
	CodeLoadLow     = "load.low"         // in: load has fitted fewer devices for InAfter
	CodeAboveMax    = "above.max"        // in: more devices than Max
	CodeByHand      = "by.hand"          // out or in: somebody asked
	CodeInBand      = "in.band"          // hold: neither too little nor too much
	CodePaused      = "paused"           // hold: the module is paused
	CodeDataMissing = "data.missing"     // hold: no load is known
	CodeDataStale   = "data.stale"       // hold: the newest load known is too old
	CodeDataGap     = "data.gap"         // hold: too much of the time that counts is unknown
	CodeHistory     = "history.short"    // hold: load has not been known for InAfter
	CodeCapacity    = "capacity.unknown" // hold: a device in service has a type without a capacity
	CodeCooldown    = "cooldown"         // hold: the last order is too recent
	CodeBackoff     = "backoff"          // hold: the last order failed
	CodeAtMax       = "at.max"           // hold: more is needed, Max is reached
	CodeAtMin       = "at.min"           // hold: less would do, Min is reached
	CodeHourlyCap   = "hourly.cap"       // hold: PerHour is used up
	CodeBusy        = "busy"             // hold: less would do, but devices are coming, going, or in their rollout
	CodeNoDevices   = "no.devices"       // hold: more is needed, no idle device fits
	CodeInvalid     = "invalid"          // hold: the module's description is faulty
	CodeError       = "error"            // hold: something could not be read
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

// String is the code with its numbers, such as "load.high load=310 capacity=300 target=0.7".
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
