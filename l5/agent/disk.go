package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// disk keeps grants and registrations in a file: written atomically a moment after a change, read once at the start.
// Version 0.1.0 kept the routes there, too; they are read once and then in the tables.
type disk struct {
	agent *Agent
	dirty chan struct{}
}

// settle is how long changes gather before the file is written.
const settle = 200 * time.Millisecond

// maxSnapshot is the largest file that is read; those that agents write are far smaller.
const maxSnapshot = 1 << 28

func newDisk(a *Agent) *disk { return &disk{agent: a, dirty: make(chan struct{}, 1)} }

// touch says that the state changed.
func (d *disk) touch() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// load takes the file's content for the present until upstream says otherwise.
func (d *disk) load() error {
	path := d.agent.config.SnapshotFile
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSnapshot {
		return fmt.Errorf("%w (%s, %d bytes)", ErrSnapshot, info.Mode(), info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	state, err := ParseSnapshot(data)
	if err != nil {
		return err
	}
	a := d.agent
	if state.GetDevice() != a.config.Device {
		return fmt.Errorf("it was written for device %q, this is %q", state.GetDevice(), a.config.Device)
	}
	if place := state.GetPlace(); place != nil {
		if err := a.hub.SetPlace(place); err != nil {
			return err
		}
	}
	for _, settings := range state.GetSettings() {
		a.link.SeedSettings(settings)
		if err := a.hub.SetSettings(settings); err != nil {
			return err
		}
	}
	for _, snapshot := range state.GetSnapshots() {
		v := view.Of(snapshot)
		a.link.Seed(v)
		if err := a.hub.Publish(v, nil); err != nil {
			return err
		}
		a.tables.touch(v.Service)
	}
	for _, verdict := range state.GetVerdicts() {
		a.callers.decide(verdict)
		a.link.Subscribe(verdict.GetCaller(), verdict.GetService())
	}
	now := a.now()
	for _, instance := range state.GetRegistrations() {
		a.locals.orphan(instance.GetService(), instance.GetAddr(), instance.GetModule(), now)
		a.keeper.Restore(instance)
	}
	return nil
}

// run writes the file after changes until ctx ends.
func (d *disk) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.dirty:
		}
		timer := time.NewTimer(settle)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		if err := d.write(d.agent.now()); err != nil {
			d.agent.metrics.snapshotsFailed.Inc()
			d.agent.config.Logger.Error("l5/agent: the snapshot file is not written; trying again after the next change", "error", err)
		}
	}
}

// write writes the file: whole, or not at all.
func (d *disk) write(now time.Time) error {
	a := d.agent
	path := a.config.SnapshotFile
	if path == "" {
		return nil
	}
	state := &l5pb.AgentState{Device: a.config.Device, WrittenAt: now.UnixNano(), Verdicts: a.callers.verdicts(), Registrations: a.keeper.Held()}
	state.Place = a.hub.Place()
	data, err := FormatSnapshot(state)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := replaceFile(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replaceFile makes data the content of path; a crash leaves the old content or the new.
func replaceFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".l5-snapshot-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
