package flow

import (
	"context"
	"time"
)

// Store keeps definitions, executions and notices. Package sqlitestore keeps them in SQLite, memstore in memory; storetest
// holds any other to the same contract. Implementations are safe for concurrent use.
type Store interface {
	// Commit applies transitions in order, all in one durable write: when it returns without an error, every
	// transition with a nil fate survives a power cut. fates[i] says what became of batch[i]: nil, ErrStale (the
	// execution's last event is not batch[i].Prev), ErrFenced (a Shared store's: its owner is no more), ErrExists (a new execution whose ID, or flow and key, are
	// there), or a *LockedError (another execution holds a lock that it takes). Such a transition changes nothing and does not hinder the others. An error means that nothing is known to be durable;
	// the engine stops. The batch is the caller's again when Commit returns.
	Commit(ctx context.Context, batch []Transition) (fates []error, err error)

	// History returns the records of an execution whose Seq is greater than after, in order, at most limit of them (0: all).
	History(ctx context.Context, id string, after int64, limit int) ([]Record, error)
	// Get returns the row of an execution, or ErrNotFound.
	Get(ctx context.Context, id string) (Row, error)
	// ByKey returns the row of the execution of a flow that was started with a key, or ErrNotFound.
	ByKey(ctx context.Context, flow, key string) (Row, error)
	// List returns rows, newest (greatest ID) first, or oldest first if the filter says so.
	List(ctx context.Context, filter Filter) ([]Row, error)
	// Remove deletes executions with their histories and tags, durably, and returns how many. It passes over those that are
	// not there, and those that have not ended: an open execution is never lost.
	Remove(ctx context.Context, ids []string) (int, error)

	// Locks returns all locks that are held, by key.
	Locks(ctx context.Context) ([]Lock, error)

	// PutDefinition stores a new version, or returns ErrExists if that version of the flow is there.
	PutDefinition(ctx context.Context, r DefinitionRecord) error
	// Definition returns a version; 0 is the latest. ErrNotFound if there is none.
	Definition(ctx context.Context, name string, version int) (DefinitionRecord, error)
	// Definitions returns the latest version of each flow, by name.
	Definitions(ctx context.Context) ([]DefinitionRecord, error)

	// Notices returns up to limit notices that are not delivered, oldest first.
	Notices(ctx context.Context, limit int) ([]Notice, error)
	// Delivered forgets a notice.
	Delivered(ctx context.Context, id string) error
}

// Transition is one atomic change of one execution: events appended to its history, its row brought up to date, and the notices
// that this causes.
type Transition struct {
	Prev    int64 // Seq of the last event before; 0 creates the execution
	Row     Row
	Record  Record
	Notices []Notice
	Answers []Answer // of the letters that it acts on; for a Shared store
	Take    []Lock   // that it takes: all or, with a *LockedError as its fate, nothing of the transition
	Drop    []Lock   // that it gives up; what is not held by Lock.Execution stays
	Tags    []Tag    // by which the execution is to be found from now on; some may be there already
}

// Record is the events of one transition.
type Record struct {
	Seq  int64 // of its first event
	At   time.Time
	Body []byte // JSON; read it with DecodeEvents
}

// Row is what lists and the engine's start need to know of an execution; all of it follows from the history.
type Row struct {
	ID      string
	Flow    string
	Version int
	Key     string // "" is none
	Parent  string
	State   State
	Paused  bool
	Step    string
	Wake    Wake
	Seq     int64 // of the last event
	Actor   string
	Reason  string
	Started time.Time
	Updated time.Time
	Ended   time.Time
	Error   string
	Owner   int64 // the member that runs it, in a Shared store; 0 is none
}

// DefinitionRecord is one stored version of a flow.
type DefinitionRecord struct {
	Name    string
	Version int
	Digest  string
	Source  []byte
	SavedAt time.Time
}

// row is the execution's row. It is there to be shown, so secrets are struck out.
func (x *Execution) row() Row {
	secrets := x.secrets()
	r := Row{
		ID: x.ID, Flow: x.Flow, Version: x.Version, Key: x.Key, Parent: x.Parent, State: x.State, Paused: x.Paused, Step: x.Step,
		Seq: x.Seq, Actor: x.Actor, Reason: redactText(x.Reason, secrets), Started: x.Started, Updated: x.Updated, Ended: x.Ended, Owner: x.owner,
	}
	if x.Error != nil {
		r.Error = redactText(x.Error.Error(), secrets)
	}
	r.Wake = x.wake()
	r.Wake.For = redactText(r.Wake.For, secrets)
	return r
}

// transition packs what a step of the machine did. prev is the sequence number before it.
func (m *machine) transition(prev int64) Transition {
	t := Transition{
		Prev: prev, Row: m.x.row(), Notices: m.notices, Answers: m.answers, Tags: m.tags(),
		Record: Record{Seq: prev + 1, At: m.now, Body: encodeEvents(m.events)},
	}
	for _, change := range m.x.taken {
		t.Take = append(t.Take, Lock{Key: change.key, Execution: m.x.holder(), Since: m.now})
	}
	for _, change := range m.x.freed {
		t.Drop = append(t.Drop, Lock{Key: change.key, Execution: m.x.holder()})
	}
	m.x.taken, m.x.freed = nil, nil
	return t
}
