package scale

import (
	"errors"

	"github.com/zhiyun-ops/zhiyun/internal/reconcile"
)

var (
	// ErrNotFound says that there is no module of the given name.
	ErrNotFound = errors.New("scale: no such module among those that are scaled; Modules decides which these are")
	// ErrRefused says that an order by hand breaks a bound of the module.
	ErrRefused = errors.New("scale: order refused")
	// ErrNoDevices says that no idle device fits the module.
	ErrNoDevices = errors.New("scale: no idle device fits; free one, or give its type a capacity")
	// ErrRejected is what a Launcher wraps to say that an order can never be launched; the order has failed then.
	// Any other error of Launch is tried again.
	ErrRejected = errors.New("scale: the launcher rejects the order")
	// ErrConfig wraps the faults of a Config handed to New.
	ErrConfig = errors.New("scale: invalid Config")
	// ErrRunning says that Run was called while it runs.
	ErrRunning = reconcile.ErrRunning
)
