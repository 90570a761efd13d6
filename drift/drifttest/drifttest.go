// Package drifttest has fakes of what package drift needs from outside: a declaration that changes, processes that come
// and go, repairers and reporters that fail as they are told. They are safe for concurrent use.
package drifttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/drift"
)

// Desired is a drift.Desired that a test changes.
type Desired struct {
	mu         sync.Mutex
	state      drift.State // guarded by mu
	generation int         // guarded by mu
	err        error       // guarded by mu
	changed    chan struct{}
}

// NewDesired returns one that declares state, as generation "1".
func NewDesired(state drift.State) *Desired {
	return &Desired{state: state, generation: 1, changed: make(chan struct{}, 1)}
}

// Set declares another state, as the next generation.
func (d *Desired) Set(state drift.State) {
	d.mu.Lock()
	d.state = state
	d.generation++
	d.mu.Unlock()
	d.tell()
}

// Fail makes Desired return err until it is called with nil.
func (d *Desired) Fail(err error) {
	d.mu.Lock()
	d.err = err
	d.mu.Unlock()
	d.tell()
}

func (d *Desired) tell() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Desired implements drift.Desired.
func (d *Desired) Desired(context.Context) (drift.State, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, fmt.Sprint(d.generation), d.err
}

// Changed implements drift.Desired.
func (d *Desired) Changed() <-chan struct{} { return d.changed }

// ProcessTable is a drift.ProcessLister that a test changes.
type ProcessTable struct {
	mu   sync.Mutex
	list []drift.Process // guarded by mu
	err  error           // guarded by mu
}

// NewProcesses returns a table that holds list.
func NewProcesses(list ...drift.Process) *ProcessTable { return &ProcessTable{list: list} }

// Set replaces the table.
func (p *ProcessTable) Set(list ...drift.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = list
}

// Fail makes Processes return err until it is called with nil.
func (p *ProcessTable) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Processes implements drift.ProcessLister.
func (p *ProcessTable) Processes(context.Context) (drift.ProcessList, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return drift.ProcessList{Processes: slices.Clone(p.list), Via: "drifttest"}, p.err
}

// RepairFunc is a drift.Repairer of one function.
type RepairFunc func(ctx context.Context, f drift.Finding) error

// Repair implements drift.Repairer.
func (r RepairFunc) Repair(ctx context.Context, f drift.Finding) error { return r(ctx, f) }

// Restorer is a drift.Repairer that writes known content under a root, and counts.
type Restorer struct {
	root string

	mu      sync.Mutex
	content map[string]string // guarded by mu
	fail    error             // guarded by mu
	calls   []drift.Finding   // guarded by mu
}

// Restore returns a Restorer of content by path below root.
func Restore(root string, content map[string]string) *Restorer {
	return &Restorer{root: root, content: content}
}

// Fail makes repairs return err, having done nothing, until it is called with nil.
func (r *Restorer) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// Calls returns the findings that it was called with.
func (r *Restorer) Calls() []drift.Finding {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Repair implements drift.Repairer.
func (r *Restorer) Repair(_ context.Context, f drift.Finding) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, f)
	if r.fail != nil {
		return r.fail
	}
	path := filepath.Join(r.root, filepath.FromSlash(f.Subject))
	content, known := r.content[f.Subject]
	if !known {
		return errors.Join(os.RemoveAll(path))
	}
	mode := os.FileMode(0o644)
	if f.File != nil && f.File.Mode != 0 {
		mode = f.File.Mode.FileMode()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".restore-")
	if err != nil {
		return err
	}
	_, err = temp.WriteString(content)
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return os.Rename(temp.Name(), path)
}

// Reports is a drift.Reporter that keeps what it is given.
type Reports struct {
	mu   sync.Mutex
	all  []drift.Report // guarded by mu
	fail error          // guarded by mu
	more chan struct{}  // guarded by mu; closed and replaced by each report
}

// NewReports returns a Reports with none.
func NewReports() *Reports { return &Reports{more: make(chan struct{})} }

// Fail makes Report return err, keeping nothing, until it is called with nil.
func (r *Reports) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// All returns the reports so far.
func (r *Reports) All() []drift.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Report implements drift.Reporter.
func (r *Reports) Report(_ context.Context, report drift.Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.all = append(r.all, report)
	close(r.more)
	r.more = make(chan struct{})
	return nil
}

// TB is the part of testing.TB that Wait needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Wait returns the first report that fits, of those there are and those that come within 20s.
func (r *Reports) Wait(t TB, what string, fits func(drift.Report) bool) drift.Report {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		r.mu.Lock()
		all, more := r.all, r.more
		r.mu.Unlock()
		if i := slices.IndexFunc(all, fits); i >= 0 {
			return all[i]
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("waited 20s for a report with %s; have %+v", what, all)
			return drift.Report{}
		}
	}
}
