package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zhiyun-ops/zhiyun/l5/internal/table"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// confirmEvery is how often the table is told to be right: what a program that starts without the agent learns of its age.
const confirmEvery = time.Second

// longestPause bounds how far behind a slow disk leaves the table.
const longestPause = 5 * time.Second

// longestRetry bounds the time between two tries to write what could not be written; it begins at a second and doubles.
const longestRetry = time.Minute

// tables keeps the route table on disk: for each user id of the device what its callers may call. That of the agent's own
// user holds all that any program of the device calls: it is the shelf's. A change is written after it had time to gather
// others; only the segments that it concerns are.
//
//	          touch     settle, 4 times the last write, 2 s since it, spread           written
//	clean -----------------> dirty -------------------------------> writing -------------> clean
//	                           ^                                       |
//	                           +------------- not written -------------+
type tables struct {
	agent *Agent
	wake  chan struct{}

	mu      sync.Mutex
	readers map[int]*reader // guarded by mu; by user id
}

// reader is one user id.
type reader struct {
	folder    string                                         // set once it is made
	services  [table.Segments]map[string]map[string]struct{} // callers by service
	dirty     map[int]struct{}                               // segments
	confirmed time.Time                                      // up to when the folder says that it is right
}

func newTables(a *Agent) *tables {
	return &tables{agent: a, wake: make(chan struct{}, 1), readers: map[int]*reader{own(): newReader()}}
}

func newReader() *reader { return &reader{dirty: make(map[int]struct{})} }

// read says that a program of user uid calls service as caller.
func (t *tables) read(uid int, caller, service string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, user := range []int{uid, own()} {
		if r := t.reader(user); r.add(caller, service) {
			r.dirty[table.SegmentOf(service)] = struct{}{}
			t.signal()
		}
	}
}

// reader returns that of a user, a new one if need be. Callers hold mu.
func (t *tables) reader(uid int) *reader {
	if t.readers[uid] == nil {
		t.readers[uid] = newReader()
	}
	return t.readers[uid]
}

// add notes that caller calls service, and reports whether that is new.
func (r *reader) add(caller, service string) bool {
	segment := table.SegmentOf(service)
	if _, ok := r.services[segment][service][caller]; ok {
		return false
	}
	if r.services[segment] == nil {
		r.services[segment] = make(map[string]map[string]struct{})
	}
	if r.services[segment][service] == nil {
		r.services[segment][service] = make(map[string]struct{}, 1)
	}
	r.services[segment][service][caller] = struct{}{}
	return true
}

// touch says that the state of service, or who may call it, changed.
func (t *tables) touch(service string) {
	segment := table.SegmentOf(service)
	t.mu.Lock()
	defer t.mu.Unlock()
	for uid, r := range t.readers {
		if uid == own() || r.services[segment][service] != nil {
			r.dirty[segment] = struct{}{}
			t.signal()
		}
	}
}

// touchAll says that something changed that all segments hold.
func (t *tables) touchAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.readers {
		for segment, services := range r.services {
			if len(services) > 0 {
				r.dirty[segment] = struct{}{}
				t.signal()
			}
		}
	}
}

func (t *tables) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// load takes what the folder holds for the present until upstream says otherwise, and puts the link to it where programs
// look.
func (t *tables) load() error {
	a := t.agent
	errs := []error{t.publish()}
	users, err := table.Users(a.config.Table)
	errs = append(errs, err)
	if slices.Contains(users, own()) {
		errs = append(errs, t.loadOwn())
	}
	for _, uid := range users {
		if uid == own() {
			continue
		}
		errs = append(errs, t.made(uid))
		errs = append(errs, table.Load(table.For(a.config.Table, uid), uid, func(entry table.Entry) {
			if a.link.Seed(entry.View) { // of a version that had no copy of its own
				errs = append(errs, a.hub.Publish(entry.View, nil))
				t.touch(entry.View.Service)
			}
			errs = append(errs, t.take(uid, entry))
		}))
	}
	return errors.Join(errs...)
}

