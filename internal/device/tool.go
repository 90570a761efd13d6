package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"time"
)

// Effect classes of a tool.
const (
	Pure  = "pure"  // it changes nothing
	Keyed = "keyed" // the same key again changes nothing
)

// Tool describes one tool of the device.
type Tool struct {
	Name    string          `json:"name"`
	Title   string          `json:"title"`
	Stage   string          `json:"stage"`
	Command []string        `json:"command"` // how the agent runs it: "zhiyun" stands for the running binary
	Input   json.RawMessage `json:"input"`   // JSON Schema
	Output  json.RawMessage `json:"output"`  // JSON Schema
	Timeout time.Duration   `json:"timeout"`
	Effect  string          `json:"effect"`
	Undo    string          `json:"undo,omitempty"` // the tool that undoes it

	// OnDevice is true: a device tool runs on the device and only there.
	OnDevice bool `json:"on_device"`

	// Plan says that the tool can tell what a call would touch: with ZHIYUN_PLAN=1 it answers a Planned, and changes nothing.
	Plan bool `json:"plan,omitempty"`

	run  func(ctx context.Context, env Env, input []byte) (any, error)
	plan func(ctx context.Context, env Env, input []byte) (any, error)
}

// Tools lists the device tools. The slice and its schemas are the caller's own.
func Tools() []Tool {
	all := listed()
	for i := range all {
		all[i].plan = planners[all[i].Name]
		all[i].Plan = all[i].plan != nil
	}
	return all
}

func listed() []Tool {
	return []Tool{
		tool("package.install", "安装程序包 install a package", "deploy", 5*time.Minute, Keyed, "package.remove", PackageInstall),
		twin("package.remove", "undo of package.install, or take a package away", time.Minute, PackageRemove),
		tool("file.sync", "同步文件 mirror files of the file source", "deploy", 5*time.Minute, Keyed, "file.restore", FileSync),
		twin("file.restore", "undo of file.sync, or take files away", time.Minute, FileRestore),
		tool("config.push", "发配置 write configuration", "deploy", time.Minute, Keyed, "config.restore", ConfigPush),
		twin("config.restore", "undo of config.push, or take configuration away", time.Minute, ConfigRestore),
		tool("script.run", "执行脚本 run the module's script", "deploy", 10*time.Minute, Keyed, "script.undo", ScriptRun),
		twin("script.undo", "undo of script.run", 10*time.Minute, ScriptUndo),
		tool("l5.caller.join", "主调扩容 let the device call what the module calls", "deploy", time.Minute, Keyed, "l5.caller.leave", CallerJoin),
		twin("l5.caller.leave", "undo of l5.caller.join, or forget a caller", time.Minute, CallerLeave),
		tool("package.start", "启动软件包 start the processes", "deploy", 2*time.Minute, Keyed, "package.stop", PackageStart),
		twin("package.stop", "undo of package.start, or stop processes", 2*time.Minute, PackageStop),
		tool("process.scan", "进程端口扫描 compare processes and ports", "self-check", time.Minute, Pure, "", ProcessScan),
		restoreTool(),
	}
}

func tool[In, Out any](name, title, stage string, timeout time.Duration, effect, undo string, run func(context.Context, Env, In) (Out, error)) Tool {
	return Tool{
		Name: name, Title: title, Stage: stage, Command: []string{"zhiyun", "tool", name}, Timeout: timeout, Effect: effect, Undo: undo, OnDevice: true,
		Input: schema(reflect.TypeFor[In](), false), Output: schema(reflect.TypeFor[Out](), false),
		run: func(ctx context.Context, env Env, input []byte) (any, error) {
			var in In
			decoder := json.NewDecoder(bytes.NewReader(input))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&in); err != nil {
				return nil, fail("input.invalid", "%v; see `zhiyun tool describe %s`", err, name)
			}
			return run(ctx, env, in)
		},
	}
}

