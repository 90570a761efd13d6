package drift_test

import (
	"context"
	"sync"

	"github.com/zhiyun-ops/zhiyun/drift"
)

// table is a supervisor of the smallest kind, for the examples: it lists processes and starts what is missing.
type table struct {
	mu   sync.Mutex
	list []drift.Process
}

func (t *table) Processes(context.Context) (drift.ProcessList, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return drift.ProcessList{Processes: t.list, Via: "supervisor"}, nil
}

func (t *table) Repair(_ context.Context, f drift.Finding) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, drift.Process{Name: f.Process.Name})
	return nil
}
