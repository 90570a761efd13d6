package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Planned is what a tool answers in plan mode.
type Planned struct {
	Touches []Touch `json:"touches"`
	Output  any     `json:"output,omitempty"` // that it would return; absent: it cannot tell
	Text    string  `json:"text,omitempty"`
}

// Touch is one thing that a call would change.
type Touch struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Change string `json:"change,omitempty"`
}

func (p *Planned) touch(kind, name, change string, args ...any) {
	p.Touches = append(p.Touches, Touch{kind, name, fmt.Sprintf(change, args...)})
}

// planners are the plan modes, by tool. They look at the device, take no lock, and keep no journal.
var planners = map[string]func(context.Context, Env, []byte) (any, error){
	"package.install": planner(planInstall),
	"file.sync":       planner(planSync),
	"config.push":     planner(planPush),
	"script.run":      planner(planScript),
	"l5.caller.join":  planner(planCaller),
	"package.start":   planner(planStart),
	"process.scan": planner(func(context.Context, *call, ProcessScanIn) (Planned, error) {
		return Planned{Text: "looks at the processes and ports that there are then"}, nil
	}),
	"package.stop":    planner(planStop),
	"package.remove":  planner(planRemove),
	"config.restore":  planner(planConfigRestore),
	"file.restore":    planner(planFileRestore),
	"l5.caller.leave": planner(planCallerLeave),
}

func planner[In any](plan func(context.Context, *call, In) (Planned, error)) func(context.Context, Env, []byte) (any, error) {
	return func(ctx context.Context, env Env, input []byte) (_ any, err error) {
		var in In
		decoder := json.NewDecoder(bytes.NewReader(input))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&in); err != nil {
			return nil, fail("input.invalid", "%v", err)
		}
		if env, err = env.check(false); err != nil {
			return nil, err
		}
		root, err := os.OpenRoot(env.Root)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, root.Close()) }()
		out, err := plan(ctx, &call{Env: env, root: root}, in)
		if out.Touches == nil {
			out.Touches = []Touch{}
		}
		return out, err
	}
}

