package device_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/device/devicetest"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
)

// killedTool is a tool as a process that kills itself at the n-th moment that matters.
func killedTool(name string) int {
	left, err := strconv.Atoi(os.Getenv("KILL_AT"))
	if err == nil && left > 0 {
		device.Reached(func() {
			if left--; left == 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // the signal is on its way
			}
		})
	}
	device.Plant(os.Getenv("PLANTED"))
	return device.Run(context.Background(), name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}

// killable is a device whose tools run as processes.
type killable struct {
	*world
	server  string
	planted string
}

func newKillable(t *testing.T) *killable {
	t.Helper()
	k := &killable{world: newWorld(t)}
	// Some hundred processes write and sync: in memory, where that is to be had, they take seconds.
	if dir, err := os.MkdirTemp("/dev/shm", "zy"); err == nil {
		k.root = dir
		t.Cleanup(func() { os.RemoveAll(dir) })
		for _, sub := range []string{"etc", "data", "pkg"} {
			k.try(os.Mkdir(filepath.Join(k.root, sub), 0o755))
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	k.try(err)
	server := transport.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blob, err := k.blobs.Open(r.Context(), "sha256:"+path.Base(r.URL.Path))
		if err != nil || path.Dir(r.URL.Path) != "/blobs/sha256" || r.Header.Get("Authorization") != "Bearer secret" {
			http.NotFound(w, r)
			return
		}
		defer blob.Close()
		var content bytes.Buffer
		content.ReadFrom(blob)
		w.Write(content.Bytes())
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener, 0) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	k.server = "http://" + listener.Addr().String()
	return k
}

// command is the tool as a process.
func (k *killable) command(tool string, input any) *exec.Cmd {
	k.Helper()
	exe, err := os.Executable()
	k.try(err)
	text, err := json.Marshal(input)
	k.try(err)
	token := filepath.Join(k.TempDir(), "token")
	k.try(os.WriteFile(token, []byte("secret\n"), 0o600))
	cmd := exec.Command(exe, "tool", tool)
	cmd.Env = []string{"ZHIYUN_ROOT=" + k.root, "ZHIYUN_KEY=exec/step/1", "ZHIYUN_DEVICE=web-7", "ZHIYUN_SERVER=" + k.server,
		"ZHIYUN_TOKEN_FILE=" + token, "PLANTED=" + k.planted,
		"GORACE=atexit_sleep_ms=0"} // a process with the race detector sleeps for a second at its end
	cmd.Stdin = bytes.NewReader(text)
	return cmd
}

// run runs the tool and kills it at the n-th moment; 0 is never.
func (k *killable) run(tool string, input any, n int) (output string, killed bool) {
	k.Helper()
	cmd := k.command(tool, input)
	cmd.Env = append(cmd.Env, "KILL_AT="+strconv.Itoa(n))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			return "", true
		}
		k.Fatalf("%s: %v: %s%s", tool, err, stdout.String(), stderr.String())
	}
	return stdout.String(), false
}

// clean fails if the tools' own folder holds more than locks.
func (k *killable) clean(when string) {
	k.Helper()
	if left, _ := filepath.Glob(filepath.Join(k.root, "var/zhiyun/undo/*")); len(left) > 0 {
		k.Errorf("%s: left %v", when, left)
	}
}

type killCase struct {
	tool, undo string
	input      any
	undoInput  any
}

func killCases(w *world) []killCase {
	w.write("etc/cart.yaml", "rate: 1")
	w.write("data/geo/old", "old")
	w.write("data/geo/stale", "stale")
	serving(w, "1") // has another version to return to
	w.try(os.RemoveAll(filepath.Join(w.root, "var/zhiyun/undo")))
	pack := devicetest.Gzip(w, devicetest.Tar(w,
		devicetest.Entry{Name: "bin/cart", Content: "two", Mode: 0o755}, devicetest.Entry{Name: "share/words", Content: "words"}))
	install := device.PackageInstallIn{Name: "cart", Version: "2", Digest: w.blobs.Put(pack)}
	push := device.ConfigPushIn{Configs: []device.ConfigFile{{Path: "etc/cart.yaml", Content: "rate: 2"}, {Path: "etc/sub/new", Content: "new"}}}
	files := device.FileSyncIn{Files: []device.File{{Path: "data/geo/old", Digest: w.blobs.Put([]byte("new"))}, {Path: "data/more/x", Digest: w.blobs.Put([]byte("x"))}},
		Mirror: []string{"data/geo"}}
	script := device.ScriptRunIn{Package: "cart", Path: "scripts/init", Writes: []string{"data"}}
	return []killCase{
		{"package.install", "package.remove", install, install},
		{"file.sync", "file.restore", files, files},
		{"config.push", "config.restore", push, push},
		{"script.run", "script.undo", script, script},
		{"l5.caller.join", "l5.caller.leave", device.CallerJoinIn{Caller: "shop.web"}, device.CallerJoinIn{Caller: "shop.web"}},
		{"package.remove", "device.restore", device.PackageRemoveIn{PackageInstallIn: device.PackageInstallIn{Name: "cart"}, Purge: true}, struct{}{}},
		{"config.restore", "device.restore", device.ConfigRestoreIn{ConfigPushIn: device.ConfigPushIn{Configs: push.Configs[:1]}, Purge: true}, struct{}{}},
	}
}

