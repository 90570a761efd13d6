package device_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/device/devicetest"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// serving installs a package whose bin/serve is the test binary, and scripts.
func serving(w *world, version string) {
	w.Helper()
	exe, err := os.Executable()
	w.try(err)
	script := func(name, text string) devicetest.Entry {
		return devicetest.Entry{Name: "scripts/" + name, Content: "#!/bin/sh\n" + text + "\n", Mode: 0o755}
	}
	blob := devicetest.Tar(w,
		devicetest.Entry{Name: "bin/serve", Content: "#!/bin/sh\nexec " + exe + " \"$@\"\n", Mode: 0o755},
		devicetest.Entry{Name: "etc/default", Content: version},
		script("init", `echo "$ZHIYUN_DEVICE $1 $ZHIYUN_PHASE" >> data/ran; echo done`),
		script("undo", `echo "$ZHIYUN_PHASE" >> "$UNDO_LOG"`),
		script("fail", `echo x > data/ran; echo "disk is on fire" >&2; exit 3`),
		script("slow", `echo $$ > data/ran; exec sleep 600`),
	)
	_, err = install(w, device.PackageInstallIn{Name: "cart", Version: version, Digest: w.blobs.Put(blob)})(w.env("install " + version))
	w.try(err)
}

func freePort(w *world) int {
	w.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(w.addr, "0"))
	w.try(err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func TestScriptRunAndUndo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serving(w, "1")
	w.write("data/dir/old", "old")
	undoLog := filepath.Join(t.TempDir(), "log")
	before := w.tree()
	in := device.ScriptRunIn{Package: "cart", Path: "scripts/init", Args: []string{"$(reboot); x"}, Writes: []string{"data"},
		Undo: "scripts/undo", Env: map[string]string{"UNDO_LOG": undoLog}}
	out := twice(w, "k", func(env device.Env) (device.ScriptRunOut, error) { return device.ScriptRun(w.Context(), env, in) })
	if out.Stdout != "done\n" || w.read("data/ran") != "web-7 $(reboot); x run\n" {
		t.Errorf("out %+v, ran %q", out, w.read("data/ran"))
	}
	w.try(os.RemoveAll(filepath.Join(w.root, "data/dir"))) // what else the script might have done
	undone(w, "k", before, func(env device.Env) (device.Undone, error) {
		return device.ScriptUndo(w.Context(), env, device.ScriptUndoIn{ScriptRunIn: in, Done: &out})
	})
	if text, _ := os.ReadFile(undoLog); string(text) != "undo\n" {
		t.Errorf("the undo script ran so: %q", text)
	}
}

func TestScriptRunFailsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	try := func(name, want string, in device.ScriptRunIn) {
		t.Helper()
		in.Writes = []string{"data"}
		w.try(os.RemoveAll(filepath.Join(w.root, "var/zhiyun/undo")))
		wrong(w, name, want, func(env device.Env) (device.ScriptRunOut, error) { return device.ScriptRun(w.Context(), env, in) })
	}
	try("not installed", "package.not_installed", device.ScriptRunIn{Package: "cart", Path: "scripts/init"})
	serving(w, "1")
	try("absent", "script.not_found", device.ScriptRunIn{Package: "cart", Path: "scripts/none"})
	try("no program", "script.not_found", device.ScriptRunIn{Package: "cart", Path: "etc/default"})
	try("outside", "path.outside", device.ScriptRunIn{Package: "cart", Path: "../../../bin/sh"})
	try("failing", "script.failed", device.ScriptRunIn{Package: "cart", Path: "scripts/fail"})
	try("slow", "script.timeout", device.ScriptRunIn{Package: "cart", Path: "scripts/slow", Timeout: "100ms"})
	try("timeout", "input.invalid", device.ScriptRunIn{Package: "cart", Path: "scripts/init", Timeout: "soon"})
	_, err := device.ScriptRun(t.Context(), w.env("words"), device.ScriptRunIn{Package: "cart", Path: "scripts/fail"})
	if err == nil || !strings.Contains(err.Error(), "disk is on fire") {
		t.Error("the script's last words are missing:", err)
	}
}

func startIn(command ...string) device.PackageStartIn {
	return device.PackageStartIn{Package: "cart", Settle: "50ms", Grace: "2s",
		Processes: []device.ProcessSpec{{Name: "cart.web", Command: command}}}
}

