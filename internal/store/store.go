// Package store is the one shape in which Zhiyun's packages keep their records: list, watch, and commit
// with conditions. It is defined here once and re-exported by each package that takes a store (as
// gray.Store, cmdb.Store, ...), so that an embedder can hand in a store of its own.
//
// The guarantees below are etcd's, stated so that any implementation can be held to them; storetest holds
// the suite that does. Memory keeps records in process memory; package etcdstore keeps them in etcd.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Store keeps records under string keys. Every commit gets a revision: an integer that grows with each
// commit and is never used twice. Implementations are safe for concurrent use.
type Store interface {
	// List returns every record whose key starts with prefix, in key order, and the revision of that view:
	// all records are as of that one moment, and the view includes every commit acknowledged before the call.
	List(ctx context.Context, prefix string) ([]Record, int64, error)

	// Watch yields every commit with a revision greater than after that touches a key under prefix: in
	// order, each whole, each once. It ends when ctx does, or after yielding an error. ErrCompacted means
	// that commits after the given revision are gone: list again and watch from there. Any other error
	// can be retried from the last revision seen.
	Watch(ctx context.Context, prefix string, after int64) iter.Seq2[Event, error]

	// Commit applies all operations at one revision, or none. A condition that does not hold is a
	// *ConflictError. Once Commit returns without an error the change is durable. An error that is neither
	// ErrConflict, ErrFenced, ErrInvalid, ErrTooLarge nor ErrNoSpace leaves the outcome unknown: read before
	// trying again. A commit that changes nothing (checks, deletes of what is absent) succeeds, reaches no
	// watcher, and returns the revision of the view in which it held. Every implementation takes MaxOps operations and MaxBytes of keys and values at once.
	Commit(ctx context.Context, ops ...Op) (int64, error)
}

// Record is one key with its value.
type Record struct {
	Key      string
	Value    []byte // never changed after it was handed out
	Revision int64  // of the commit that last wrote the key
}

// Event is one commit, as far as it touches the watched prefix.
type Event struct {
	Revision int64
	Puts     []Record // in key order
	Deletes  []string // in key order
}

// Kind says what an operation does.
type Kind uint8

const (
	KindPut    Kind = iota + 1 // writes the value
	KindDelete                 // removes the key; nothing happens if it is absent
	KindCheck                  // changes nothing; only its condition counts
)

// What every Store takes in one commit: etcd's own limits, with room for a guard or two.
const (
	MaxOps   = 120
	MaxBytes = 1 << 20
)

// AnyRevision as Op.If places no condition on the key.
const AnyRevision int64 = -1

// Op is one operation of a commit. Make it with Put, Delete or Check. One commit names a key at most once.
type Op struct {
	Kind  Kind
	Key   string
	Value []byte
	If    int64 // AnyRevision, 0 for "the key is absent", or the revision that last wrote it
	// Whole says that Key is the whole key in the backend: a view made by Prefixed puts nothing before it.
	// It lets a view's commit depend on a key outside of the view, as Fenced does.
	Whole bool
}

// Put writes value under key, whatever is there.
func Put(key string, value []byte) Op {
	return Op{Kind: KindPut, Key: key, Value: value, If: AnyRevision}
}

// Delete removes key, whatever is there.
func Delete(key string) Op { return Op{Kind: KindDelete, Key: key, If: AnyRevision} }

// Check holds if key was last written at revision, or is absent for revision 0.
func Check(key string, revision int64) Op {
	return Op{Kind: KindCheck, Key: key, If: revision}
}

// At returns the operation with the condition that its key was last written at revision; 0 means absent.
func (o Op) At(revision int64) Op {
	o.If = revision
	return o
}

// IfAbsent returns the operation with the condition that its key does not exist.
func (o Op) IfAbsent() Op { return o.At(0) }

var (
	// ErrCompacted says that the commits a watcher asked for are no longer kept.
	ErrCompacted = errors.New("store: the revision asked for was compacted; list again and watch from there")
	// ErrConflict matches every *ConflictError.
	ErrConflict = errors.New("store: a condition of the commit does not hold")
	// ErrFenced says that the writer is no longer the leader under whose term it writes.
	ErrFenced = errors.New("store: the writer's leadership has ended; another leader writes now")
	// ErrInvalid says that the operations themselves are wrong; nothing was changed.
	ErrInvalid = errors.New("store: invalid commit")
	// ErrTooLarge says that the commit has more operations or bytes than the store takes; nothing was changed.
	ErrTooLarge = errors.New("store: commit too large; split it, or stage it")
	// ErrNoSpace says that the store refuses writes for want of space; reads go on.
	ErrNoSpace = errors.New("store: no space left for writes; compact and defragment, or raise the quota, then disarm the alarm")
)

// ConflictError names the first key whose condition did not hold.
type ConflictError struct {
	Key  string
	Want int64 // the revision the commit asked for
	Have int64 // the revision found, 0 if the key is absent, AnyRevision if the store cannot tell
	// Whole says that Key is the key as the backend has it: the operation that failed was marked so.
	Whole bool
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("store: commit on %q: want revision %d, have %d; read it again and retry", e.Key, e.Want, e.Have)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Validate reports the first fault of ops, as an error that wraps ErrInvalid. Implementations call it first.
func Validate(ops []Op) error {
	if len(ops) == 0 {
		return fmt.Errorf("%w: no operation; give at least one", ErrInvalid)
	}
	type name struct {
		key   string
		whole bool
	}
	seen := make(map[name]struct{}, len(ops))
	for i, op := range ops {
		switch {
		case op.Key == "":
			return fmt.Errorf("%w: operation %d has an empty key", ErrInvalid, i)
		case op.Kind < KindPut || op.Kind > KindCheck:
			return fmt.Errorf("%w: operation %d on %q has kind %d; use Put, Delete or Check", ErrInvalid, i, op.Key, op.Kind)
		case op.If < AnyRevision:
			return fmt.Errorf("%w: operation %d on %q has condition %d; use AnyRevision, 0 or a revision", ErrInvalid, i, op.Key, op.If)
		}
		if _, twice := seen[name{op.Key, op.Whole}]; twice {
			return fmt.Errorf("%w: key %q stands in two operations; a commit names a key once", ErrInvalid, op.Key)
		}
		seen[name{op.Key, op.Whole}] = struct{}{}
	}
	return nil
}
