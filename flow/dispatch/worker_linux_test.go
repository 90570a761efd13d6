package dispatch_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/dispatch"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/worker"
	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
)

// TestMain lets the test binary be a worker's process.
func TestMain(m *testing.M) {
	if target := os.Getenv("ZHIYUN_TEST_WORKER"); target != "" {
		dir := os.Getenv("ZHIYUN_TEST_DIR")
		tools := flow.NewTools()
		tools.Exec(touch(dir, fmt.Sprintf(`[ "$ZHIYUN_ATTEMPT" != 1 ] || while [ ! -e %s/gate ]; do sleep 0.01; done`, dir)))
		w, err := worker.New(worker.Config{Target: target, Device: "d1", Tools: tools, Dir: filepath.Join(dir, "worker")})
		if err == nil {
			err = w.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func workerProcess(t *testing.T, target, dir string) (kill func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(exe)
	process.Env = append(os.Environ(), "ZHIYUN_TEST_WORKER="+target, "ZHIYUN_TEST_DIR="+dir)
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	}
	t.Cleanup(kill)
	return kill
}

// The worker's process is killed with a result that the server, which is away, has not got: the next worker has it.
func TestResultSurvivesKill9OfTheWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := memstore.New()
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Effect: flow.Manual}) // run again, it would wait for a person
	addr, id := addrtest.Free(t), ""
	var kill func()
	for round := range 2 {
		d := dispatcher(t, dispatch.Config{Grace: time.Minute})
		target, stopServer := serve(t, d, addr)
		addr = strings.TrimPrefix(target, "http://")
		engine, err := flow.New(flow.Config{Store: store, Tools: tools, Remote: d})
		if err != nil {
			t.Fatal(err)
		}
		stopEngine := background(t, engine.Run)
		if round == 1 {
			if x := finish(t, engine, id); x.State != flow.Done {
				t.Errorf("state %s: %v", x.State, x.Error)
			}
			break
		}
		kill = workerProcess(t, target, dir)
		if _, err := engine.Save(t.Context(), []byte(remoteFlow)); err != nil {
			t.Fatal(err)
		}
		if id, err = engine.Start(t.Context(), "fan", map[string]any{"devices": []string{"d1"}}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return attemptsOf(dir) == "1" })
		stopEngine()
		stopServer()
		if err := os.WriteFile(filepath.Join(dir, "gate"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool {
			files, _ := filepath.Glob(filepath.Join(dir, "worker", "attempts", "*.json"))
			if len(files) != 1 {
				return false
			}
			data, _ := os.ReadFile(files[0])
			return strings.Contains(string(data), `"result"`)
		})
		kill()
		workerProcess(t, target, dir)
	}
	if got := attemptsOf(dir); got != "1" {
		t.Errorf("attempts on the device: %q, want one", got)
	}
}

// The worker's process is killed in the middle of a tool: the tool dies with it, and the attempt is in doubt.
func TestKill9OfTheWorkerPutsItsAttemptInDoubt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := dispatcher(t, dispatch.Config{Grace: time.Minute})
	target, _ := serve(t, d, "127.0.0.1:0")
	kill := workerProcess(t, target, dir)
	tools := flow.NewTools()
	tools.Exec(flow.Manifest{Name: "touch", OnDevice: true, Effect: flow.Keyed})
	engine, err := flow.New(flow.Config{Store: memstore.New(), Tools: tools, Remote: d})
	if err != nil {
		t.Fatal(err)
	}
	background(t, engine.Run)
	if _, err := engine.Save(t.Context(), []byte(remoteFlow)); err != nil {
		t.Fatal(err)
	}
	id, err := engine.Start(t.Context(), "fan", map[string]any{"devices": []string{"d1"}})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return attemptsOf(dir) == "1" })
	kill()
	workerProcess(t, target, dir)
	if x := finish(t, engine, id); x.State != flow.Done || attemptsOf(dir) != "1 2" {
		t.Errorf("state %s after attempts %q; want done after the keyed tool was run again", x.State, attemptsOf(dir))
	}
}

func attemptsOf(dir string) string {
	data, _ := os.ReadFile(filepath.Join(dir, "d1"))
	return strings.Join(strings.Fields(string(data)), " ")
}

// While a worker's disk is full, nothing begins that could not be written down, and what ended meanwhile is not lost.
func TestWorkerWithAFullDisk(t *testing.T) {
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("zhiyun-test-disk", disk, "tmpfs", 0, "size=256k"); err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("cannot mount a small disk (%v); run as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir, gate := t.TempDir(), filepath.Join(t.TempDir(), "gate")
	d := dispatcher(t, dispatch.Config{Grace: time.Minute})
	target, _ := serve(t, d, "127.0.0.1:0")
	tools := flow.NewTools()
	tools.Exec(touch(dir, fmt.Sprintf(`while [ ! -e %s ]; do sleep 0.01; done`, gate)))
	stop := runWorker(t, worker.Config{Target: target, Device: "d1", Tools: tools, Dir: filepath.Join(disk, "w")})
	call := func(id string) flow.Call {
		return flow.Call{ID: id, Key: id, Device: "d1", Tool: "touch", Attempt: 1, Input: []byte("{}"), Timeout: time.Minute}
	}
	first := make(chan flow.Result, 1)
	go func() { first <- d.Run(t.Context(), call("a-1")) }()
	waitFor(t, func() bool { return attemptsOf(dir) == "1" })
	ballast := filepath.Join(disk, "ballast")
	fill(ballast)
	refused := d.Run(t.Context(), call("a-2"))
	if refused.Error == nil || refused.Error.Code != worker.CodeDisk || refused.Error.Unknown || refused.Error.Permanent {
		t.Errorf("on a full disk: %+v, want %s, known to have had no effect", refused.Error, worker.CodeDisk)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if result := <-first; result.Error != nil {
		t.Errorf("what ended while the disk was full: %+v", result.Error)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if result := d.Run(t.Context(), call("a-3")); result.Error != nil {
		t.Errorf("after space was freed: %+v", result.Error)
	}
	stop()
}

// fill takes all room of a disk.
func fill(path string) {
	file, err := os.Create(path)
	if err != nil {
		return
	}
	defer file.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for block := make([]byte, size); ; {
			if _, err := file.Write(block); err != nil {
				break
			}
		}
	}
}
