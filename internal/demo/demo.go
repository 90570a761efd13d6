// Package demo tells the story of Zhiyun on one machine: a module under a burst is expanded onto real new processes, taken
// to full weight on the outcomes of real callers, kept alive and as declared through a dead device and a tampered file,
// and brought back when the burst is over. The demo itself only changes load, kills and tampers; everything else
// is done by scale, flow, gray and drift, and is checked afterwards, in the audit record too.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
)

// Config says where and how the demo runs.
type Config struct {
	// Exe is the zhiyun binary. Required.
	Exe string
	// Dir is the folder for all data; a short path. Default: a new one below the system's temporary folder, removed at
	// the end unless Keep is set or something went wrong.
	Dir  string
	Keep bool
	// Out gets the story. Required.
	Out io.Writer
	// Decide turns the decider on. Without it nothing is expanded, and the demo fails: that is what it is for.
	Decide bool
	// OneAddress has all devices share 127.0.0.1, with ports of their own.
	OneAddress bool
	// Hang bounds each chapter. Default 4 min; it is a limit for what hangs, no goal.
	Hang time.Duration
}

// The sizes of the story.
const (
	module, service = "demo.api", "demo.api"
	callerModule    = "demo.web"
	pool            = 12 // devices for the module
	inService       = 3  // at the start, and again at the end
	callers         = 2  // caller processes
	steadyRate      = 250.0
	burstRate       = 3 * steadyRate
)

// Run tells the story. The report is filled as far as the story went; the error says which expectation failed, or
// what kept the story from going on. Run it below a guard, so that nothing is left behind however it ends.
func Run(ctx context.Context, config Config) (report *Report, err error) {
	report = &Report{Started: time.Now()}
	if config.Hang == 0 {
		config.Hang = 4 * time.Minute
	}
	if config.Dir == "" {
		dir, err := os.MkdirTemp("", "zy")
		if err != nil {
			return report, err
		}
		config.Dir = dir
		defer func() {
			if config.Keep || err != nil {
				fmt.Fprintf(config.Out, "\nlogs and data are kept in %s\n", dir)
				return
			}
			os.RemoveAll(dir)
		}()
	}
	s := &story{ctx: ctx, config: config, report: report, began: report.Started, network: 16 + rand.IntN(200), told: make(map[string]bool)}
	defer s.end()
	for _, chapter := range []struct {
		title string
		tell  func() error
	}{
		{"a server and 13 devices", s.raise},
		{"3 of 12 devices go into service", s.seed},
		{"steady load", s.steady},
		{"the load triples", s.burst},
		{"a device dies", s.kill},
		{"a config file is tampered with", s.tamper},
		{"the burst is over", s.calm},
		{"what the record says", s.audit},
	} {
		s.say("", "── %s", chapter.title)
		bounded, cancel := context.WithTimeout(ctx, config.Hang)
		s.ctx = bounded
		err := chapter.tell()
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				err = errors.New("interrupted")
			} else if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("nothing more happened within %s: %w", config.Hang, err)
			}
			report.Ended = time.Now()
			return report, fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	s.ctx = ctx
	report.Ended = time.Now()
	s.finish()
	return report, report.Err()
}

// story is the demo while it runs.
type story struct {
	ctx    context.Context // of the chapter
	config Config
	report *Report
	began  time.Time

	network     int // of the devices' addresses
	claimed     *dev.Network
	virtual     string // address of the module's virtual address
	environment *dev.Environment
	api         *control.Client
	callers     []*caller
	dead        string          // the device that was killed
	told        map[string]bool // what was said already, by what it is about
}

// end stops what the story started.
func (s *story) end() {
	for _, c := range s.callers {
		c.stop()
	}
	if s.api != nil {
		s.api.Close()
	}
	if s.environment != nil {
		s.environment.Stop(5 * time.Second)
	}
	if s.claimed != nil {
		s.claimed.Close()
	}
}

// say prints a line with the time since the demo began. who is the actor, if one acts.
func (s *story) say(who, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if who != "" {
		line = fmt.Sprintf("%-6s %s", who, line)
	}
	fmt.Fprintf(s.config.Out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), line)
}

// once says something the first time only.
func (s *story) once(key, who, format string, args ...any) {
	if !s.told[key] {
		s.told[key] = true
		s.say(who, format, args...)
	}
}

// until polls a condition until it holds.
func (s *story) until(what string, condition func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := condition()
		if err != nil || done {
			return err
		}
		select {
		case <-s.ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, s.ctx.Err())
		case <-s.environment.ServerDone():
			return fmt.Errorf("waiting until %s: the server has ended; see %s", what, filepath.Join(s.environment.ServerDir(), "server.log"))
		case <-tick.C:
		}
	}
}
