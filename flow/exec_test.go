package flow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

func shell(t testing.TB, m flow.Manifest, script string) *flow.Tools {
	t.Helper()
	m.Name, m.Command = "sh", []string{"/bin/sh", "-c", script}
	tools := flow.NewTools()
	tools.Exec(m)
	if err := tools.Err(); err != nil {
		t.Fatal(err)
	}
	return tools
}

func runShell(t *testing.T, tools *flow.Tools, call flow.Call, env ...string) flow.Result {
	t.Helper()
	call.ID, call.Tool = "1", "sh"
	if call.Input == nil {
		call.Input = []byte("{}")
	}
	return tools.Run(t.Context(), call, env)
}

func TestToolsGetACleanEnvironment(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "of the server")
	result := runShell(t, shell(t, flow.Manifest{}, `env >&2`), flow.Call{Key: "k-1", Step: "s"}, "TOKEN_FILE=/run/token")
	if result.Error != nil {
		t.Fatal(result.Error)
	}
	for _, want := range []string{"PATH=", "TOKEN_FILE=/run/token\n", "ZHIYUN_KEY=k-1\n", "ZHIYUN_STEP=s\n"} {
		if !strings.Contains(result.Logs, want) {
			t.Errorf("the environment lacks %q:\n%s", want, result.Logs)
		}
	}
	if strings.Contains(result.Logs, "AWS_SECRET") {
		t.Error("a tool sees the server's credentials")
	}
}

// An input may hold secrets: everyone on the machine can read a command line.
func TestInputIsNotOnTheCommandLine(t *testing.T) {
	t.Parallel()
	result := runShell(t, shell(t, flow.Manifest{}, `tr '\0' ' ' < /proc/$$/cmdline >&2; env >&2; cat`), flow.Call{Input: []byte(`{"password": "s3cret"}`)})
	if result.Error != nil || strings.Contains(result.Logs, "s3cret") || !strings.Contains(string(result.Output), "s3cret") {
		t.Errorf("%v, output %s, logs:\n%s", result.Error, result.Output, result.Logs)
	}
}

// untilThere runs a tool that does not end until it has come to write a file before its time is over, however busy the machine is, and returns what is in it.
func untilThere(t *testing.T, tools *flow.Tools, file string) string {
	t.Helper()
	for timeout := 300 * time.Millisecond; timeout < 5*time.Minute; timeout *= 4 {
		result := runShell(t, tools, flow.Call{Timeout: timeout})
		if result.Error == nil || result.Error.Code != flow.CodeTimeout || !result.Error.Unknown {
			t.Fatalf("%+v, want a timeout", result.Error)
		}
		if data, _ := os.ReadFile(file); len(data) > 0 {
			return string(data)
		}
	}
	t.Fatalf("the tool never came to write %s", file)
	return ""
}

func TestToolIsToldToEndBeforeItIsKilled(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "told")
	ready := filepath.Join(t.TempDir(), "ready")
	tools := shell(t, flow.Manifest{}, `trap 'echo told > `+file+`; exit 1' TERM; echo ready > `+ready+`; while :; do sleep 0.01; done`)
	untilThere(t, tools, ready)
	if _, err := os.Stat(file); err != nil {
		t.Error("the tool was not told to end:", err)
	}
}