func start(w *world, in device.PackageStartIn) func(device.Env) (device.PackageStartOut, error) {
	return func(env device.Env) (device.PackageStartOut, error) {
		return device.PackageStart(w.Context(), env, in)
	}
}

func pids(w *world) []int {
	w.Helper()
	list, err := w.agent.List(w.Context())
	w.try(err)
	var pids []int
	for _, p := range list {
		pids = append(pids, p.PID)
	}
	return pids
}

func TestPackageStartAndStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withAgent()
	serving(w, "1")
	before := w.tree()
	out := twice(w, "k1", start(w, startIn("bin/serve", "serve")))
	if len(out.Processes) != 1 || out.Processes[0].PID == 0 || len(pids(w)) != 1 || pids(w)[0] != out.Processes[0].PID {
		t.Fatalf("out %+v, pids %v", out, pids(w))
	}
	// Another version takes the place of the first, and its undo brings the first back.
	serving(w, "2")
	second := twice(w, "k2", start(w, startIn("bin/serve", "serve")))
	if second.Processes[0].PID == out.Processes[0].PID {
		t.Error("the new version was not started")
	}
	stop := func(env device.Env) (device.Undone, error) {
		return device.PackageStop(w.Context(), env, device.PackageStopIn{PackageStartIn: startIn("bin/serve", "serve")})
	}
	after := w.tree()
	undone(w, "k2", after, stop)
	specs, err := w.agent.Specs(t.Context())
	w.try(err)
	if len(specs) != 1 || !strings.Contains(specs[0].Command[0], "/cart/1-") {
		t.Errorf("specs after the undo: %+v", specs)
	}
	// A device that leaves stops whatever runs; that can be undone, too.
	twice(w, "leave", func(env device.Env) (device.Undone, error) {
		return device.PackageStop(w.Context(), env, device.PackageStopIn{PackageStartIn: startIn(), Purge: true})
	})
	if n := len(pids(w)); n != 0 {
		t.Errorf("%d processes after the purge", n)
	}
	undone(w, "leave", after, func(env device.Env) (device.Undone, error) { return device.Restore(w.Context(), env) })
	if n := len(pids(w)); n != 1 {
		t.Errorf("%d processes after its undo", n)
	}
	undone(w, "k1", after, stop)
	if n := len(pids(w)); n != 0 || before == after {
		t.Errorf("%d processes at the end", n)
	}
}

// I3: an agent that goes away while a tool waits for it leaves the tool's effect in doubt; under its key it is
// settled when there is an agent again.
func TestPackageStartOutlivesAnAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withAgent()
	serving(w, "1")
	before := w.tree()
	in := startIn("bin/serve", "serve")
	in.Settle = "5s" // long enough for the agent to be seen and stopped
	failed := make(chan error, 1)
	go func() {
		_, err := start(w, in)(w.env("k"))
		failed <- err
	}()
	w.eventually("it is started", func() bool {
		list, err := w.agent.List(w.Context())
		return err == nil && len(list) == 1 && list[0].PID != 0
	})
	pid := pids(w)[0]
	w.stopAgent()
	if err := <-failed; code(err) != "agent.unreachable" && code(err) != "agent.stopping" {
		t.Error("without an agent:", err)
	}
	if _, err := supervise.StartTime(pid); err != nil {
		t.Error("the process went with the agent")
	}
	w.startAgent()
	out := twice(w, "k", start(w, in))
	if len(out.Processes) != 1 || len(pids(w)) != 1 || out.Processes[0].PID != pids(w)[0] {
		t.Errorf("out %+v, pids %v", out, pids(w))
	}
	undone(w, "k", before, func(env device.Env) (device.Undone, error) {
		return device.PackageStop(w.Context(), env, device.PackageStopIn{PackageStartIn: in})
	})
	if n := len(pids(w)); n != 0 {
		t.Errorf("%d processes after the undo", n)
	}
}

func TestPackageStartFailsByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serving(w, "1")
	w.try(os.RemoveAll(filepath.Join(w.root, "var/zhiyun/undo")))
	wrong(w, "no agent", "env.missing", start(w, startIn("bin/serve", "serve")))
	w.withAgent()
	wrong(w, "absent", "script.not_found", start(w, startIn("bin/none")))
	wrong(w, "no command", "input.invalid", start(w, startIn()))
	crash := startIn("bin/serve", "crash")
	crash.Settle = "10s" // it fails as soon as the process ends
	wrong(w, "crash", "process.exited", start(w, crash))
	wrong(w, "not installed", "package.not_installed", start(w, device.PackageStartIn{Package: "x", Processes: []device.ProcessSpec{{Name: "x", Command: []string{"x"}}}}))
	if n := len(pids(w)); n != 0 {
		t.Errorf("%d processes left", n)
	}
	err := w.agent.Start(t.Context(), supervise.Spec{Name: "x", Command: []string{"/absent"}})
	if code(err) != "process.spawn" {
		t.Error("spawn:", err)
	}
	if err := w.agent.Kick(t.Context(), "absent"); code(err) != "process.unknown" {
		t.Error("kick:", err)
	}
}

func scan(w *world, in device.ProcessScanIn) func(device.Env) (device.ProcessScanOut, error) {
	return func(env device.Env) (device.ProcessScanOut, error) {
		return device.ProcessScan(w.Context(), env, in)
	}
}

func TestProcessScan(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withAgent()
	serving(w, "1")
	port := freePort(w)
	declared := []device.ProcessSpec{{Name: "cart.web"}}
	twice(w, "k", start(w, startIn("bin/serve", "serve", "{addr}:"+strconv.Itoa(port))))
	out := twice(w, "scan", scan(w, device.ProcessScanIn{Processes: declared, Ports: []int{port}, Exact: true}))
	if len(out.Processes) != 1 || len(out.Ports) != 1 || out.Ports[0].PID != 0 && out.Ports[0].PID != out.Processes[0].PID {
		t.Errorf("out %+v", out)
	}
	w.try(os.RemoveAll(filepath.Join(w.root, "var/zhiyun/undo")))
	closed := freePort(w)
	wrong(w, "closed", "port.closed", scan(w, device.ProcessScanIn{Processes: declared, Ports: []int{closed}, Timeout: "100ms"}))
	wrong(w, "missing", "process.missing", scan(w, device.ProcessScanIn{Processes: []device.ProcessSpec{{Name: "none"}}, Timeout: "100ms"}))
	wrong(w, "fewer", "process.missing", scan(w, device.ProcessScanIn{Processes: []device.ProcessSpec{{Name: "cart.web", Count: 2}}, Timeout: "100ms"}))
	wrong(w, "extra", "process.extra", scan(w, device.ProcessScanIn{Exact: true, Timeout: "100ms"}))
	if _, err := os.Stat("/proc/net/tcp"); err == nil {
		w.try(w.agent.Start(t.Context(), supervise.Spec{Name: "other", Command: []string{"/bin/sleep", "600"}}))
		wrong(w, "foreign", "port.foreign", scan(w, device.ProcessScanIn{Processes: []device.ProcessSpec{{Name: "other"}}, Ports: []int{port}, Timeout: "200ms"}))
	}
	// It waits for what is on its way.
	syscall.Kill(out.Processes[0].PID, syscall.SIGKILL)
	w.eventually("it is dead", func() bool { _, err := supervise.StartTime(out.Processes[0].PID); return err != nil })
	again, err := scan(w, device.ProcessScanIn{Processes: declared, Ports: []int{port}})(w.env(""))
	if err != nil || again.Processes[0].PID == out.Processes[0].PID {
		t.Error("after a restart:", again, err)
	}
}

