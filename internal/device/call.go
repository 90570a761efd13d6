package device

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"
)

// call is one run of a tool that changes something: its world, its journal, its lock.
type call struct {
	Env
	root    *os.Root
	journal *journal
	lock    *os.File
}

// Undone is the output of every tool that puts back what another did: the same however often it is run, and
// whether there was anything to put back or not.
type Undone struct {
	State string `json:"state" doc:"as_before"`
}

// perform runs a tool once per key. What a key has done is not done again: its output is told again. What a
// killed call has left half done is put back before it is begun anew. A failure leaves nothing behind.
func perform[In, Out any](ctx context.Context, env Env, tool string, in In, work func(context.Context, *call) (Out, error)) (out Out, err error) {
	defer func() {
		if err != nil {
			err = named(err)
		}
	}()
	input, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	c, closeCall, err := enter(ctx, env, tool)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, closeCall()) }()

	sum := sha256.Sum256(input)
	switch {
	case !c.journal.exists():
		if err := expire(c.root, time.Now()); err != nil {
			return out, err
		}
	case c.journal.rec.Input != hex.EncodeToString(sum[:]):
		return out, fail("key.reused", "key %s was used for %s with another input; a key names one call", env.Key, tool)
	case c.journal.rec.Done:
		c.Logger.Info("done before", "tool", tool, "key", env.Key)
		return out, json.Unmarshal(c.journal.rec.Output, &out)
	default:
		c.Logger.Info("a call was cut off; putting back what it left", "tool", tool, "key", env.Key)
		if err := c.putBack(ctx, tool); err != nil {
			return out, err
		}
	}
	if err := c.journal.begin(input); err != nil {
		return out, err
	}
	out, err = work(ctx, c)
	if err == nil {
		var output []byte
		if output, err = json.Marshal(out); err == nil {
			err = c.journal.finish(output)
		}
	}
	if err != nil {
		// Even a call that ran out of time cleans up after itself.
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if undo := c.putBack(back, tool); undo != nil {
			err = fmt.Errorf("%w (and it could not be put back: %w)", err, undo)
		}
	}
	return out, err
}

// undo puts back what the key's call of tool did. Nothing done is no error.
func undo(ctx context.Context, env Env, tools ...string) (out Undone, err error) {
	for _, tool := range tools {
		if err := undoOne(ctx, env, tool); err != nil {
			return Undone{}, named(err)
		}
	}
	return Undone{State: "as_before"}, nil
}

func undoOne(ctx context.Context, env Env, tool string) (err error) {
	c, closeCall, err := enter(ctx, env, tool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeCall()) }()
	if !c.journal.exists() {
		c.Logger.Info("nothing to undo", "tool", tool, "key", env.Key)
		return c.journal.remove() // it may have been killed before the first record
	}
	return c.putBack(ctx, tool)
}

// putBack undoes what the journal tells and forgets it. Each step may be repeated.
func (c *call) putBack(ctx context.Context, tool string) error {
	if restore := restorers()[tool]; restore != nil {
		if err := restore(ctx, c); err != nil {
			return err
		}
	}
	if err := c.journal.restore(); err != nil {
		return err
	}
	return c.journal.remove()
}

// restorers put back what is not a file, before the files are.
func restorers() map[string]func(context.Context, *call) error {
	return map[string]func(context.Context, *call) error{
		"script.run":    restoreScript,
		"package.start": restoreProcesses,
		"package.stop":  restoreProcesses,
	}
}

// enter opens the root and takes the key's lock.
func enter(ctx context.Context, env Env, tool string) (*call, func() error, error) {
	env, err := env.check(true)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(env.Root)
	if err != nil {
		return nil, nil, err
	}
	file, err := lock(ctx, root, env.Key)
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	j, err := openJournal(root, tool, env.Key)
	if err != nil {
		return nil, nil, errors.Join(err, unlock(file), root.Close())
	}
	return &call{Env: env, root: root, journal: j, lock: file}, func() error { return errors.Join(unlock(file), root.Close()) }, nil
}

// parents makes the folders above p, for all to read.
func (c *call) parents(p string) error {
	if dir := path.Dir(p); dir != "." {
		return c.root.MkdirAll(dir, 0o755)
	}
	return nil
}

// absent tells that nothing stands at p.
func (c *call) absent(p string) (bool, error) {
	_, err := c.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}
