package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sample/load"
)

// caller is one process that calls the service in an open loop.
type caller struct {
	command *exec.Cmd
	control io.WriteCloser
	done    chan struct{} // closed when the process has ended and all it said was read

	mu     sync.Mutex
	last   Progress     // guarded by mu
	health []Health     // guarded by mu
	final  *load.Report // guarded by mu
}

// startCallers starts the caller processes at a rate in all.
func (s *story) startCallers(phase string, rate float64) error {
	for i := range callers {
		log, err := os.OpenFile(filepath.Join(s.config.Dir, fmt.Sprintf("caller-%d.log", i+1)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		command := exec.Command(s.config.Exe, "sample", "load", "--l5", s.environment.Socket(callerDevice),
			"--caller", callerModule, "--service", service, "--seed", fmt.Sprint(i+1))
		command.Stderr = log
		control, err := command.StdinPipe()
		if err != nil {
			log.Close()
			return err
		}
		out, err := command.StdoutPipe()
		if err != nil {
			log.Close()
			return err
		}
		err = command.Start()
		log.Close()
		if err != nil {
			return err
		}
		c := &caller{command: command, control: control, done: make(chan struct{})}
		go c.read(out)
		s.callers = append(s.callers, c)
	}
	return s.setLoad(phase, rate)
}

// setLoad begins a phase of a rate in all.
func (s *story) setLoad(phase string, rate float64) error {
	for _, c := range s.callers {
		if _, err := fmt.Fprintf(c.control, "%s %g\n", phase, rate/callers); err != nil {
			return fmt.Errorf("a caller is gone: %w", err)
		}
	}
	return nil
}

// read takes in what the process tells, until it ends.
func (c *caller) read(out io.Reader) {
	defer close(c.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var p Progress
		if json.Unmarshal(lines.Bytes(), &p) != nil {
			continue
		}
		c.mu.Lock()
		c.last = p
		c.health = append(c.health, p.Health...)
		if p.Final != nil {
			c.final = p.Final
		}
		c.mu.Unlock()
	}
	c.command.Wait()
}

// stop ends the process in order, and waits for its report.
func (c *caller) stop() *load.Report {
	c.control.Close()
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		c.command.Process.Kill()
		<-c.done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.final
}

// stopCallers ends the callers and adds their reports up.
func (s *story) stopCallers() (load.Report, error) {
	var sum load.Report
	for _, c := range s.callers {
		report := c.stop()
		if report == nil {
			return sum, errors.New("a caller ended without a report; its log is in the data folder")
		}
		sum.Phases = append(sum.Phases, report.Phases...)
	}
	return sum, nil
}