// loadOwn has the shelf take what the folder of the agent's own user holds.
func (t *tables) loadOwn() error {
	a := t.agent
	if err := t.made(own()); err != nil {
		return err
	}
	var errs []error
	for segment := range table.Segments {
		entries, err := a.shelf.load(table.For(a.config.Table, own()), segment)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, entry := range entries {
			v := entry.View
			if epoch, revision, _ := a.shelf.At(v.Service); epoch == v.Epoch && revision == v.Revision {
				errs = append(errs, a.hub.Publish(v, nil))
			}
			errs = append(errs, t.take(own(), entry))
		}
	}
	return errors.Join(errs...)
}

// made makes the folder of a user, if need be.
func (t *tables) made(uid int) error {
	folder, err := table.Make(t.agent.config.Table, uid)
	if err == nil {
		t.mu.Lock()
		t.reader(uid).folder = folder
		t.mu.Unlock()
	}
	return err
}

// take takes what a table of user uid says beside the instances of a service.
func (t *tables) take(uid int, entry table.Entry) (err error) {
	a := t.agent
	settings := &l5pb.Settings{}
	if proto.Unmarshal(entry.Settings, settings) == nil && settings.GetService() != "" {
		a.link.SeedSettings(settings)
		err = a.hub.SetSettings(settings)
	}
	for _, caller := range entry.Callers {
		t.mu.Lock()
		t.reader(uid).add(caller, entry.View.Service)
		t.mu.Unlock()
		a.callers.decide(&l5pb.Verdict{Service: entry.View.Service, Caller: caller, Allowed: true})
		a.link.Subscribe(caller, entry.View.Service)
	}
	return err
}

// publish makes the folder, and the link to it if it is not beside the socket.
func (t *tables) publish() error {
	config := t.agent.config
	if err := os.MkdirAll(config.Table, 0o711); err != nil {
		return err
	}
	beside := config.Socket + ".table"
	if filepath.Clean(config.Table) == filepath.Clean(beside) {
		return nil
	}
	if target, err := os.Readlink(beside); err == nil && target == config.Table {
		return nil
	}
	if info, err := os.Lstat(beside); err == nil && info.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("%s is in the way of a link to %s; remove it", beside, config.Table)
	}
	os.Remove(beside)
	return os.Symlink(config.Table, beside)
}

// tableEvery is how often the table is written at most: instances that come and go all the time are not to wear the disk. Up to
// tableSpread is waited beyond that: all devices hear of a change in the same moment, and those that share a disk, or processors,
// are not to write in the same moment, too.
const (
	tableEvery  = 2 * time.Second
	tableSpread = tableEvery / 4
)

// run writes changes, and until when they were right, until ctx ends.
func (t *tables) run(ctx context.Context) error {
	pause, written := settle, time.Time{}
	ticker := time.NewTicker(confirmEvery)
	defer ticker.Stop()
	// What could not be written is tried again even if nothing changes any more: the disk may have room by then.
	last, wait := "", time.Duration(0)
	again := time.NewTimer(time.Hour)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			t.confirm()
			for _, service := range t.agent.shelf.takeLost() {
				t.agent.link.Lost(service)
			}
			continue
		case <-t.wake:
		case <-again.C:
		}
		timer := time.NewTimer(max(pause, tableEvery-t.agent.now().Sub(written)) + rand.N(tableSpread))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		begin := t.agent.now()
		err := t.write(begin)
		if err == nil {
			last, wait = "", 0
			again.Stop()
		} else {
			wait = min(max(2*wait, time.Second), longestRetry)
			again.Reset(wait)
			t.agent.metrics.tablesFailed.Inc()
			if err.Error() != last {
				last = err.Error()
				t.agent.config.Logger.Error("l5/agent: the route table is not written; trying again", "folder", t.agent.config.Table, "error", err)
			}
		}
		written = t.agent.now()
		pause = min(max(settle, 4*written.Sub(begin)), longestPause) // a fifth of the time is spent on the disk, while it keeps up
	}
}

