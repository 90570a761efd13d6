package trigger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// Trigger starts a flow by itself: on a schedule, or when a webhook is called. Exactly one of Schedule and Webhook is set.
type Trigger struct {
	Name     string         `json:"trigger" yaml:"trigger"`
	Title    string         `json:"title,omitempty" yaml:"title,omitempty"`
	Flow     string         `json:"flow" yaml:"flow"`
	Params   map[string]any `json:"params,omitempty" yaml:"params,omitempty"` // of a webhook: texts may hold expressions over body
	Schedule *Schedule      `json:"schedule,omitempty" yaml:"schedule,omitempty"`
	Webhook  *Webhook       `json:"webhook,omitempty" yaml:"webhook,omitempty"`
}

// Schedule says when a flow starts.
type Schedule struct {
	// Cron has five fields: minute, hour, day of the month, month, day of the week.
	Cron string `json:"cron" yaml:"cron"`
	// Zone is the IANA name of the time zone. Default UTC.
	Zone string `json:"zone,omitempty" yaml:"zone,omitempty"`
	// Missed says what becomes of times that passed while no server looked, or while the trigger was paused. Default skip.
	Missed Missed `json:"missed,omitempty" yaml:"missed,omitempty"`
	// Overlap says what happens when the execution that the trigger started last has not ended. Default skip.
	Overlap Overlap `json:"overlap,omitempty" yaml:"overlap,omitempty"`
	// Jitter spreads starts: each is late by up to so much, the same on every server. Default none.
	Jitter flow.Duration `json:"jitter,omitempty" yaml:"jitter,omitempty"`
	// Grace is how late a start may be and still count as on time. Default one minute.
	Grace flow.Duration `json:"grace,omitempty" yaml:"grace,omitempty"`
}

// Missed is what becomes of the times that were missed.
type Missed string

const (
	MissedSkip Missed = "skip" // nothing
	MissedOnce Missed = "once" // one start, for the last of them
	MissedAll  Missed = "all"  // a start for each, at most MaxMissed, the last ones
)

// MaxMissed bounds the starts that make up for what was missed.
const MaxMissed = 100

// Overlap is what happens while the last execution has not ended.
type Overlap string

const (
	OverlapSkip  Overlap = "skip"  // no start
	OverlapAllow Overlap = "allow" // a start beside it
	OverlapWait  Overlap = "wait"  // a start once it has ended; at most one waits
)

// Webhook starts a flow for a signed call: POST of a JSON object, with the header
//
//	Zhiyun-Signature: t=SECONDS,v1=HEX
//
// where SECONDS is the time since 1970 and HEX the HMAC-SHA256 under Secret of SECONDS, a dot, and the body.
type Webhook struct {
	// Secret is the key of signatures, at least 16 bytes. It is never shown.
	Secret string `json:"secret" yaml:"secret"`
	// Window is how far the signature's time may be from the server's. Within it the same call starts nothing more. Default 5m.
	Window flow.Duration `json:"window,omitempty" yaml:"window,omitempty"`
	// MaxBody bounds the body, in bytes. Default 64 KiB, at most 1 MiB.
	MaxBody int64 `json:"max_body,omitempty" yaml:"max_body,omitempty"`
	// When is an expression over body; if it is false, nothing is started. Default: every call starts the flow.
	When string `json:"when,omitempty" yaml:"when,omitempty"`
	// Key is a text with expressions over body: calls with the same key start one execution. Default: the call's own signature.
	Key string `json:"key,omitempty" yaml:"key,omitempty"`
}

// Hidden stands for a secret in what is shown. Applied, it keeps the secret that is there.
const Hidden = "********"

var (
	// ErrNotFound says that there is no such trigger.
	ErrNotFound = errors.New("flow/trigger: not found")
	// ErrInvalid says that a trigger is wrong, or an order for one; nothing was changed.
	ErrInvalid = errors.New("flow/trigger: invalid")
	// ErrPaused says that a trigger is paused.
	ErrPaused = errors.New("flow/trigger: paused")
	// ErrContended says that others changed the trigger again and again meanwhile.
	ErrContended = errors.New("flow/trigger: changed meanwhile; try again")
)

var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// goType is what the YAML library says of a field that there is none for.
var goType = regexp.MustCompile(`not found in type trigger\.\w+`)

// MaxDocument bounds the document of a trigger, in bytes.
const MaxDocument = 64 << 10

// Parse reads a trigger from YAML, or JSON, and checks it. All faults are returned at once, as an ErrInvalid.
func Parse(document []byte) (Trigger, error) { return ParseWithSecret(document, "") }

