package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// roleArg is the first argument of a process that is a guard.
const roleArg = "zhiyun-guard"

// Is tells whether the arguments (os.Args) are those of a guard: main calls Main then and does nothing else.
func Is(args []string) bool { return len(args) > 2 && args[1] == roleArg }

// Config says what Start runs. The zero value of an optional field means what is said there.
type Config struct {
	// Exe and Args are the command. Exe is required.
	Exe  string
	Args []string
	// Guard is the binary whose main calls Main. Default: the running one.
	Guard string
	// Env is the command's whole environment. Default: the program's.
	Env []string
	// Dir is the working directory. Default: the program's.
	Dir string
	// Stdout and Stderr get what the command prints. Default: nowhere.
	Stdout, Stderr io.Writer
	// Grace is how long the command and its descendants may take between SIGTERM and SIGKILL when the
	// program has died. Default: 0, SIGKILL at once.
	Grace time.Duration
}

// Guarded is a command that runs under a guard. Its methods are safe for concurrent use.
type Guarded struct {
	cmd     *exec.Cmd
	control *os.File
	done    chan struct{}
	err     error // how it ended; written before done is closed

	mu     sync.Mutex // guards closed
	closed bool
}

// ErrEnded matches the errors of Wait that say how the command ended.
var ErrEnded = errors.New("guard: the command ended")

// Start runs exe with args under a guard, its output going to the program's own. See Config.Start for more.
func Start(ctx context.Context, exe string, args ...string) (*Guarded, error) {
	return Config{Exe: exe, Args: args, Stdout: os.Stdout, Stderr: os.Stderr}.Start(ctx)
}

// Start runs the command under a guard and returns when the command was started. ctx bounds the start alone.
func (c Config) Start(ctx context.Context) (*Guarded, error) {
	if c.Exe == "" {
		return nil, errors.New("guard: Config.Exe is empty; give the executable to run")
	}
	if c.Guard == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("guard: find the running binary: %w; set Config.Guard", err)
		}
		c.Guard = self
	}
	controlRead, controlWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("guard: control pipe: %w", err)
	}
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guard: status pipe: %w", err), controlRead.Close(), controlWrite.Close())
	}
	cmd := exec.Command(c.Guard, append([]string{roleArg, c.Grace.String(), c.Exe}, c.Args...)...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.Env, c.Dir, c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{controlRead, statusWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is the program's to hear
	err = cmd.Start()
	err = errors.Join(err, controlRead.Close(), statusWrite.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guard: start %s: %w", c.Guard, err), controlWrite.Close(), statusRead.Close())
	}
	g := &Guarded{cmd: cmd, control: controlWrite, done: make(chan struct{})}
	status := bufio.NewReader(statusRead)
	first := make(chan report, 1)
	go g.follow(status, statusRead, first)
	select {
	case r, ok := <-first:
		if !ok || r.Error != "" {
			g.close()
			<-g.done
			return nil, fmt.Errorf("guard: start %s: %s", c.Exe, r.Error)
		}
		return g, nil
	case <-ctx.Done():
		g.close()
		<-g.done
		return nil, fmt.Errorf("guard: start %s: %w", c.Exe, ctx.Err())
	}
}

// report is a line that the guard writes to the program.
type report struct {
	PID   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"` // the command could not be started
	Ended string `json:"ended,omitempty"` // how it ended, "" for exit status 0
	Over  bool   `json:"over,omitempty"`
}

// follow reads what the guard tells, until it is gone. It is waited for by done.
func (g *Guarded) follow(status *bufio.Reader, file *os.File, first chan<- report) {
	defer close(g.done)
	defer file.Close()
	decoder := json.NewDecoder(status)
	told := false
	for {
		var r report
		if err := decoder.Decode(&r); err != nil {
			break
		}
		if !told {
			told = true
			first <- r
		}
		if r.Over && r.Ended != "" {
			g.err = fmt.Errorf("%w: %s", ErrEnded, r.Ended)
		}
	}
	close(first)
	if err := g.cmd.Wait(); err != nil && g.err == nil {
		g.err = fmt.Errorf("%w: the guard itself: %w", ErrEnded, err)
	}
	g.close()
}

func (g *Guarded) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		g.control.Close()
	}
}

// GuardPID is the guard's process.
func (g *Guarded) GuardPID() int { return g.cmd.Process.Pid }

// Wait returns when the command and all its descendants are gone: nil for exit status 0, and an error that
// matches ErrEnded otherwise.
func (g *Guarded) Wait() error {
	<-g.done
	return g.err
}

// Signal sends a signal to the command alone.
func (g *Guarded) Signal(signal syscall.Signal) error {
	return g.send(fmt.Sprintf("signal %d", signal))
}

// Stop ends the command and everything that descends from it: SIGTERM to the command, SIGKILL to all that is
// left after grace. It returns when nothing is left.
func (g *Guarded) Stop(grace time.Duration) error {
	if err := g.send("stop " + grace.String()); err != nil && !errors.Is(err, os.ErrClosed) {
		g.close() // it hears that as our death
		<-g.done
		return err
	}
	<-g.done
	return nil
}

func (g *Guarded) send(line string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("guard: %s: %w", strings.Fields(line)[0], os.ErrClosed)
	}
	if _, err := g.control.WriteString(line + "\n"); err != nil {
		return fmt.Errorf("guard: %s: %w", strings.Fields(line)[0], err)
	}
	return nil
}
