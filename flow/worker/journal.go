package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// entry is what the journal knows of an attempt. It is written before the attempt runs, again with its result, and removed once the
// result is acknowledged.
type entry struct {
	Call   flow.Call    `json:"call"`
	At     time.Time    `json:"at"`
	Result *flow.Result `json:"result,omitempty"`
}

// journal is a folder with a file per attempt.
type journal struct {
	dir   string
	fault func() error // of tests: what writing fails with; may be nil
}

func (j journal) path(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(j.dir, hex.EncodeToString(sum[:16])+".json")
}

// load reads all entries. A file that was cut off while it was written is not an entry: its attempt was not begun.
func (j journal) load() ([]entry, error) {
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, file := range files {
		path := filepath.Join(j.dir, file.Name())
		if strings.HasSuffix(path, ".tmp") {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var one entry
		if err := json.Unmarshal(data, &one); err != nil {
			return nil, fmt.Errorf("%s is not an attempt's record; remove it: %w", path, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// put writes an entry so that it survives a power cut.
func (j journal) put(one entry) error {
	data, err := json.Marshal(one)
	if err != nil {
		return err
	}
	if j.fault != nil {
		if err := j.fault(); err != nil {
			return err
		}
	}
	path := j.path(one.Call.ID)
	file, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp")) // a full disk has no room for half a file
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return j.sync()
}

func (j journal) remove(id string) error {
	err := os.Remove(j.path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (j journal) sync() error {
	dir, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