// ParseWithSecret is Parse of a document whose webhook has the secret that is given here, if it is not empty.
func ParseWithSecret(document []byte, secret string) (Trigger, error) {
	var t Trigger
	if len(document) > MaxDocument {
		return t, fmt.Errorf("%w: the document has %d bytes; at most %d are read", ErrInvalid, len(document), MaxDocument)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(document))
	decoder.KnownFields(true)
	if err := decoder.Decode(&t); errors.Is(err, io.EOF) {
		return Trigger{}, fmt.Errorf("%w: the document is empty", ErrInvalid)
	} else if err != nil {
		return Trigger{}, fmt.Errorf("%w: %s", ErrInvalid, goType.ReplaceAllString(err.Error(), "is unknown here"))
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Trigger{}, fmt.Errorf("%w: there is something behind the trigger; a document holds one", ErrInvalid)
	}
	if secret != "" {
		if t.Webhook == nil {
			return Trigger{}, fmt.Errorf("%w: it has no webhook, which alone has a secret", ErrInvalid)
		}
		t.Webhook.Secret = secret
	}
	_, err := t.compile()
	return t, err
}

// compiled is a trigger made ready to run.
type compiled struct {
	Trigger
	cron *cron    // of a schedule
	when *program // of a webhook, may be nil
	key  *value   // of a webhook, may be nil
	with *value   // the parameters
}

// compile checks a trigger and fills in defaults.
func (t Trigger) compile() (*compiled, error) {
	c := &compiled{Trigger: t}
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !name.MatchString(t.Name) {
		bad("trigger %q is no name: lower case letters, digits, dots, dashes and underscores, at most 63", t.Name)
	}
	if t.Flow == "" {
		bad("flow is missing: name the flow to start")
	}
	if (t.Schedule == nil) == (t.Webhook == nil) {
		bad("give one of schedule and webhook")
	}
	var err error
	if t.Schedule != nil {
		s := *t.Schedule
		c.Schedule = &s
		if c.cron, err = parseCron(s.Cron, s.Zone); err != nil {
			bad("schedule: %w", err)
		}
		if s.Missed == "" {
			s.Missed = MissedSkip
		}
		if s.Overlap == "" {
			s.Overlap = OverlapSkip
		}
		if s.Grace == 0 {
			s.Grace = flow.Duration(time.Minute)
		}
		if !slices.Contains([]Missed{MissedSkip, MissedOnce, MissedAll}, s.Missed) {
			bad("schedule.missed is %q: want skip, once or all", s.Missed)
		}
		if !slices.Contains([]Overlap{OverlapSkip, OverlapAllow, OverlapWait}, s.Overlap) {
			bad("schedule.overlap is %q: want skip, allow or wait", s.Overlap)
		}
		if s.Jitter < 0 || time.Duration(s.Jitter) > 24*time.Hour {
			bad("schedule.jitter is %s: want at most 24h", s.Jitter)
		}
		if s.Grace < 0 {
			bad("schedule.grace is %s: want a positive duration", s.Grace)
		}
		c.with, err = compileValue(map[string]any(t.Params), false)
	}
	if t.Webhook != nil {
		w := *t.Webhook
		c.Webhook = &w
		if len(w.Secret) < 16 && w.Secret != Hidden {
			bad("webhook.secret has %d bytes: want at least 16, from a random source", len(w.Secret))
		}
		if w.Window == 0 {
			w.Window = flow.Duration(5 * time.Minute)
		}
		if w.Window < 0 || time.Duration(w.Window) > time.Hour {
			bad("webhook.window is %s: want at most 1h", w.Window)
		}
		if w.MaxBody == 0 {
			w.MaxBody = 64 << 10
		}
		if w.MaxBody < 0 || w.MaxBody > 1<<20 {
			bad("webhook.max_body is %d: want at most %d", w.MaxBody, 1<<20)
		}
		if w.When != "" {
			if c.when, err = compileExpression(w.When); err != nil {
				bad("webhook.when: %w", err)
			}
		}
		if w.Key != "" {
			if c.key, err = compileValue(w.Key, true); err != nil {
				bad("webhook.key: %w", err)
			}
		}
		c.with, err = compileValue(map[string]any(t.Params), true)
	}
	if err != nil {
		bad("params: %w", err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, nil
}

// shown returns the trigger without its secret.
func (t Trigger) shown() Trigger {
	if t.Webhook != nil {
		w := *t.Webhook
		w.Secret = Hidden
		t.Webhook = &w
	}
	return t
}