// atEveryMoment kills the tool, and then its undo, with SIGKILL at each moment that matters, and tells what is
// not as it should be afterwards. It returns how many moments there were.
func (k *killable) atEveryMoment(c killCase, fault func(string)) (moments int) {
	k.Helper()
	before := k.tree()
	tree := func(when, want string) {
		k.Helper()
		if k.tree() != want {
			fault(fmt.Sprintf("%s: %s\nis\n%s\nwant\n%s", c.tool, when, k.tree(), want))
		}
	}
	want, _ := k.run(c.tool, c.input, 0)
	after := k.tree()
	k.run(c.undo, c.undoInput, 0)
	tree("undo", before)
	k.clean(c.tool)
	for n := 1; ; n++ {
		_, killed := k.run(c.tool, c.input, n)
		if !killed {
			k.run(c.undo, c.undoInput, 0)
			moments += n - 1
			break
		}
		k.run(c.undo, c.undoInput, 0)
		tree(fmt.Sprintf("killed at %d and undone", n), before)
		k.clean(c.tool)

		k.run(c.tool, c.input, n)
		output, _ := k.run(c.tool, c.input, 0)
		if output != want && c.tool != "script.run" { // which tells its time
			fault(fmt.Sprintf("%s: killed at %d and run again: %s, want %s", c.tool, n, output, want))
		}
		if c.tool != "script.run" { // which appends to a file of its own
			tree(fmt.Sprintf("killed at %d and run again", n), after)
		}
		k.run(c.undo, c.undoInput, 0)
		tree(fmt.Sprintf("killed at %d, run again and undone", n), before)
	}
	for n := 1; ; n++ {
		k.run(c.tool, c.input, 0)
		_, killed := k.run(c.undo, c.undoInput, n)
		k.run(c.undo, c.undoInput, 0)
		tree(fmt.Sprintf("undo killed at %d and run again", n), before)
		k.clean(c.undo)
		if !killed {
			return moments + n - 1
		}
	}
}

// I3, I5: wherever a tool or its undo is killed, the next call of its key ends in one of two known states.
func TestKilledAtEveryMoment(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts some hundred processes")
	}
	for i, c := range killCases(newWorld(t)) {
		t.Run(c.tool, func(t *testing.T) {
			t.Parallel()
			k := newKillable(t)
			c := killCases(k.world)[i]
			moments := k.atEveryMoment(c, func(text string) { t.Error(text) })
			t.Logf("%s: killed at %d moments", c.tool, moments)
			if moments < 10 {
				t.Errorf("only %d moments", moments)
			}
		})
	}
}

// A journal that is written after the change instead of before must be found out.
func TestAPlantedFaultIsFound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts some hundred processes")
	}
	k := newKillable(t)
	k.planted = "late journal"
	var found []string
	k.atEveryMoment(killCases(k.world)[2], func(text string) { found = append(found, text) })
	if len(found) == 0 {
		t.Error("the planted fault was not found")
	} else if !strings.Contains(found[0], "killed at") {
		t.Error("found something else:", found[0])
	}
}

// What a tool that is killed has started does not go on behind the back of the next call.
func TestAScriptDiesWithItsTool(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a child is killed with its parent on Linux alone")
	}
	k := newKillable(t)
	serving(k.world, "1")
	before := k.tree()
	in := device.ScriptRunIn{Package: "cart", Path: "scripts/slow", Writes: []string{"data"}}
	cmd := k.command("script.run", in)
	k.try(cmd.Start())
	pid := 0
	k.eventually("the script runs", func() bool {
		text, _ := os.ReadFile(filepath.Join(k.root, "data/ran"))
		fmt.Sscan(string(text), &pid)
		return pid != 0
	})
	cmd.Process.Kill()
	cmd.Wait()
	k.eventually("the script is gone", func() bool { _, err := supervise.StartTime(pid); return err != nil })
	k.run("script.undo", in, 0)
	k.same("undo", before)
}
