package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// tool is a manifest with the function behind it.
type tool struct {
	flow.Manifest
	run  func(ctx context.Context, env Env, input []byte) (any, error)
	plan func(ctx context.Context, env Env, input []byte) (any, error) // nil: it cannot tell
}

// table is every tool that this package has, in the order of the expansion.
func table() []tool {
	all := listed()
	for i := range all {
		if all[i].plan = planners[all[i].Name]; all[i].plan != nil {
			all[i].Plan = true
		}
	}
	return all
}

func listed() []tool {
	return []tool{
		define("flow.params", "查询参数列表 read the module's parameters", "apply", pure, "", 10*time.Second, FlowParams),
		define("notify.mute", "屏蔽负载事件通知 mute load events", "apply", keyed, "notify.unmute", 10*time.Second, NotifyMute),
		define("device.query", "查询IDC可用设备 find idle devices", "apply", pure, "", 10*time.Second, DeviceQuery),
		define("name.lookup", "根据模块ID查域名 find the module's names", "apply", pure, "", 10*time.Second, NameLookup),
		define("resource.manifest", "获取资源配置 read what the module is made of", "obtain", pure, "", 30*time.Second, ResourceManifest),
		define("permission.request", "申请权限 ask for the grants of the module", "obtain", keyed, "permission.revoke", 10*time.Second, PermissionRequest),
		define("device.acquire", "获取设备 reserve devices", "obtain", keyed, "device.release", 30*time.Second, DeviceAcquire),
		define("alert.silence", "屏蔽告警 silence the devices' alerts", "obtain", keyed, "alert.unsilence", 30*time.Second, AlertSilence),
		define("config.params", "获取CC参数 read the device's configuration", "deploy", pure, "", 30*time.Second, ConfigParams),
		define("change.report", "上报变更日志 write the change record", "self-check", keyed, "change.withdraw", 10*time.Second, ChangeReport),
		define("permission.check", "查询授权结果 see that the grants are in force", "self-check", pure, "", 10*time.Second, PermissionCheck),
		define("test.run", "自动化测试 test the new device", "test", pure, "", 2*time.Minute, TestRun),
		define("vip.add", "VIP添加RS put the device behind the virtual address", "gray", keyed, "vip.remove", 30*time.Second, VIPAdd),
		define("l5.callee.join", "L5被调扩容 register at weight 0 and follow the rollout", "gray", keyed, "l5.callee.leave", 24*time.Hour, CalleeJoin),
		define("alert.unsilence", "告警屏蔽解除 lift the silence", "gray", keyed, "", 30*time.Second, AlertUnsilence),
		define("notify.unmute", "开启负载事件通知 lift the mute", "gray", keyed, "", 10*time.Second, NotifyUnmute),

		define("device.pick", "choose devices that leave", "apply", pure, "", 10*time.Second, DevicePick),
		define("device.hold", "take devices out of service", "obtain", keyed, "device.serve", 30*time.Second, DeviceHold),
		define("device.serve", "put held devices into service", "gray", keyed, "", 30*time.Second, DeviceServe),
		define("l5.drain", "take the weight away and wait for calls in flight", "gray", keyed, "l5.undrain", 5*time.Minute, Drain),
		define("l5.undrain", "give the weight back", "gray", keyed, "", 30*time.Second, Undrain),
		define("l5.callee.leave", "take the devices out of the name service", "gray", keyed, "l5.callee.restore", 5*time.Minute, CalleeLeave),
		define("l5.callee.restore", "register devices as they were", "gray", keyed, "", 30*time.Second, CalleeRestore),
		define("vip.remove", "take the device away from the virtual address", "gray", keyed, "vip.restore", 30*time.Second, VIPRemove),
		define("vip.restore", "put the device back behind the virtual address", "gray", keyed, "", 30*time.Second, VIPRestore),
		define("device.release", "give devices back to the pool", "obtain", keyed, "", 30*time.Second, DeviceRelease),
		define("device.repair", "say that faulty devices are in order again", "close", keyed, "", 30*time.Second, DeviceRepair),
		define("permission.revoke", "let go of grants", "obtain", keyed, "permission.restore", 10*time.Second, PermissionRevoke),
		define("permission.restore", "ask again for grants that were let go of", "obtain", keyed, "", 10*time.Second, PermissionRestore),
		define("change.withdraw", "mark the change record as taken back", "self-check", keyed, "", 10*time.Second, ChangeWithdraw),
	}
}

const (
	pure  = flow.Pure
	keyed = flow.Keyed
)

// define makes a tool of a function. What follows a tool's own input in an undo ("done", and the input of what is undone)
// is part of the input type, so that a misspelt field is found wherever it stands.
func define[In, Out any](name, title, stage string, effect flow.Effect, undo string, timeout time.Duration, run func(context.Context, Env, In) (Out, error)) tool {
	return tool{
		Manifest: flow.Manifest{
			Name: name, Title: title, Stage: stage, Effect: effect, Undo: undo, Timeout: timeout,
			Input: flow.SchemaOf[In](), Output: flow.SchemaOf[Out](),
		},
		run: func(ctx context.Context, env Env, input []byte) (any, error) {
			var in In
			if err := json.Unmarshal(input, &in); err != nil {
				return nil, fail("input.invalid", "%v; see `zhiyun tool describe %s`", err, name)
			}
			env, err := env.check(effect != pure)
			if err != nil {
				return nil, err
			}
			return run(ctx, env, in)
		},
	}
}

// Manifests are those of all tools of this package, run by the zhiyun binary exe.
func Manifests(exe string) []flow.Manifest {
	var out []flow.Manifest
	for _, t := range table() {
		t.Command, t.Version = []string{exe, "tool", t.Name}, flow.ProgramVersion()
		out = append(out, t.Manifest)
	}
	return out
}

// inputLimit bounds what a tool reads from its standard input.
const inputLimit = 16 << 20

// Run is a tool as a process: a JSON object on stdin, a JSON object on stdout, logs on stderr, exit code 0, or 1 with
// {"error": {"code", "message", "retry"}} on stdout. getenv is os.Getenv, or what stands for it.
func Run(ctx context.Context, name string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) (exit int) {
	output, err := perform(ctx, name, stdin, stderr, getenv)
	if err != nil {
		output, exit = map[string]*Error{"error": named(err)}, 1
		fmt.Fprintln(stderr, named(err).Error())
	}
	text, err := json.Marshal(output)
	if err == nil {
		_, err = stdout.Write(append(text, '\n'))
	}
	if err != nil {
		fmt.Fprintln(stderr, "write the result:", err)
		return 1
	}
	return exit
}

func perform(ctx context.Context, name string, stdin io.Reader, stderr io.Writer, getenv func(string) string) (any, error) {
	for _, t := range table() {
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
		env, done, err := EnvFrom(getenv)
		if err != nil {
			return nil, err
		}
		defer done()
		env.Logger = slog.New(slog.NewTextHandler(stderr, nil))
		env.Waits = func(text string) { fmt.Fprintln(stderr, "waits:", text) }
		switch {
		case getenv("ZHIYUN_PLAN") == "" || t.plan == nil && t.Effect == pure:
			return t.run(ctx, env, input)
		case t.plan == nil:
			return nil, fail("plan.none", "%s cannot tell what it would do", name)
		}
		return t.plan(ctx, env, input)
	}
	return nil, fail("tool.unknown", "no tool %q; see `zhiyun tool list`", name)
}
