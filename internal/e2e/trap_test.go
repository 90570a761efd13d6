//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
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
)

// The moments of an attempt at which a kill can be aimed.
const (
	before = "before" // the tool's process is there and has done nothing
	during = "during" // the tool runs
	after  = "after"  // the tool has done its work; its result is not known to who ran it
)

var moments = []string{before, during, after}

// hit is what a trap tells the tests.
type hit struct {
	Tool   string `json:"tool"`
	Device string `json:"device"` // where it runs; empty: on the server
	Moment string `json:"moment"`
}

// trapArg is the first argument of a test binary that stands in a tool's place: then come the folder of traps, the real
// binary and the real arguments.
const trapArg = "zhiyun-e2e-trap"

func isTrap(args []string) bool { return len(args) > 5 && args[1] == trapArg }

// toolScript is what server and agents run as their tool binary. Without a trap it costs a millisecond.
const toolScript = `#!/bin/sh
if [ -e '%[1]s'/"$2" ]; then exec '%[2]s' %[3]s '%[1]s' '%[4]s' "$@"; fi
exec '%[4]s' "$@"
`

// snare is a folder of traps: a file per tool, which holds a moment. It is sprung once.
type snare struct {
	dir    string
	listen net.Listener
	done   chan struct{} // closed when nothing is listened to any more
}

// newSnare lays an empty snare below dir. sprung is called for each trap that goes off, and the tool waits until
// it returns.
func newSnare(t *testing.T, dir string, sprung func(hit)) (*snare, string) {
	t.Helper()
	s := &snare{dir: filepath.Join(dir, "traps"), done: make(chan struct{})}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "tool")
	if err := os.WriteFile(script, fmt.Appendf(nil, toolScript, s.dir, exe, trapArg, zhiyun), 0o700); err != nil {
		t.Fatal(err)
	}
	if s.listen, err = net.Listen("unix", filepath.Join(dir, "snare.sock")); err != nil {
		t.Fatal(err)
	}
	go s.serve(sprung)
	t.Cleanup(func() {
		s.listen.Close()
		<-s.done
	})
	return s, script
}

// serve answers traps, one at a time. It ends when the listener is closed; its owner waits for done.
func (s *snare) serve(sprung func(hit)) {
	defer close(s.done)
	for {
		conn, err := s.listen.Accept()
		if err != nil {
			return
		}
		var h hit
		if json.NewDecoder(conn).Decode(&h) == nil {
			sprung(h)
		}
		fmt.Fprintln(conn, "go on") // whoever waits may be dead
		conn.Close()
	}
}

// set lays a trap for the next run of a tool.
func (s *snare) set(t *testing.T, tool, moment string) {
	t.Helper()
	temp := filepath.Join(s.dir, ".new")
	if err := errors.Join(os.WriteFile(temp, []byte(moment), 0o600), os.Rename(temp, filepath.Join(s.dir, tool))); err != nil {
		t.Fatal(err)
	}
}

// clear takes away what did not go off.
func (s *snare) clear() {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		os.Remove(filepath.Join(s.dir, e.Name()))
	}
}

// runTrap is the main of a trap. What it becomes, or runs, dies with whoever started it, as any tool does.
func runTrap(args []string) int {
	dir, real, args := args[0], args[1], args[2:]
	tool := args[1]
	claimed := filepath.Join(dir, fmt.Sprintf(".%s-%d", tool, os.Getpid()))
	if os.Rename(filepath.Join(dir, tool), claimed) != nil {
		return become(real, args) // another run of the tool was first
	}
	moment, err := os.ReadFile(claimed)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	h := hit{Tool: tool, Device: os.Getenv("ZHIYUN_DEVICE"), Moment: string(moment)}
	var result bytes.Buffer
	code := 0
	if h.Moment == after {
		runtime.LockOSThread() // the tool dies with the thread that started it
		command := exec.Command(real, args...)
		command.Stdin, command.Stdout, command.Stderr = os.Stdin, &result, os.Stderr
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := command.Run(); err != nil {
			code = 1
		}
	}
	if err := spring(filepath.Join(filepath.Dir(dir), "snare.sock"), h); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if h.Moment == after {
		os.Stdout.Write(result.Bytes())
		return code
	}
	return become(real, args)
}

// spring tells the tests and waits until they have done what they aim at.
func spring(socket string, h hit) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(h); err != nil {
		return err
	}
	_, err = bufio.NewReader(conn).ReadString('\n')
	return err
}

// become replaces this process by the real tool.
func become(real string, args []string) int {
	err := syscall.Exec(real, append([]string{real}, args...), os.Environ())
	fmt.Fprintln(os.Stderr, strings.Join(append([]string{real}, args...), " ")+":", err)
	return 1
}
