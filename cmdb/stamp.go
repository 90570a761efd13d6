package cmdb

import "time"

// stamp is what every change carries.
type stamp struct {
	at                       time.Time
	actor, reason, execution string
	hash                     string // of the plan that an apply expects
}

// Option adds to a change who made it and why.
type Option func(*stamp)

// By names who makes the change: a person, or a part of Zhiyun such as scale. Default "unknown".
func By(actor string) Option { return func(s *stamp) { s.actor = actor } }

// Because says why the change is made.
func Because(reason string) Option { return func(s *stamp) { s.reason = reason } }

// During names the execution of a flow that makes the change.
func During(execution string) Option { return func(s *stamp) { s.execution = execution } }

// Expect makes Apply refuse, with ErrStale, any plan but the one with this hash: for callers that showed a
// plan to somebody in another process.
func Expect(hash string) Option { return func(s *stamp) { s.hash = hash } }

func (db *DB) stamp(opts ...Option) stamp {
	s := stamp{actor: "unknown"}
	for _, opt := range opts {
		opt(&s)
	}
	s.at = db.hooks.now().UTC().Truncate(time.Millisecond)
	return s
}

func (s stamp) meta(action string) Meta {
	return Meta{Action: action, At: s.at, Actor: s.actor, Reason: s.reason, Execution: s.execution}
}
