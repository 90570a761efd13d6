package guard_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/guard"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// The test binary plays the guard, the program, the command and its descendants.
func TestMain(m *testing.M) {
	if guard.Is(os.Args) {
		os.Exit(guard.Main(os.Args))
	}
	if len(os.Args) < 3 || os.Args[1] != "role" {
		os.Exit(m.Run())
	}
	switch os.Args[2] {
	case "program": // starts a family under a guard and waits to be killed
		exe, _ := os.Executable()
		g, err := guard.Start(context.Background(), exe, "role", "family")
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("guard", g.GuardPID())
		g.Wait()
	case "family":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("pid", os.Getpid())
		child := start(nil, "sleep")     // in our group
		daemon := start(session, "fork") // leaves the group, and its parent leaves it
		child.Wait()
		daemon.Wait()
		time.Sleep(time.Hour)
	case "fork":
		start(session, "sleep")
	case "sleep":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		fmt.Println("pid", os.Getpid())
		time.Sleep(time.Hour)
	case "polite":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println("pid", os.Getpid())
		<-stop
		fmt.Println("bye")
	case "parent": // ends when asked, and leaves a child
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		start(session, "sleep")
		<-stop
	case "leaver": // ends, and leaves a child
		start(session, "sleep")
		os.Exit(5)
	}
	os.Exit(0)
}

var session = &syscall.SysProcAttr{Setsid: true}

func start(attr *syscall.SysProcAttr, role string) *exec.Cmd {
	exe, _ := os.Executable()
	cmd := exec.Command(exe, "role", role)
	cmd.Stdout, cmd.SysProcAttr = os.Stdout, attr
	if err := cmd.Start(); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	return cmd
}

func alive(pid int) bool {
	_, err := supervise.StartTime(pid)
	return err == nil
}

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

// pids reads n lines "pid N".
func pids(t *testing.T, lines *bufio.Scanner, n int) []int {
	t.Helper()
	var all []int
	for len(all) < n && lines.Scan() {
		var pid int
		if _, err := fmt.Sscanf(lines.Text(), "pid %d", &pid); err == nil {
			all = append(all, pid)
		} else if !strings.HasPrefix(lines.Text(), "guard") {
			t.Log(lines.Text())
		}
	}
	if len(all) < n {
		t.Fatal("too few processes came up:", all)
	}
	return all
}

// members is how many of the family must come up, and be gone: what left its group is found on Linux alone.
func members() int {
	if runtime.GOOS == "linux" {
		return 3
	}
	return 2
}

func TestKillOfTheProgramLeavesNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a daemon that left its group is found on Linux alone")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := exec.Command(exe, "role", "program")
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	family := pids(t, bufio.NewScanner(out), members())
	program.Process.Kill()
	for _, pid := range family {
		eventually(t, fmt.Sprint("end of ", pid), func() bool { return !alive(pid) })
	}
	program.Wait()
}

func run(t *testing.T, role string) (*guard.Guarded, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	g, err := guard.Config{Exe: exe, Args: []string{"role", role}, Stdout: write}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	write.Close()
	t.Cleanup(func() { g.Stop(0) })
	return g, bufio.NewScanner(read)
}

func TestStopEndsAllAfterTheGrace(t *testing.T) {
	t.Parallel()
	g, out := run(t, "family")
	family := pids(t, out, members())
	if err := g.Stop(100 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(family, g.GuardPID()) {
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	if err := g.Wait(); !errors.Is(err, guard.ErrEnded) || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
	if err := g.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrClosed) {
		t.Error("signal after the end:", err)
	}
}

func TestStopAsksFirst(t *testing.T) {
	t.Parallel()
	g, out := run(t, "polite")
	pids(t, out, 1)
	if err := g.Stop(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if !out.Scan() || out.Text() != "bye" {
		t.Errorf("its last word: %q", out.Text())
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTheGraceIsTheCommandsAlone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a daemon that left its group is found on Linux alone")
	}
	g, out := run(t, "parent")
	pid := pids(t, out, 1)[0]
	stopped := make(chan error, 1)
	go func() { stopped <- g.Stop(time.Hour) }() // the child would not end before
	if err := <-stopped; err != nil || alive(pid) {
		t.Error("after the stop:", err, alive(pid))
	}
}

func TestTheRestGoesWithTheCommand(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a daemon that left its group is found on Linux alone")
	}
	g, out := run(t, "leaver")
	if err := g.Wait(); !errors.Is(err, guard.ErrEnded) || !strings.Contains(err.Error(), "exit status 5") {
		t.Error(err)
	}
	for out.Scan() {
		var pid int
		if fmt.Sscanf(out.Text(), "pid %d", &pid); pid != 0 && alive(pid) {
			t.Error("left behind:", pid)
		}
	}
}

func TestTheCommandDiesWithTheGuard(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a child is killed with its parent on Linux alone")
	}
	g, out := run(t, "polite")
	pid := pids(t, out, 1)[0]
	syscall.Kill(g.GuardPID(), syscall.SIGKILL)
	if err := g.Wait(); !errors.Is(err, guard.ErrEnded) || !strings.Contains(err.Error(), "guard itself") {
		t.Error(err)
	}
	eventually(t, "the command is gone", func() bool { return !alive(pid) })
}

func TestWhatCannotStartIsToldAtOnce(t *testing.T) {
	t.Parallel()
	if _, err := guard.Start(t.Context(), "/absent/program"); err == nil || !strings.Contains(err.Error(), "/absent/program") {
		t.Error(err)
	}
	if _, err := (guard.Config{}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "Exe") {
		t.Error(err)
	}
	if _, err := (guard.Config{Exe: "/bin/true", Guard: "/absent/guard"}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "/absent/guard") {
		t.Error(err)
	}
	// A binary whose main does not call Main is no guard.
	var said bytes.Buffer
	if _, err := (guard.Config{Exe: "/bin/true", Guard: "/bin/true", Stderr: &said}).Start(t.Context()); err == nil {
		t.Error("true is a guard?")
	}
}
