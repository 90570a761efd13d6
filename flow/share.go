package flow

import (
	"context"
	"time"
)

// Shared is a Store on which several engines run side by side: package pgstore's is one. Each engine is a member, and each open execution is
// owned by one member, or by nobody until one claims it. A member that has not said for a lease that it lives is removed by the others, who
// then claim what it owned. From that moment its commits are refused: Commit checks, in the transaction that writes, that the owner
// of each transition (Row.Owner) is a member still and owns the execution still; ErrFenced is the fate of one whose owner does not.
//
// An engine that is handed a Shared store joins it when it runs. Time is the store's, no member's clock is trusted.
type Shared interface {
	Store

	// Join adds a member and returns its number, which is greater than all before. The name is the process's, such as the
	// name of its host: members of the same name that are known to be dead, as their connection is gone, are removed at once.
	Join(ctx context.Context, name string, lease time.Duration) (member int64, err error)
	// Beat says that the member lives, removes members whose lease has run out, and returns what there is to do. A member whose own lease had
	// run out removes nobody: the others may have been cut off with it. ErrFenced if the member was removed.
	Beat(ctx context.Context, member int64) (Beat, error)
	// Claim makes the member the owner of up to limit open executions that have no owner, or one that was removed, and returns
	// their rows. No execution is claimed by two. ErrFenced if the member was removed. After a claim whose answer was lost, the next returns the
	// rows of all that the member owns.
	Claim(ctx context.Context, member int64, limit int) ([]Row, error)
	// Leave removes the member, so that the others need not wait for its lease. Removing one that is gone changes nothing.
	Leave(ctx context.Context, member int64) error

	// Send posts a letter to an execution, for whoever owns it. ErrNotFound if there is no such execution.
	Send(ctx context.Context, execution string, body []byte) (letter int64, err error)
	// Answer answers a letter that changed nothing; the others are answered by the transition that they caused. An answered letter stays as it is.
	Answer(ctx context.Context, a Answer) error
	// Collect returns and removes a letter's answer; answered is false if there is none yet. With withdraw, a letter without an answer is
	// removed, so that nobody will act on it. ErrNotFound if there is no such letter.
	Collect(ctx context.Context, letter int64, withdraw bool) (text string, answered bool, err error)

	// Listen calls woken whenever there may be something to do before the next beat: a letter, an answer, an execution without an owner, a definition.
	// It returns when ctx ends (nil) or when it can hear no more; what was missed, the next Beat brings.
	Listen(ctx context.Context, woken func()) error
}

// Beat is what a member learns when it says that it lives.
type Beat struct {
	Members int           // how many there are
	Lead    bool          // this one is the oldest of them
	Next    time.Duration // until the first lease of another runs out; 0 if there is no other
	Orphans bool          // there may be something to claim
	Letters []Letter      // to executions that the member owns, oldest first, at most 100
	Removed []int64       // members that this beat removed
}

// Letter is what is asked of an execution through a server that does not own it.
type Letter struct {
	ID        int64
	Execution string
	Body      []byte
}

// Answer is the fate of a letter; Text is empty for a success.
type Answer struct {
	Letter int64
	Text   string
}