// twin is a tool that undoes another. Run with purge it has an effect of its own, which device.restore undoes.
func twin[In any](name, title string, timeout time.Duration, run func(context.Context, Env, In) (Undone, error)) Tool {
	t := tool(name, title, "undo", timeout, Keyed, "device.restore", run)
	t.Input = schema(reflect.TypeFor[In](), true)
	return t
}

// restoreTool takes any input, since it only looks at the key.
func restoreTool() Tool {
	return Tool{
		Name: "device.restore", Title: "undo of what the key did with purge", Stage: "undo", Command: []string{"zhiyun", "tool", "device.restore"},
		Timeout: 5 * time.Minute, Effect: Keyed, OnDevice: true,
		Input: json.RawMessage(`{"type":"object","additionalProperties":true}`), Output: schema(reflect.TypeFor[Undone](), false),
		run: func(ctx context.Context, env Env, _ []byte) (any, error) { return Restore(ctx, env) },
	}
}

// Restore undoes what the key's calls of package.stop, l5.caller.leave, config.restore, file.restore and
// package.remove did with Purge.
func Restore(ctx context.Context, env Env) (Undone, error) {
	return undo(ctx, env, "package.remove", "file.restore", "config.restore", "l5.caller.leave", "package.stop")
}

// inputLimit bounds what a tool reads from its standard input.
const inputLimit = 64 << 20

// Run is a device tool as a process: a JSON object on stdin, a JSON object on stdout, logs on stderr, exit
// code 0, or 1 with {"error":{"code","message","retry"}} on stdout. getenv is os.Getenv, or what stands for it.
func Run(ctx context.Context, name string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) (exit int) {
	output, err := run(ctx, name, stdin, stderr, getenv)
	if err == nil {
		var text []byte
		if text, err = json.Marshal(output); err == nil {
			if _, err := stdout.Write(append(text, '\n')); err != nil {
				fmt.Fprintln(stderr, "write the result:", err)
				return 1
			}
			return 0
		}
	}
	failure := named(err)
	text, err := json.Marshal(map[string]*Error{"error": failure})
	if err == nil {
		_, err = stdout.Write(append(text, '\n'))
	}
	if err != nil {
		fmt.Fprintln(stderr, "write the failure:", err)
	}
	fmt.Fprintln(stderr, failure.Error())
	return 1
}

func run(ctx context.Context, name string, stdin io.Reader, stderr io.Writer, getenv func(string) string) (any, error) {
	for _, t := range Tools() {
		if t.Name != name {
			continue
		}
		input, err := io.ReadAll(io.LimitReader(stdin, inputLimit+1))
		if err != nil {
			return nil, fail("input.invalid", "read the input: %v", err)
		}
		if len(input) > inputLimit {
			return nil, fail("input.invalid", "the input is larger than %d bytes", inputLimit)
		}
		if err := t.complete(input); err != nil {
			return nil, err
		}
		env, closeEnv, err := EnvFrom(getenv)
		if err != nil {
			return nil, errors.Join(err)
		}
		defer closeEnv()
		env.Logger = slog.New(slog.NewTextHandler(stderr, nil))
		switch {
		case getenv("ZHIYUN_PLAN") == "":
			return t.run(ctx, env, input)
		case t.plan == nil:
			return nil, fail("plan.none", "%s cannot tell what it would do", name)
		}
		return t.plan(ctx, env, input)
	}
	return nil, fail("tool.unknown", "no device tool %q; see `zhiyun tool list`", name)
}

// complete refuses an input without a field that the tool requires. Engines look before they call, but what a missing list would mean,
// as of the files that stay in a mirrored folder, is too much to take a caller's word for.
func (t Tool) complete(input []byte) error {
	var form struct {
		Required []string `json:"required"`
	}
	var given map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(t.Input, &form), json.Unmarshal(input, &given)); err != nil {
		return fail("input.invalid", "%v; see `zhiyun tool describe %s`", err, t.Name)
	}
	for _, name := range form.Required {
		if _, there := given[name]; !there {
			return fail("input.invalid", "%s is missing; see `zhiyun tool describe %s`", name, t.Name)
		}
	}
	return nil
}
