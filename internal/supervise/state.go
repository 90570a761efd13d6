package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zhiyun-ops/zhiyun/internal/lockfile"
)

// kept is the file of one unit: DIR/NAME.json.
type kept struct {
	Spec      Spec           `json:"spec"`
	Stopping  bool           `json:"stopping,omitempty"`
	Grace     time.Duration  `json:"grace_ns,omitempty"`
	Boot      string         `json:"boot,omitempty"`
	Instances []keptInstance `json:"instances"`
}

type keptInstance struct {
	ID       string    `json:"id"`
	PID      int       `json:"pid"`
	Start    uint64    `json:"start"`
	Started  time.Time `json:"started_at,omitzero"`
	Restarts int       `json:"restarts"`
	Exit     string    `json:"exit,omitempty"`
}

func (s *Supervisor) path(name string) string { return filepath.Join(s.config.Dir, name+".json") }

// save keeps u durably. The caller holds mu.
func (s *Supervisor) save(u *unit) error {
	k := kept{Spec: u.spec, Stopping: u.stopping, Grace: u.grace, Boot: s.boot}
	for _, i := range u.instances {
		k.Instances = append(k.Instances, keptInstance{ID: i.id, PID: i.pid, Start: i.start, Started: i.started,
			Restarts: i.machine.restarts, Exit: i.exit})
	}
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("supervise: keep %s: %w", u.spec.Name, err)
	}
	if err := writeFile(s.path(u.spec.Name), data); err != nil {
		return fmt.Errorf("supervise: keep %s: %w", u.spec.Name, err)
	}
	return nil
}

func writeFile(path string, data []byte) error {
	temp, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (s *Supervisor) forget(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(s.config.Dir)
}

// load reads the folder and adopts what lives.
func (s *Supervisor) load() error {
	paths, err := filepath.Glob(filepath.Join(s.config.Dir, "*.json"))
	if err != nil {
		return fmt.Errorf("supervise: read folder: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("supervise: read state: %w", err)
		}
		var k kept
		if err := json.Unmarshal(data, &k); err != nil {
			return fmt.Errorf("supervise: state %s is damaged: %w; move it away and start the process again", path, err)
		}
		if err := k.Spec.Validate(); err != nil || k.Spec.Name != strings.TrimSuffix(filepath.Base(path), ".json") {
			return fmt.Errorf("supervise: state %s does not fit its name or is damaged: %w; move it away", path, errors.Join(ErrInvalid, err))
		}
		u := &unit{spec: k.Spec.normal(), stopping: k.Stopping, grace: k.Grace}
		s.units[u.spec.Name] = u
		for n := range u.spec.Count {
			i := s.newInstance(u.spec, n)
			u.instances = append(u.instances, i)
			if n < len(k.Instances) {
				s.adopt(i, k.Instances[n], k.Boot == s.boot)
			}
			if u.stopping {
				s.apply(i, time.Now(), evStop, u.grace)
			}
		}
		if err := s.save(u); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes over the process that the record speaks of, if it lives.
func (s *Supervisor) adopt(i *instance, k keptInstance, sameBoot bool) {
	i.id, i.started, i.exit, i.machine.restarts = k.ID, k.Started, k.Exit, k.Restarts
	if !sameBoot || k.ID == "" {
		return
	}
	if k.PID == 0 { // written before the fork: it may have happened
		pid, ok := findMarked(markerName + "=" + k.ID)
		if !ok {
			return
		}
		start, err := StartTime(pid)
		if err != nil {
			return
		}
		k.PID, k.Start, i.started = pid, start, time.Now()
	}
	i.pid, i.start = k.PID, k.Start
	if start, err := StartTime(k.PID); err != nil || start != k.Start {
		i.signal(unix.SIGKILL) // what its group left behind
		i.pid, i.exit = 0, "ended while the supervisor was away"
		i.machine.restarts++
		return
	}
	s.apply(i, time.Now(), evSpawned, 0)
}

// lockDir keeps a second supervisor away. The lock ends with this process.
func lockDir(dir string) (unlock func(), err error) {
	file, err := lockfile.Take(filepath.Join(dir, "lock"))
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("supervise: lock: %w", err)
	}
	return func() { file.Close() }, nil
}