func planInstall(_ context.Context, c *call, in PackageInstallIn) (p Planned, err error) {
	digits, err := hexDigest(in.Digest)
	if err := errors.Join(err, name("package", in.Name), name("version", in.Version)); err != nil {
		return p, err
	}
	version := in.Version + "-" + digits[:8]
	out := PackageInstallOut{Name: in.Name, Version: in.Version, Digest: "sha256:" + digits, Path: path.Join("pkg", in.Name, version)}
	if out.Previous, err = c.root.Readlink(path.Join("pkg", in.Name, "current")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, fail("package.damaged", "pkg/%s/current is not a link: %v", in.Name, err)
	}
	absent, err := c.absent(out.Path)
	if err != nil {
		return p, err
	}
	out.Fetched = absent
	if out.Previous != version {
		p.touch("package", in.Name, "%s -> %s (sha256:%s)", orNone(out.Previous), version, digits)
	}
	p.Output = out
	return p, nil
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func planRemove(_ context.Context, c *call, in PackageRemoveIn) (p Planned, err error) {
	if err := name("package", in.Name); err != nil {
		return p, err
	}
	if absent, err := c.absent(path.Join("pkg", in.Name)); err != nil || absent {
		return p, err
	}
	p.touch("package", in.Name, "is removed")
	return p, nil
}

func planSync(_ context.Context, c *call, in FileSyncIn) (p Planned, err error) {
	out := FileSyncOut{Written: []string{}, Removed: []string{}}
	if _, err := c.compareFiles(in, &out); err != nil {
		return p, err
	}
	for _, file := range out.Written {
		p.touch("file", file, "is written")
	}
	for _, file := range out.Removed {
		p.touch("file", file, "is removed")
	}
	p.Output = out
	return p, nil
}

// planPush tells how each file would differ. Of the file as it is only the count of lines is told: it may hold what is no longer
// meant for anybody's eyes.
func planPush(ctx context.Context, c *call, in ConfigPushIn) (p Planned, err error) {
	out := ConfigPushOut{Configs: []WrittenConfig{}}
	for _, f := range in.Configs {
		file, err := local(f.Path)
		if err != nil {
			return p, err
		}
		content, digits, err := c.rendered(ctx, f)
		if err != nil {
			return p, err
		}
		mode, err := parseMode(f.Mode)
		if err != nil {
			return p, err
		}
		have, haveMode, err := digestOf(c.root, file)
		if err != nil {
			return p, err
		}
		out.Configs = append(out.Configs, WrittenConfig{file, "sha256:" + digits, have != digits || haveMode != mode})
		switch {
		case have == "":
			p.touch("file", file, "is new, %d lines", strings.Count(content, "\n"))
		case have != digits:
			old, err := c.root.ReadFile(file)
			if err != nil {
				return p, err
			}
			added, removed := lineChanges(string(old), content)
			p.touch("file", file, "%d lines added, %d removed", len(added), removed)
			if f.Content != "" { // else it may hold secrets
				p.Text += clip(file + ":\n+ " + strings.Join(added, "\n+ ") + "\n")
			}
		case haveMode != mode:
			p.touch("file", file, "mode %o -> %o", haveMode, mode)
		}
	}
	p.Output = out
	return p, nil
}

// clip bounds what is shown of one file.
func clip(text string) string {
	const most = 2 << 10
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "...\n"
}

// lineChanges compares two texts as bags of lines: which are new, and how many are gone.
func lineChanges(old, now string) (added []string, removed int) {
	left := map[string]int{}
	for line := range strings.Lines(old) {
		left[strings.TrimSuffix(line, "\n")]++
		removed++
	}
	for line := range strings.Lines(now) {
		line = strings.TrimSuffix(line, "\n")
		if left[line] > 0 {
			left[line]--
			removed--
			continue
		}
		added = append(added, line)
	}
	return added, removed
}

func planConfigRestore(_ context.Context, c *call, in ConfigRestoreIn) (p Planned, err error) {
	var paths []string
	for _, f := range in.Configs {
		paths = append(paths, f.Path)
	}
	return c.planPurge(paths)
}

func planFileRestore(_ context.Context, c *call, in FileRestoreIn) (p Planned, err error) {
	paths := append([]string{}, in.Mirror...)
	for _, f := range in.Files {
		paths = append(paths, f.Path)
	}
	return c.planPurge(paths)
}

// planPurge tells which of the paths are there, to be removed.
func (c *call) planPurge(paths []string) (p Planned, err error) {
	for _, one := range paths {
		file, err := local(one)
		if err != nil {
			return p, err
		}
		absent, err := c.absent(file)
		if err != nil {
			return p, err
		}
		if !absent {
			p.touch("file", file, "is removed")
		}
	}
	return p, nil
}

func planScript(_ context.Context, _ *call, in ScriptRunIn) (p Planned, err error) {
	p.touch("script", in.Package+"/"+in.Path, "%s", strings.TrimSpace("runs "+strings.Join(in.Args, " ")))
	p.Text = "what the script does is known to the script alone"
	return p, nil
}

func planCaller(_ context.Context, _ *call, in CallerJoinIn) (p Planned, err error) {
	for _, callee := range in.Callees {
		p.touch("caller", in.Caller, "calls %s from this device", callee)
	}
	return p, nil
}

func planCallerLeave(_ context.Context, _ *call, in CallerLeaveIn) (p Planned, err error) {
	p.touch("caller", in.Caller, "calls nothing from this device any more")
	return p, nil
}

func planStart(ctx context.Context, c *call, in PackageStartIn) (p Planned, err error) {
	running, err := c.kept(ctx)
	if err != nil {
		return p, err
	}
	for _, process := range in.Processes {
		change := "is started"
		if running[process.Name] {
			change = "is started anew"
		}
		p.touch("process", process.Name, "%s, %d of it", change, max(process.Count, 1))
	}
	return p, nil
}

func planStop(ctx context.Context, c *call, in PackageStopIn) (p Planned, err error) {
	running, err := c.kept(ctx)
	if err != nil {
		return p, err
	}
	for _, process := range in.Processes {
		if running[process.Name] {
			p.touch("process", process.Name, "is stopped")
		}
	}
	return p, nil
}

// kept are the names of the processes that the agent keeps.
func (c *call) kept(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	if c.Processes == nil {
		return out, nil
	}
	all, err := c.Processes.Specs(ctx)
	for _, spec := range all {
		out[spec.Name] = true
	}
	return out, err
}