// confirm notes when upstream was last heard: until then the table is right.
func (t *tables) confirm() {
	heard, _ := t.agent.link.Heard()
	if heard.IsZero() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.readers {
		if r.folder != "" && len(r.dirty) == 0 && heard.After(r.confirmed) && table.Confirm(r.folder, heard) == nil {
			r.confirmed = heard
		}
	}
}

// write writes the segments that changed.
func (t *tables) write(now time.Time) error {
	t.mu.Lock()
	users := slices.Sorted(maps.Keys(t.readers))
	t.mu.Unlock()
	var errs []error
	for _, uid := range users {
		if err := t.writeFor(uid, now); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *tables) writeFor(uid int, now time.Time) (err error) {
	t.mu.Lock()
	r := t.readers[uid]
	dirty := r.dirty
	r.dirty = make(map[int]struct{})
	folder := r.folder
	t.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			t.mu.Lock()
			maps.Copy(r.dirty, dirty)
			t.mu.Unlock()
		}
	}()
	if folder == "" {
		if err = t.made(uid); err != nil {
			return err
		}
		folder = table.For(t.agent.config.Table, uid)
	}
	place, err := proto.Marshal(t.agent.hub.Place())
	if err != nil {
		return err
	}
	files, held := make(map[int][]byte, len(dirty)), make(map[int][]view.View, len(dirty))
	for segment := range dirty {
		entries := t.entries(r, segment, uid == own())
		for _, e := range entries {
			held[segment] = append(held[segment], view.View{Service: e.View.Service, Epoch: e.View.Epoch, Revision: e.View.Revision})
		}
		if len(entries) == 0 {
			files[segment] = nil
		} else if files[segment], err = table.Encode(table.Head{Segment: segment, Written: now, Place: place}, entries); err != nil {
			return err
		}
	}
	if err := table.Write(folder, uid, files); err != nil {
		return err
	}
	t.agent.metrics.tablesWritten.Inc()
	if uid != own() {
		return nil
	}
	var errs []error
	for segment := range dirty {
		errs = append(errs, t.agent.shelf.written(folder, segment, held[segment]))
	}
	return errors.Join(errs...)
}

// entries returns what a reader may see of a segment; all is all that there is, whoever may call it.
func (t *tables) entries(r *reader, segment int, all bool) []table.Entry {
	var entries []table.Entry
	for _, state := range t.states(r, segment, all) {
		entry := table.Entry{View: state}
		if settings := t.agent.hub.SettingsOf(state.Service); settings != nil {
			entry.Settings, _ = proto.Marshal(settings) // it came in this form
		}
		t.mu.Lock()
		callers := slices.Sorted(maps.Keys(r.services[segment][state.Service]))
		t.mu.Unlock()
		for _, caller := range callers {
			if allowed, _, _ := t.agent.callers.Verdict(caller, state.Service); allowed {
				entry.Callers = append(entry.Callers, caller)
			}
		}
		if all || len(entry.Callers) > 0 {
			entries = append(entries, entry)
		}
	}
	return entries
}

// states returns the services of a segment that a reader reads, or all.
func (t *tables) states(r *reader, segment int, all bool) []view.View {
	if all {
		return t.agent.shelf.views(segment)
	}
	t.mu.Lock()
	services := slices.Collect(maps.Keys(r.services[segment]))
	t.mu.Unlock()
	var out []view.View
	for _, service := range services {
		if state, ok := t.agent.shelf.View(service); ok {
			out = append(out, state)
		}
	}
	return out
}

// forget drops a service that nobody calls any more.
func (t *tables) forget(service string) {
	segment := table.SegmentOf(service)
	t.mu.Lock()
	defer t.mu.Unlock()
	for uid, r := range t.readers {
		if uid == own() || r.services[segment][service] != nil {
			delete(r.services[segment], service)
			r.dirty[segment] = struct{}{}
			t.signal()
		}
	}
}
