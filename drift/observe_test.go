package drift_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/drifttest"
	"github.com/zhiyun-ops/zhiyun/internal/addrtest"
)

// needsProc skips where there is no /proc, unless the run demands it.
func needsProc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		if os.Getenv("ZHIYUN_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no /proc on %s: %v", runtime.GOOS, err)
	}
}

// sleeper starts a process of the device with the given root, and returns it.
func sleeper(t *testing.T, root string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Dir = root
	try(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestProcSeesTheDevicesProcesses(t *testing.T) {
	t.Parallel()
	needsProc(t)
	mine, other := t.TempDir(), t.TempDir()
	before := time.Now()
	cmd := sleeper(t, mine)
	sleeper(t, other)
	want := drift.State{Processes: []drift.Process{{Name: "sleeper", Exe: filepath.Base(cmd.Path), Argv: []string{"sleep", "1000"}}}}
	if target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)); err == nil {
		want.Processes[0].Exe = filepath.Base(target) // of many programs in one, perhaps
	}
	live := collect(t, drift.Processes(drift.Proc(mine)), want)
	if found := drift.Compare(want, live); len(found) != 0 {
		t.Errorf("findings: %v", found)
	}
	if len(live.Processes) != 1 || live.Processes[0].PID != cmd.Process.Pid {
		t.Fatalf("processes: %+v, want the one with pid %d", live.Processes, cmd.Process.Pid)
	}
	if d := live.Processes[0].Started.Sub(before); d < -time.Minute || d > time.Minute {
		t.Errorf("started %v away from when it was", d)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	found := differences(drift.Compare(want, collect(t, drift.Processes(drift.Proc(mine)), want)))
	if diff := cmp.Diff([]string{"sleeper: missing"}, found); diff != "" {
		t.Errorf("after it was killed (-want +got):\n%s", diff)
	}
}

func TestProcSaysThatItSeesNothing(t *testing.T) {
	t.Parallel()
	_, err := drift.Processes(drift.ProcAt(t.TempDir(), t.TempDir())).Collect(t.Context(), drift.State{}, nil)
	if err == nil || !strings.Contains(err.Error(), "lister") {
		t.Errorf("without /proc: %v, want an error that says what to do", err)
	}
}

func TestPortsSeeListeners(t *testing.T) {
	t.Parallel()
	host := addrtest.Host()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	try(t, err)
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	want := drift.State{Ports: []drift.Port{{Port: port}}}
	live := collect(t, drift.Ports(host, nil), want)
	if found := drift.Compare(want, live); len(found) != 0 {
		t.Errorf("while it listens: %v", found)
	}
	if runtime.GOOS == "linux" {
		elsewhere := collect(t, drift.Ports(addrtest.Host(), nil), want)
		if found := differences(drift.Compare(want, elsewhere)); len(found) != 1 {
			t.Errorf("another device's address: %v, want it missing", found)
		}
	}
	listener.Close()
	found := differences(drift.Compare(want, collect(t, drift.Ports(host, nil), want)))
	if diff := cmp.Diff([]string{fmt.Sprintf("tcp/%d: missing", port)}, found); diff != "" {
		t.Errorf("after it was closed (-want +got):\n%s", diff)
	}
}

// Who listens is found by the device's own processes: here the test itself, whose working directory is the root.
func TestPortsNameTheListener(t *testing.T) {
	t.Parallel()
	needsProc(t)
	root, err := os.Getwd()
	try(t, err)
	everywhere, err := net.Listen("tcp", ":0")
	try(t, err)
	defer everywhere.Close()
	port := everywhere.Addr().(*net.TCPAddr).Port
	exe, err := os.Executable()
	try(t, err)
	processes := []drift.Process{{Name: "test", Exe: filepath.Base(exe)}}

	want := drift.State{Processes: processes, Ports: []drift.Port{{Port: port, Process: "test"}}}
	live := collect(t, drift.Ports("127.0.0.1", drift.Proc(root)), want)
	if found := drift.Compare(want, live); len(found) != 0 {
		t.Errorf("by the declared process: %v", found)
	}
	want.Ports[0].Process = "other"
	found := drift.Compare(want, live)
	if len(found) != 1 || found[0].Fields[0] != drift.FieldListener || found[0].Who.PID != os.Getpid() {
		t.Errorf("by another process than declared: %+v", found)
	}
	// A listener at all addresses that is not of this device's processes is another device's.
	apart := collect(t, drift.Ports("127.0.0.1", drift.Proc(t.TempDir())), want)
	if found := differences(drift.Compare(want, apart)); len(found) != 1 || !strings.HasSuffix(found[0], "missing") {
		t.Errorf("from a device with another root: %v", found)
	}
}

// Every collector states what it does not see, and what it cannot see at all is reported, not passed over.
func TestCoverageIsReported(t *testing.T) {
	t.Parallel()
	lister := drifttest.NewProcesses()
	lister.Fail(errors.New("supervisor is away"))
	reports := drifttest.NewReports()
	run(t, drift.Config{Device: "d1", Reporter: reports,
		Desired:    drift.Fixed(drift.State{Processes: []drift.Process{{Name: "web"}}}),
		Collectors: []drift.Collector{drift.Files(t.TempDir()), drift.Processes(lister)},
		Poll:       10 * time.Millisecond, Confirm: time.Millisecond})
	blind := reports.Wait(t, "blind processes", func(r drift.Report) bool {
		return len(r.Coverage) == 2 && r.Coverage[1].Blind
	})
	if gaps := fmt.Sprint(blind.Coverage[1].Gaps); !strings.Contains(gaps, "supervisor is away") {
		t.Errorf("gaps: %s", gaps)
	}
	if len(blind.Findings) != 0 {
		t.Errorf("what is not seen was found to differ: %v", blind.Findings)
	}
	if gaps := fmt.Sprint(blind.Coverage[0].Gaps); !strings.Contains(gaps, "who changed a file") {
		t.Errorf("gaps of files: %s", gaps)
	}
	lister.Fail(nil)
	reports.Wait(t, "the process found missing", func(r drift.Report) bool { return len(r.Findings) == 1 && !r.Coverage[1].Blind })
}

// A declaration that cannot be got keeps the last one in force; one that was never got leads to nothing.
func TestAgentWithoutADeclaration(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "a", "bad")
	desired := drifttest.NewDesired(drift.State{Files: map[string]drift.File{"a": {Digest: drift.Digest([]byte("good"))}}})
	desired.Fail(errors.New("server is away"))
	events := newRecorder()
	agent := run(t, drift.Config{Device: "d1", Desired: desired, Collectors: []drift.Collector{drift.Files(root)}, OnEvent: events.add})
	if _, generation := agent.Desired(); generation != "" {
		t.Errorf("generation %q before any", generation)
	}
	desired.Fail(nil)
	events.wait(t, "the difference", is(drift.EventFound, "a"))
	desired.Fail(errors.New("server is away"))
	write(t, root, "a", "good")
	events.wait(t, "the end of it", is(drift.EventClosed, "a"))
}

