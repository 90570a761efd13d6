package gray

import (
	"errors"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
)

var (
	// ErrNotFound says that there is no rollout with the given ID.
	ErrNotFound = errors.New("gray: no such rollout; List shows those there are")
	// ErrExists says that a rollout with the given ID exists and is not the same one.
	ErrExists = errors.New("gray: another rollout has this ID; give it an ID of its own")
	// ErrState says that what was asked for does not fit the state the rollout is in.
	ErrState = errors.New("gray: the rollout's state does not allow this")
	// ErrSuperseded says that a finished rollout cannot be rolled back because a later one works on its members.
	ErrSuperseded = errors.New("gray: a later rollout works on the same members; abort that one")
	// ErrInvalid wraps the faults of a Rollout handed to Start.
	ErrInvalid = errors.New("gray: invalid rollout")
	// ErrConfig wraps the faults of a Config handed to New.
	ErrConfig = errors.New("gray: invalid Config")
	// ErrRunning says that Run was called while it runs.
	ErrRunning = reconcile.ErrRunning
)
