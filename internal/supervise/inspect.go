package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Inspect lists the processes that live under a supervisor's folder, without being that supervisor: it reads the
// state files and looks whether each process is still the same. It serves diagnosis, while the supervisor runs
// or not; what it tells is a moment old. A folder that does not exist has none.
func Inspect(dir string) ([]Process, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("supervise: inspect: %w", err)
	}
	boot := bootID()
	var list []Process
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".json") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // stopped meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("supervise: inspect: %w", err)
		}
		var k kept
		if err := json.Unmarshal(text, &k); err != nil || len(k.Spec.Command) == 0 {
			return nil, fmt.Errorf("supervise: inspect %s: %w; the file is damaged", entry.Name(), errors.Join(ErrInvalid, err))
		}
		for n, i := range k.Instances {
			if k.Boot != boot || i.PID == 0 {
				continue
			}
			if start, err := StartTime(i.PID); err != nil || start != i.Start {
				continue
			}
			state := Running
			if k.Stopping {
				state = Stopping
			}
			list = append(list, Process{Name: k.Spec.Name, Instance: n, PID: i.PID, State: state, StartedAt: i.Started,
				Restarts: i.Restarts, Exit: i.Exit, Exe: k.Spec.Command[0], Command: slices.Clone(k.Spec.Command)})
		}
	}
	return list, nil
}