// A tool of our own that changes the device holds drift meanwhile: its change is neither reported as unauthorised nor
// undone (hubblestack/pulsar#47).
func TestOwnChangeIsHeld(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "a", "old")
	state := func(content string) drift.State {
		return drift.State{Files: map[string]drift.File{"a": {Digest: drift.Digest([]byte(content))}}}
	}
	desired, events := drifttest.NewDesired(state("old")), newRecorder()
	repairer := drifttest.Restore(root, map[string]string{"a": "old"})
	agent := run(t, drift.Config{Device: "d1", Desired: desired, Collectors: []drift.Collector{drift.Files(root)},
		Repairer: repairer, Mode: drift.Repair, OnEvent: events.add})
	release := agent.Hold(drift.Hold{Subject: "a", Reason: "config.push"})
	write(t, root, "a", "new")
	found := events.wait(t, "the difference", is(drift.EventFound, "a"))
	if found.Finding.Verdict != drift.Deploying || found.Finding.Status != drift.StatusHeld {
		t.Errorf("found as %s, %s; want held, deploying", found.Finding.Status, found.Finding.Verdict)
	}
	desired.Set(state("new"))
	closed := events.wait(t, "the declaration that catches up", is(drift.EventClosed, "a"))
	release()
	release()
	if closed.Finding.Status != drift.StatusGone || len(repairer.Calls()) != 0 {
		t.Errorf("closed as %s after %d repairs; want gone after none", closed.Finding.Status, len(repairer.Calls()))
	}
}

