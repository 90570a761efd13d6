package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// outputLimit is how much of a script's output is kept: its end.
const outputLimit = 64 << 10

// ScriptRunIn is what script.run takes.
type ScriptRunIn struct {
	Package string            `json:"package" doc:"the package that the script is in; its current version counts"`
	Path    string            `json:"path" doc:"of the script, in the package; an executable file"`
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Timeout string            `json:"timeout,omitempty" doc:"how long it may run, as in 30s; default 1m"`
	Writes  []string          `json:"writes,omitempty" doc:"files and folders below the root that the script changes: kept before, put back by the undo"`
	Undo    string            `json:"undo,omitempty" doc:"script in the package that undoes this one"`
}

// ScriptRunOut is what script.run tells.
type ScriptRunOut struct {
	Stdout string `json:"stdout" doc:"the end of its output, at most 64 KiB"`
	Stderr string `json:"stderr" doc:"the end of its error output, at most 64 KiB"`
	Millis int64  `json:"ms"`
}

// ScriptRun runs a script of an installed package, as an argument vector, in its own process group, with the
// root as working directory. It runs once per key; when the device was lost while it ran it is run again
// under the same ZHIYUN_KEY. Codes: package.not_installed, script.not_found, script.failed, script.timeout.
func ScriptRun(ctx context.Context, env Env, in ScriptRunIn) (ScriptRunOut, error) {
	return perform(ctx, env, "script.run", in, func(ctx context.Context, c *call) (out ScriptRunOut, err error) {
		exe, err := c.executable(in.Package, in.Path)
		if err != nil {
			return out, err
		}
		limit, err := duration("timeout", in.Timeout, time.Minute)
		if err != nil {
			return out, err
		}
		note := scriptNote{In: in}
		if in.Undo != "" {
			if note.Undo, err = c.executable(in.Package, in.Undo); err != nil {
				return out, err
			}
		}
		for _, w := range in.Writes {
			p, err := local(w)
			if err != nil {
				return out, err
			}
			if err := c.journal.saveTree(p); err != nil {
				return out, err
			}
		}
		if err := c.journal.note(note); err != nil {
			return out, err
		}
		return c.script(ctx, exe, in, limit, "run")
	})
}

type scriptNote struct {
	In   ScriptRunIn `json:"in"`
	Undo string      `json:"undo,omitempty"` // absolute, of the version that ran
}

// executable finds a file of the package's current version.
func (c *call) executable(pkg, p string) (string, error) {
	if err := name("package", pkg); err != nil {
		return "", err
	}
	version, err := c.current(pkg)
	if err != nil {
		return "", err
	}
	if !filepath.IsLocal(filepath.FromSlash(p)) {
		return "", fail("path.outside", "path %q leaves the package %s", p, pkg)
	}
	info, err := c.root.Stat(path.Join(version, p))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fail("script.not_found", "package %s has no %s (in %s)", pkg, p, version)
	}
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fail("script.not_found", "%s of package %s is not an executable file (%v)", p, pkg, info.Mode())
	}
	return filepath.Join(c.Root, filepath.FromSlash(path.Join(version, p))), nil
}

// current is the folder of the version in use.
func (c *call) current(pkg string) (string, error) {
	version, err := c.root.Readlink(path.Join("pkg", pkg, "current"))
	if err != nil {
		return "", fail("package.not_installed", "package %s is not installed: %v; run package.install first", pkg, err)
	}
	if version != path.Base(version) || version == ".." {
		return "", fail("package.damaged", "pkg/%s/current points to %q", pkg, version)
	}
	return path.Join("pkg", pkg, version), nil
}

// script runs exe and waits for it.
func (c *call) script(ctx context.Context, exe string, in ScriptRunIn, limit time.Duration, phase string) (ScriptRunOut, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var stdout, stderr tail
	cmd := exec.CommandContext(ctx, exe, in.Args...)
	cmd.Dir = c.Root
	cmd.Env = append(c.environment(in.Env), "PATH="+defaultPath, "ZHIYUN_KEY="+c.Key, "ZHIYUN_PHASE="+phase)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.ExtraFiles = []*os.File{c.lock} // while it lives, nobody else works under the key
	cmd.SysProcAttr = scriptAttr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	begun := time.Now()
	runtime.LockOSThread() // the script dies with the thread that started it, where the system can do that
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	out := ScriptRunOut{Stdout: stdout.String(), Stderr: stderr.String(), Millis: time.Since(begun).Milliseconds()}
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return out, nil
	case ctx.Err() != nil:
		return out, fail("script.timeout", "%s did not end within %v; last words: %s", path.Base(exe), limit, last(out))
	case errors.As(err, &exit):
		return out, fail("script.failed", "%s: %v; last words: %s", path.Base(exe), exit, last(out))
	}
	return out, fail("script.failed", "%s: %v", path.Base(exe), err)
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func last(out ScriptRunOut) string {
	text := strings.TrimSpace(out.Stderr)
	if text == "" {
		text = strings.TrimSpace(out.Stdout)
	}
	if text == "" {
		return "none"
	}
	return text[max(0, len(text)-400):]
}

// tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > outputLimit {
		p = p[n-outputLimit:]
	}
	if over := t.Len() + len(p) - outputLimit; over > 0 {
		t.Next(over)
	}
	t.Buffer.Write(p)
	return n, nil
}

func duration(what, s string, instead time.Duration) (time.Duration, error) {
	if s == "" {
		return instead, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fail("input.invalid", "%s %q: give a duration such as 30s", what, s)
	}
	return d, nil
}

// ScriptUndoIn is what script.undo takes.
type ScriptUndoIn struct {
	ScriptRunIn
	Done *ScriptRunOut `json:"done,omitempty" doc:"the output of script.run"`
}

// ScriptUndo undoes the script.run of the same key: it runs the undo script, if one was declared, and puts
// back what the script was declared to write.
func ScriptUndo(ctx context.Context, env Env, _ ScriptUndoIn) (Undone, error) {
	return undo(ctx, env, "script.run")
}

// restoreScript runs the undo script.
func restoreScript(ctx context.Context, c *call) error {
	var note scriptNote
	if c.journal.rec.Note == nil {
		return nil // it was not begun
	}
	if err := json.Unmarshal(c.journal.rec.Note, &note); err != nil {
		return fail("journal.damaged", "%s: %v", c.journal.dir, err)
	}
	if note.Undo == "" {
		return nil
	}
	limit, err := duration("timeout", note.In.Timeout, time.Minute)
	if err != nil {
		return err
	}
	if _, err := c.script(ctx, note.Undo, note.In, limit, "undo"); err != nil {
		return fmt.Errorf("undo of %s: %w", note.In.Path, err)
	}
	return nil
}
