package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// The test binary plays the processes that are supervised, and the agent that is killed.
func TestMain(m *testing.M) {
	switch os.Getenv("SUPERVISE_ROLE") {
	case "":
		os.Exit(m.Run())
	case "agent":
		s, err := supervise.New(supervise.Config{Dir: os.Getenv("SUPERVISE_DIR")})
		if err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
		go s.Run(context.Background())
		err = s.Start(context.Background(), spec("web", "sleep"))
		fmt.Println("started", err)
		select {}
	case "sleep":
		fmt.Println("hello from", os.Getenv("ZHIYUN_INSTANCE"))
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "family": // its child stays when it goes
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "SUPERVISE_ROLE=stubborn")
		out, _ := child.StdoutPipe()
		if err := child.Start(); err != nil {
			os.Exit(3)
		}
		out.Read(make([]byte, 1))
		fmt.Println("child", child.Process.Pid)
		time.Sleep(time.Hour)
	case "crash":
		fmt.Println("crash")
		os.Exit(7)
	case "noise":
		for range 3000 {
			fmt.Println(strings.Repeat("x", 99))
		}
		fmt.Println("end of noise")
		time.Sleep(time.Hour)
	}
}

func spec(name, role string) supervise.Spec {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return supervise.Spec{Name: name, Command: []string{exe}, Env: []string{"SUPERVISE_ROLE=" + role}}
}

// run starts a supervisor over dir; stop ends it and leaves the processes.
func run(t *testing.T, config supervise.Config) (s *supervise.Supervisor, stop func()) {
	t.Helper()
	s, err := supervise.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	}
	t.Cleanup(func() {
		for _, p := range s.Specs() {
			if !ended {
				s.Stop(context.Background(), p.Name, 0)
			}
		}
		stop()
	})
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, stop
}

// eventually waits for a condition by looking often.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("never happened:", what)
		}
	}
}

func alive(pid int) bool {
	_, err := supervise.StartTime(pid)
	return err == nil
}

func one(t *testing.T, s *supervise.Supervisor) supervise.Process {
	t.Helper()
	list := s.List()
	if len(list) != 1 {
		t.Fatalf("list: %+v", list)
	}
	return list[0]
}

func TestStartIsIdempotentAndStopEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := run(t, supervise.Config{Dir: dir})
	web := spec("web", "sleep")
	web.Count = 2
	for range 2 {
		if err := s.Start(t.Context(), web); err != nil {
			t.Fatal(err)
		}
	}
	list := s.List()
	if len(list) != 2 || list[0].PID == 0 || list[0].PID == list[1].PID {
		t.Fatalf("list: %+v", list)
	}
	for _, p := range list {
		if p.State != supervise.Running || !strings.HasPrefix(p.ExeDigest, "sha256:") || p.StartedAt.IsZero() {
			t.Errorf("process: %+v", p)
		}
	}
	if err := s.Start(t.Context(), web); err != nil || s.List()[0].PID != list[0].PID {
		t.Error("the same spec changed something", err)
	}
	for range 2 {
		if err := s.Stop(t.Context(), "web", time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if seen, err := supervise.Inspect(dir); err != nil || len(seen) != 0 {
		t.Errorf("inspect: %+v, %v", seen, err)
	}
	if len(s.List()) != 0 || alive(list[0].PID) || alive(list[1].PID) {
		t.Error("still there:", s.List())
	}
}

func TestAnotherSpecTakesThePlace(t *testing.T) {
	t.Parallel()
	s, _ := run(t, supervise.Config{Dir: t.TempDir()})
	if err := s.Start(t.Context(), spec("web", "sleep")); err != nil {
		t.Fatal(err)
	}
	before := one(t, s)
	other := spec("web", "sleep")
	other.Env = append(other.Env, "X=1")
	if err := s.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if after := one(t, s); after.PID == before.PID || alive(before.PID) {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestWhatCannotStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := run(t, supervise.Config{Dir: dir})
	err := s.Start(t.Context(), supervise.Spec{Name: "web", Command: []string{filepath.Join(dir, "absent")}})
	var spawn *supervise.SpawnError
	if !errors.As(err, &spawn) || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("error: %v", err)
	}
	if len(s.List()) != 0 || len(s.Specs()) != 0 {
		t.Error("kept:", s.List())
	}
}

func TestCrashIsRestartedWithBackoff(t *testing.T) {
	t.Parallel()
	changes := make(chan supervise.Process, 1000)
	s, _ := run(t, supervise.Config{Dir: t.TempDir(), Poll: 5 * time.Millisecond, MinBackoff: 10 * time.Millisecond,
		OnChange: func(p supervise.Process) { changes <- p }})
	if err := s.Start(t.Context(), spec("web", "crash")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three restarts", func() bool { return one(t, s).Restarts >= 3 })
	if p := one(t, s); p.Exit != "exit status 7" {
		t.Errorf("exit: %+v", p)
	}
	if p := <-changes; p.State != supervise.Running {
		t.Errorf("first change: %+v", p)
	}
	if p := <-changes; p.State != supervise.Waiting || p.Exit != "exit status 7" {
		t.Errorf("second change: %+v", p)
	}
}

func TestKilledProcessComesBackAndKickSkipsTheWait(t *testing.T) {
	t.Parallel()
	s, _ := run(t, supervise.Config{Dir: t.TempDir(), MinBackoff: time.Hour, MaxBackoff: time.Hour})
	if err := s.Start(t.Context(), spec("web", "sleep")); err != nil {
		t.Fatal(err)
	}
	before := one(t, s)
	syscall.Kill(before.PID, syscall.SIGKILL)
	eventually(t, "it waits", func() bool { return one(t, s).State == supervise.Waiting })
	if err := s.Kick(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return one(t, s).State == supervise.Running })
	if p := one(t, s); p.PID == before.PID || p.Restarts != 1 || p.Exit != "signal: killed" {
		t.Errorf("after: %+v", p)
	}
	if err := s.Kick(t.Context(), "absent"); !errors.Is(err, supervise.ErrUnknown) {
		t.Error("kick of an unknown process:", err)
	}
}

// What a signal has stopped goes on when told to, and stays the same process.
func TestContinueWakesWhatWasStopped(t *testing.T) {
	t.Parallel()
	s, _ := run(t, supervise.Config{Dir: t.TempDir()})
	if err := s.Start(t.Context(), spec("a", "sleep")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return one(t, s).State == supervise.Running })
	before := one(t, s)
	if err := syscall.Kill(before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stopped", func() bool { return procState(t, before.PID) == "T" })
	if err := s.Continue(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return procState(t, before.PID) != "T" })
	if after := one(t, s); after.PID != before.PID || after.Restarts != 0 {
		t.Errorf("it is another process: %+v, was %+v", after, before)
	}
	if err := s.Continue(t.Context(), "nobody"); !errors.Is(err, supervise.ErrUnknown) {
		t.Errorf("continue of what is not there: %v", err)
	}
}

// procState is the state of a process as /proc has it; R where there is no /proc.
func procState(t *testing.T, pid int) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the state of a process is read from /proc")
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))[0]
}