// A repairer that writes something else must be stopped (saltstack/salt#23685).
func TestEndlessRepairIsStopped(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "a", "bad")
	events := newRecorder()
	repairer := drifttest.Restore(root, map[string]string{"a": "not what is declared"})
	run(t, drift.Config{Device: "d1", Collectors: []drift.Collector{drift.Files(root)}, Repairer: repairer, Mode: drift.Repair,
		Desired: drift.Fixed(drift.State{Files: map[string]drift.File{"a": {Digest: drift.Digest([]byte("good"))}}}),
		OnEvent: events.add, Rescan: 20 * time.Millisecond})
	escalated := events.wait(t, "the escalation", is(drift.EventEscalated, "a"))
	if escalated.Finding.Reason.Code != "repair-ineffective" || len(repairer.Calls()) != 2 {
		t.Errorf("escalated for %v after %d repairs", escalated.Finding.Reason, len(repairer.Calls()))
	}
}

func TestRunTwice(t *testing.T) {
	t.Parallel()
	reports := drifttest.NewReports()
	agent := run(t, drift.Config{Device: "d1", Reporter: reports, Desired: drift.Fixed(drift.State{}),
		Collectors: []drift.Collector{drift.Files(t.TempDir())}})
	reports.Wait(t, "anything", func(drift.Report) bool { return true })
	if err := agent.Run(t.Context()); !errors.Is(err, drift.ErrRunning) {
		t.Errorf("second Run: %v", err)
	}
}

// The end of a process is noticed as it happens: here no poll and no rescan comes to help.
func TestEndOfAProcessIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("pidfd is Linux's")
	}
	root := t.TempDir()
	cmd := sleeper(t, root)
	reports, events := drifttest.NewReports(), newRecorder()
	run(t, drift.Config{Device: "d1", Reporter: reports, OnEvent: events.add,
		Desired:    drift.Fixed(drift.State{Processes: []drift.Process{{Name: "sleeper", Argv: []string{"sleep", "1000"}}}}),
		Collectors: []drift.Collector{drift.Processes(drift.Proc(root))},
		Poll:       time.Hour, Rescan: time.Hour, Confirm: 100 * time.Millisecond})
	reports.Wait(t, "a process that is watched", func(r drift.Report) bool { return len(r.Coverage) == 1 && r.Coverage[0].Events })
	killed := time.Now()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	events.wait(t, "the difference", is(drift.EventFound, "sleeper"))
	t.Logf("noticed after %v", time.Since(killed))
}

// A process that a signal has stopped is there, and gets nowhere: that is a difference, and over when it goes on.
func TestStoppedProcessIsFound(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a process's state is read from /proc")
	}
	root := t.TempDir()
	cmd := sleeper(t, root)
	events := newRecorder()
	run(t, drift.Config{Device: "d1", OnEvent: events.add,
		Desired:    drift.Fixed(drift.State{Processes: []drift.Process{{Name: "sleeper", Argv: []string{"sleep", "1000"}}}}),
		Collectors: []drift.Collector{drift.Processes(drift.Proc(root))},
		Poll:       10 * time.Millisecond, Confirm: 20 * time.Millisecond})
	try(t, cmd.Process.Signal(syscall.SIGSTOP))
	found := events.wait(t, "the difference", is(drift.EventFound, "sleeper"))
	if len(found.Finding.Fields) != 1 || found.Finding.Fields[0] != drift.FieldStopped || found.Finding.Who.PID != cmd.Process.Pid {
		t.Errorf("found %v of %+v", found.Finding, found.Finding.Who)
	}
	try(t, cmd.Process.Signal(syscall.SIGCONT))
	events.wait(t, "the end of it", is(drift.EventClosed, "sleeper"))
}

func TestConfigFaultsComeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := drift.New(drift.Config{Mode: "mend", Rescan: -1})
	for _, field := range []string{"Device", "Desired", "Collectors", "Mode", "Rescan"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("field %s is not named in: %v", field, err)
		}
	}
	if !errors.Is(err, drift.ErrConfig) {
		t.Errorf("%v is no ErrConfig", err)
	}
	if _, err := drift.NewLedger(drift.LedgerConfig{BrakePercent: 101}); err == nil || !strings.Contains(err.Error(), "Store") {
		t.Errorf("ledger: %v", err)
	}
}