// A device that shares its address with others has ports of its own: the manifest's, with its offset.
func TestPortsOfADeviceThatSharesItsAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withAgent()
	serving(w, "1")
	const offset = 20
	port := freePort(w) - offset
	in := startIn("bin/serve", "serve", "{addr}:"+strconv.Itoa(port))
	in.Processes[0].Env = map[string]string{device.ListenVar: strconv.Itoa(port), "PEER": "other:" + strconv.Itoa(port)}
	env := w.env("k")
	env.PortOffset = offset
	if _, err := device.PackageStart(w.Context(), env, in); err != nil {
		t.Fatal(err)
	}
	out, err := device.ProcessScan(w.Context(), env, device.ProcessScanIn{Processes: in.Processes, Ports: []int{port}})
	if err != nil || len(out.Ports) != 1 || out.Ports[0].Port != port+offset {
		t.Errorf("scanned %+v, %v", out, err)
	}
	specs, err := w.agent.Specs(w.Context())
	if err != nil || len(specs) != 1 {
		t.Fatalf("specs %+v, %v", specs, err)
	}
	for _, want := range []string{fmt.Sprintf("%s=%d", device.ListenVar, port+offset), fmt.Sprintf("PEER=other:%d", port), "ZHIYUN_PORT_OFFSET=20"} {
		if !slices.Contains(specs[0].Env, want) {
			t.Errorf("the process has %q, not %s", specs[0].Env, want)
		}
	}
}

// An IPv6 address stands in brackets before a port, and alone without.
func TestPortsOfADeviceWithAnIPv6Address(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withAgent()
	serving(w, "1")
	in := startIn("bin/serve", "serve", net.JoinHostPort(w.addr, strconv.Itoa(freePort(w))), "{addr}:8777,[{addr}]:8778", "{addr}")
	in.Processes[0].Env = map[string]string{"PEER": "http://{addr}:8777/", "SELF": "{addr}"}
	env := w.env("k")
	env.Addr, env.PortOffset = "2001:db8::7", 20
	if _, err := device.PackageStart(w.Context(), env, in); err != nil {
		t.Fatal(err)
	}
	specs, err := w.agent.Specs(w.Context())
	if err != nil || len(specs) != 1 {
		t.Fatalf("specs %+v, %v", specs, err)
	}
	if got, want := specs[0].Command[3:], []string{"[2001:db8::7]:8797,[2001:db8::7]:8778", "2001:db8::7"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	for _, want := range []string{"PEER=http://[2001:db8::7]:8797/", "SELF=2001:db8::7"} {
		if !slices.Contains(specs[0].Env, want) {
			t.Errorf("the process has %q, not %s", specs[0].Env, want)
		}
	}
}

func TestCallerJoinAndLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withAgent()
	before := w.tree()
	in := device.CallerJoinIn{Caller: "shop.web", Callees: []string{"shop.pay", "shop.cart"}, Timeout: "200ms"}
	join := func(env device.Env) (device.CallerJoinOut, error) {
		env.Routes = w.agent
		return device.CallerJoin(w.Context(), env, in)
	}
	denied := &device.Error{Code: "l5.denied", Message: "shop.web may not call shop.pay", Retry: true}
	w.routes.Answer("shop.pay", denied)
	wrong(w, "denied", "l5.denied", join)
	w.routes.Answer("shop.pay", &device.Error{Code: "l5.no_instance", Message: "none"})
	wrong(w, "empty", "l5.no_instance", join)
	w.routes.Answer("shop.pay", nil)
	out := twice(w, "k", join)
	if len(out.Warm) != 2 || !strings.Contains(w.read(device.CallersDir+"/shop.web.json"), `"shop.cart"`) {
		t.Errorf("out %+v", out)
	}
	callers, err := device.Callers(w.root)
	w.try(err)
	if len(callers) != 1 || callers[0].Caller != "shop.web" || len(callers[0].Warm) != 2 {
		t.Errorf("callers %+v", callers)
	}
	joined := w.tree()
	twice(w, "leave", func(env device.Env) (device.Undone, error) {
		return device.CallerLeave(w.Context(), env, device.CallerLeaveIn{CallerJoinIn: in, Purge: true})
	})
	w.same("leave", before)
	undone(w, "leave", joined, func(env device.Env) (device.Undone, error) { return device.Restore(w.Context(), env) })
	undone(w, "k", before, func(env device.Env) (device.Undone, error) {
		return device.CallerLeave(w.Context(), env, device.CallerLeaveIn{CallerJoinIn: in, Done: &out})
	})
}

func TestRunIsTheProcessContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := map[string]string{"ZHIYUN_ROOT": w.root, "ZHIYUN_KEY": "k"}
	run := func(name, input string) (int, string) {
		var stdout, stderr bytes.Buffer
		exit := device.Run(t.Context(), name, strings.NewReader(input), &stdout, &stderr, func(n string) string { return env[n] })
		return exit, stdout.String()
	}
	const input = `{"configs":[{"path":"etc/a","content":"x"}]}`
	exit, out := run("config.push", input)
	if exit != 0 || !strings.HasPrefix(out, `{"configs":[{"path":"etc/a","digest":"sha256:`) {
		t.Error(exit, out)
	}
	// What a flow engine sends to the undo: the input and the output.
	exit, out = run("config.restore", strings.TrimSuffix(input, "}")+`,"done":`+strings.TrimSpace(out)+`}`)
	if exit != 0 || out != `{"state":"as_before"}`+"\n" {
		t.Error(exit, out)
	}
	if exit, out = run("config.restore", strings.TrimSuffix(input, "}")+`,"done":null}`); exit != 0 {
		t.Error(exit, out)
	}
	for _, bad := range [][3]string{
		{"config.push", `{"configz":[]}`, "input.invalid"},
		{"config.push", `no json`, "input.invalid"},
		{"config.pull", `{}`, "tool.unknown"},
		{"package.install", `{"name":"p","version":"1","digest":"sha256:` + strings.Repeat("ab", 32) + `"}`, "env.missing"},
	} {
		exit, out := run(bad[0], bad[1])
		var failure struct{ Error device.Error }
		if err := json.Unmarshal([]byte(out), &failure); err != nil || exit != 1 || failure.Error.Code != bad[2] {
			t.Error(bad, exit, out, err)
		}
	}
}

func TestToolsAreDescribed(t *testing.T) {
	t.Parallel()
	names := map[string]device.Tool{}
	for _, tool := range device.Tools() {
		names[tool.Name] = tool
		for _, text := range []json.RawMessage{tool.Input, tool.Output} {
			var s map[string]any
			if err := json.Unmarshal(text, &s); err != nil || s["type"] != "object" {
				t.Errorf("%s: schema %s: %v", tool.Name, text, err)
			}
		}
		if tool.Timeout <= 0 || !tool.OnDevice || tool.Title == "" || len(tool.Command) == 0 {
			t.Errorf("%+v", tool)
		}
	}
	for _, c := range []struct {
		tool, input string
		valid       bool
	}{
		{"package.install", `{"name":"a","version":"1","digest":"sha256:00"}`, true},
		{"package.install", `{"name":"a"}`, false},
		{"package.install", `{"name":"a","version":"1","digest":"x","nam":"b"}`, false},
		{"package.remove", `{"name":"a","version":"1","digest":"x","done":{"name":"a","version":"1","digest":"x","path":"p","fetched":true}}`, true},
		{"package.remove", `{"name":"a","done":null}`, true},
		{"package.remove", `{"name":"a","purge":true}`, true},
		{"package.remove", `{"name":1}`, false},
		{"device.restore", `{"name":1,"purge":true}`, true},
		{"config.push", `{"configs":[{"path":"a","content":"b"}]}`, true},
		{"config.push", `{"configs":[{"path":"a","content":"b","encoding":"rot13"}]}`, false},
		{"package.start", `{"package":"a","processes":[{"name":"a","command":["b"],"count":2,"env":{"A":"b"}}]}`, true},
		{"package.start", `{"package":"a","processes":[{"name":"a","env":{"A":1}}]}`, false},
		{"process.scan", `{}`, true},
	} {
		if err := validate(names[c.tool].Input, c.input); (err == nil) != c.valid {
			t.Errorf("%s of %s: %v", c.tool, c.input, err)
		}
	}
	for _, tool := range names {
		if _, ok := names[tool.Undo]; tool.Undo != "" && !ok {
			t.Errorf("%s is undone by %s, which is none", tool.Name, tool.Undo)
		}
	}
}

func TestServeSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	if err := device.Serve(context.Background(), device.ServeConfig{}); err == nil || !strings.Contains(err.Error(), "Supervisor") {
		t.Error(err)
	}
	s, err := supervise.New(supervise.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Serve(context.Background(), device.ServeConfig{Supervisor: s, Path: "/" + strings.Repeat("x", 200)}); err == nil || !strings.Contains(err.Error(), "shorter root") {
		t.Error(err)
	}
	client, err := device.Dial(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.List(t.Context()); code(err) != "agent.unreachable" {
		t.Error(err)
	}
}