func TestStopKillsTheWholeGroup(t *testing.T) {
	t.Parallel()
	s, _ := run(t, supervise.Config{Dir: t.TempDir()})
	if err := s.Start(t.Context(), spec("web", "family")); err != nil {
		t.Fatal(err)
	}
	child := 0
	eventually(t, "the child is there", func() bool {
		text, _ := os.ReadFile(s.LogPath("web", 0))
		_, err := fmt.Sscanf(string(text), "child %d\n", &child)
		return err == nil
	})
	if err := s.Stop(t.Context(), "web", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if alive(child) {
		t.Error("the stubborn child outlived its group")
	}
}

func TestProcessesOutliveTheSupervisor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := run(t, supervise.Config{Dir: dir})
	if err := s.Start(t.Context(), spec("web", "sleep")); err != nil {
		t.Fatal(err)
	}
	before := one(t, s)
	stop()
	if seen, err := supervise.Inspect(dir); err != nil || len(seen) != 1 || seen[0].PID != before.PID || seen[0].State != supervise.Running {
		t.Errorf("inspect: %+v, %v", seen, err)
	}
	if err := s.Start(t.Context(), spec("web", "sleep")); !errors.Is(err, supervise.ErrClosed) {
		t.Error("start after the end:", err)
	}
	s, _ = run(t, supervise.Config{Dir: dir})
	if after := one(t, s); after.PID != before.PID || after.State != supervise.Running || after.Restarts != 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// I9: what an agent that was killed had started is found again, once, and nothing is doubled.
func TestAdoptsAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(exe)
	agent.Env = append(os.Environ(), "SUPERVISE_ROLE=agent", "SUPERVISE_DIR="+dir)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if got := string(line[:n]); got != "started <nil>\n" {
		t.Fatalf("agent says %q", got)
	}
	if other, err := supervise.New(supervise.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	} else if err := other.Run(t.Context()); !errors.Is(err, supervise.ErrLocked) {
		t.Error("a second supervisor:", err)
	}
	agent.Process.Kill()
	agent.Wait()

	s, _ := run(t, supervise.Config{Dir: dir})
	p := one(t, s)
	if p.State != supervise.Running || !alive(p.PID) || p.Restarts != 0 {
		t.Fatalf("not adopted: %+v", p)
	}
	// An adopted process is watched and restarted like any other.
	syscall.Kill(p.PID, syscall.SIGKILL)
	eventually(t, "it came back", func() bool {
		q := one(t, s)
		return q.State == supervise.Running && q.PID != p.PID && q.Restarts == 1
	})
}

func TestFindsAProcessWhoseStartWasNotRecorded(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("the environment of a process can be read on Linux alone")
	}
	dir := t.TempDir()
	s, stop := run(t, supervise.Config{Dir: dir})
	if err := s.Start(t.Context(), spec("web", "sleep")); err != nil {
		t.Fatal(err)
	}
	before := one(t, s)
	stop()
	// What the file says between the write before the fork and the one after it.
	path := filepath.Join(dir, "web.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	early := strings.Replace(string(text), `"pid": `+strconv.Itoa(before.PID), `"pid": 0`, 1)
	if early == string(text) {
		t.Fatal("no pid in", early)
	}
	if err := os.WriteFile(path, []byte(early), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = run(t, supervise.Config{Dir: dir})
	if after := one(t, s); after.PID != before.PID {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	s, _ := run(t, supervise.Config{Dir: t.TempDir(), LogBytes: 10_000})
	if err := s.Start(t.Context(), spec("web", "noise")); err != nil {
		t.Fatal(err)
	}
	path := s.LogPath("web", 0)
	eventually(t, "the log is cut", func() bool {
		now, err := os.Stat(path)
		old, err2 := os.Stat(path + ".1")
		return err == nil && err2 == nil && now.Size() <= 10_000 && old.Size() <= 10_000
	})
}

func TestSpecFaultsAllAtOnce(t *testing.T) {
	t.Parallel()
	err := supervise.Spec{Name: ".x/y", Command: []string{"relative"}, Env: []string{"=1"}, Count: -1, Dir: "rel"}.Validate()
	for _, want := range []string{"name", "relative", "=1", "count", "dir"} {
		if !errors.Is(err, supervise.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if _, err := supervise.New(supervise.Config{Dir: "x", Poll: -1, LogBytes: -1}); err == nil ||
		!strings.Contains(err.Error(), "Dir") || !strings.Contains(err.Error(), "Poll") || !strings.Contains(err.Error(), "LogBytes") {
		t.Error("config:", err)
	}
}