func TestDeafToolIsKilledWithItsGroup(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	tools := shell(t, flow.Manifest{}, `trap '' TERM; sh -c 'trap "" TERM; echo $$ > `+file+`; while :; do sleep 0.1; done' & while :; do sleep 0.1; done`)
	pid, err := strconv.Atoi(strings.TrimSpace(untilThere(t, tools, file)))
	if err != nil {
		t.Fatal(err)
	}
	comesTrue(t, func() bool { return !alive(pid) }) // its child
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	silent := shell(t, flow.Manifest{Heartbeat: 200 * time.Millisecond}, `sleep 60`)
	if result := runShell(t, silent, flow.Call{}); result.Error == nil || result.Error.Code != flow.CodeHeartbeat || !result.Error.Unknown {
		t.Errorf("a silent tool: %+v, want %s", result.Error, flow.CodeHeartbeat)
	}
	busy := shell(t, flow.Manifest{}, `i=0; while [ $i -lt 35 ]; do echo working >&2; sleep 0.1; i=$((i+1)); done`) // longer than it may be silent
	if result := runShell(t, busy, flow.Call{Heartbeat: 3 * time.Second}); result.Error != nil {
		t.Errorf("a tool that logs: %+v", result.Error)
	}
	tools := flow.NewTools()
	flow.Func(tools, "sh", func(ctx context.Context, _ struct{}) (struct{}, error) {
		flow.Logf(ctx, "begun")
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	if result := runShell(t, tools, flow.Call{Heartbeat: 50 * time.Millisecond}); result.Error == nil || result.Error.Code != flow.CodeHeartbeat {
		t.Errorf("a silent function: %+v, want %s", result.Error, flow.CodeHeartbeat)
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	result := runShell(t, shell(t, flow.Manifest{}, `head -c 3000000 /dev/zero | tr '\0' x`), flow.Call{})
	if result.Error == nil || result.Error.Code != flow.CodeOutput || len(result.Output) > 0 {
		t.Errorf("%+v, want %s", result.Error, flow.CodeOutput)
	}
	result = runShell(t, shell(t, flow.Manifest{}, `head -c 3000000 /dev/zero | tr '\0' x >&2`), flow.Call{})
	if result.Error != nil || len(result.Logs) > flow.MaxLogs+10 {
		t.Errorf("%+v with %d bytes of logs", result.Error, len(result.Logs))
	}
}

// What a tool leaves behind outside its group may go on writing where the tool did: nobody knows whether what was printed is whole, and the tool hears how to do without.
func TestToolThatLeavesItsOutputOpenIsInDoubt(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	t.Cleanup(func() {
		data, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	script := fmt.Sprintf(`setsid sh -c 'echo $$ > %[1]s; exec sleep 600' & while ! [ -s %[1]s ]; do sleep 0.01; done; echo '{}'`, file)
	result := runShell(t, shell(t, flow.Manifest{}, script), flow.Call{})
	if err := result.Error; err == nil || err.Code != flow.CodeExit || !err.Unknown || err.Permanent || !strings.Contains(err.Message, ">/dev/null 2>&1") {
		t.Errorf("%+v, want an unknown %s that says how to mend it", result.Error, flow.CodeExit)
	}
}

func TestPlatformsAreHeld(t *testing.T) {
	t.Parallel()
	result := runShell(t, shell(t, flow.Manifest{Platforms: []string{"plan9", "linux/mips"}}, `true`), flow.Call{})
	if result.Error == nil || result.Error.Code != flow.CodeTool {
		t.Errorf("%+v, want %s", result.Error, flow.CodeTool)
	}
}

func TestDigestIsCheckedBeforeEachProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "run")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(`echo '{"a": 1}'`)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(program, old, old); err != nil { // old enough for its state to be kept
		t.Fatal(err)
	}
	file := filepath.Join(dir, flow.ManifestFile)
	if err := os.WriteFile(file, []byte(`{"name": "sh", "version": "1.2.0", "command": ["./run"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	digest, err := flow.DigestDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"name": "sh", "version": "1.2.0", "command": ["./run"], "digest": "`+digest+`"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	tools := flow.NewTools()
	if err := tools.Folder(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if result := runShell(t, tools, flow.Call{}); result.Error != nil || result.Ran.Version != "1.2.0" || result.Ran.Digest != digest {
			t.Fatalf("%+v", result)
		}
	}
	write(`echo '{"a": 2}'`)
	if err := os.Chtimes(program, old, old); err != nil { // as one would who wants it not to show
		t.Fatal(err)
	}
	if result := runShell(t, tools, flow.Call{}); result.Error == nil || result.Error.Code != flow.CodeDigest {
		t.Errorf("a changed program ran: %+v", result)
	}
	write(`echo '{"a": 1}'`)
	if result := runShell(t, tools, flow.Call{}); result.Error != nil {
		t.Errorf("as it was: %+v", result.Error)
	}
	if err := os.WriteFile(filepath.Join(dir, "library.py"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if result := runShell(t, tools, flow.Call{}); result.Error == nil || result.Error.Code != flow.CodeDigest {
		t.Errorf("beside a file that was added: %+v", result)
	}
}

func TestResourcesAreBounded(t *testing.T) {
	t.Parallel()
	const hog = `head -c 200000000 /dev/zero | tail -c 150000000 | wc -c >&2; echo '{}'`
	tools := shell(t, flow.Manifest{Resources: flow.Resources{Memory: 64 << 20, Processes: 20, CPU: 0.9}}, hog)
	result := runShell(t, tools, flow.Call{})
	if result.Ran.Limits == "" {
		t.Fatalf("the result does not say what bounds the tool: %+v", result)
	}
	t.Log("limits:", result.Ran.Limits, "error:", result.Error)
	if strings.HasPrefix(result.Ran.Limits, "cgroup") && strings.Contains(result.Logs, "150000000") {
		t.Errorf("it took 150 MB of 64 (limits %s): %+v", result.Ran.Limits, result)
	}
	if !strings.HasPrefix(result.Ran.Limits, "cgroup") || strings.Contains(result.Ran.Limits, "processes") {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal("no control group can be made here; run as root where the controllers memory, cpu and pids may be used; limits:", result.Ran.Limits)
		}
		t.Skip("no control group can be made here; limits:", result.Ran.Limits)
	}
	// A child that leaves the process group is still in the control group, and does not outlive the tool.
	file := filepath.Join(t.TempDir(), "pid")
	tools = shell(t, flow.Manifest{Resources: flow.Resources{Processes: 20}}, `setsid sh -c 'echo $$ > `+file+`; exec sleep 3600' >/dev/null 2>&1 & while [ ! -s `+file+` ]; do sleep 0.01; done`)
	if result = runShell(t, tools, flow.Call{}); result.Error != nil {
		t.Fatalf("%+v", result)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pid, _ := strconv.Atoi(strings.TrimSpace(string(data))); pid > 0 && alive(pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Error("a child that left the group outlives the tool")
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/zhiyun-tool-" + strconv.Itoa(os.Getpid()) + "-*")
	if len(groups) > 0 {
		t.Errorf("control groups are left: %v", groups)
	}
}

// The floor is the same program started and waited for, with its three files, by os/exec.
func BenchmarkProcess(b *testing.B) {
	const program = "/bin/true"
	b.Run("call", func(b *testing.B) {
		tools := flow.NewTools()
		tools.Exec(flow.Manifest{Name: "true", Command: []string{program}})
		b.ReportAllocs()
		for b.Loop() {
			if result := tools.Run(b.Context(), flow.Call{ID: "1", Tool: "true", Input: json.RawMessage("{}")}, nil); result.Error != nil {
				b.Fatal(result.Error)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := exec.Command(program).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A step's heartbeat holds for each attempt; what missed it is in doubt, and settled by the effect.
func TestHeartbeatOfAStep(t *testing.T) {
	t.Parallel()
	tools := shell(t, flow.Manifest{Effect: flow.Keyed}, `[ "$ZHIYUN_ATTEMPT" = 1 ] && sleep 60; echo '{}'`)
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	save(t, engine, "flow: beat\nsteps:\n  - {name: s, tool: sh, heartbeat: 1s, retry: {attempts: 20, backoff: 1ms}}\n")
	id, err := engine.Start(t.Context(), "beat", nil)
	if err != nil {
		t.Fatal(err)
	}
	x, lines := finish(t, engine, id)
	if x.State != flow.Done || !strings.Contains(strings.Join(lines, "\n"), flow.CodeHeartbeat) {
		t.Errorf("%s:\n%s", x.State, strings.Join(lines, "\n"))
	}
}

func ExampleTools_Plan() {
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{
		Name: "device.hold", Effect: flow.Keyed, Plan: true,
		Command: []string{"/bin/sh", "-c", `[ -n "$ZHIYUN_PLAN" ] && echo '{"touches": [{"kind": "device", "name": "d7", "change": "idle -> held"}]}'`},
	})
	plan, err := tools.Plan(context.Background(), flow.Call{Tool: "device.hold", Key: "k", Input: []byte(`{}`)}, nil)
	fmt.Println(plan.Touches, err)
	// Output: [{device d7 idle -> held}] <nil>
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(`{"name": "a.b", "command": ["./run"], "timeout": "1s", "resident": {"processes": 2, "idle": "1m"}, "platforms": ["linux/arm64"], "input": {"type": "object"}}`))
	f.Add([]byte(`{"name": "a", "effect": "sometimes"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := flow.DecodeManifest(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := flow.DecodeManifest(again); err != nil {
			t.Fatalf("%s was read, and written as %s: %v", data, again, err)
		}
	})
}
