package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Main is the guard's main. args are os.Args as Start made them. It returns the exit code.
//
//	           stop             command ended, grace over
//	guarding ---------> ending ---------------------------> killing --> over
//	    |                                                     ^   nobody is left
//	    +----- command ended, the program died ---------------+
func Main(args []string) int {
	control, status := os.NewFile(3, "control"), os.NewFile(4, "status")
	if !Is(args) || len(args) < 4 || control == nil || status == nil {
		fmt.Fprintln(os.Stderr, "guard: started by hand; it is started by guard.Start")
		return 2
	}
	unix.CloseOnExec(3) // the command must not hold the guard's pipes
	unix.CloseOnExec(4)
	grace, err := time.ParseDuration(args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard: grace:", err)
		return 2
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // the program's end of the status pipe may be gone
	tell := json.NewEncoder(status)
	if err := becomeReaper(); err != nil {
		tell.Encode(report{Error: err.Error()})
		return 1
	}
	command := exec.Command(args[3], args[4:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = commandAttr()
	runtime.LockOSThread() // the command dies with the thread that started it, so with this process
	if err := startDefault(command); err != nil {
		tell.Encode(report{Error: err.Error()})
		return 1
	}
	tell.Encode(report{PID: command.Process.Pid})
	w := &warden{pid: command.Process.Pid, grace: grace, orders: make(chan order)}
	go w.listen(bufio.NewScanner(control)) // ends with the process
	w.watch()
	tell.Encode(report{Over: true, Ended: w.ended})
	return 0
}

// startDefault starts the command with the signals that the guard ignores back at their defaults: an ignored
// signal would stay ignored in it.
func startDefault(command *exec.Cmd) error {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}
	caught := make(chan os.Signal, 100)
	signal.Notify(caught, signals...) // caught signals are reset by exec
	err := command.Start()
	signal.Ignore(signals...)
	return err
}

type order struct {
	signal syscall.Signal // to the command alone
	stop   bool
	grace  time.Duration
}

// warden watches one command and its descendants.
type warden struct {
	pid    int
	grace  time.Duration
	orders chan order
	gone   bool   // the command was collected
	ended  string // how, "" for exit status 0
}

// listen turns the program's lines, and its death, into orders.
func (w *warden) listen(lines *bufio.Scanner) {
	for lines.Scan() {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "signal":
			if n, err := strconv.Atoi(arg); err == nil {
				w.orders <- order{signal: syscall.Signal(n)}
			}
		case "stop":
			if grace, err := time.ParseDuration(arg); err == nil {
				w.orders <- order{stop: true, grace: grace}
			}
		}
	}
	w.orders <- order{stop: true, grace: w.grace}
}

// watch returns when nobody is left.
func (w *warden) watch() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var deadline time.Time // zero: guarding
	for {
		childless := w.collect()
		now := time.Now()
		if w.gone && (deadline.IsZero() || now.Before(deadline)) {
			deadline = now // whether it was asked to end or not: the rest goes with it
		}
		if !deadline.IsZero() && !now.Before(deadline) {
			killDescendants(w.pid)
		}
		if w.gone && alone(w.pid, childless) {
			return
		}
		select {
		case o := <-w.orders:
			if o.signal != 0 && !w.gone {
				unix.Kill(w.pid, o.signal)
			}
			if o.stop {
				if until := time.Now().Add(o.grace); deadline.IsZero() || until.Before(deadline) {
					deadline = until
				}
				if !w.gone && o.grace > 0 {
					unix.Kill(w.pid, unix.SIGTERM)
				}
			}
		case <-tick.C:
		}
	}
}

// collect takes note of every descendant that ended and came back to the guard, and tells whether it has no
// child left.
func (w *warden) collect() (childless bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return errors.Is(err, syscall.ECHILD)
		case pid <= 0:
			return false
		case pid == w.pid:
			w.gone = true
			if status.Signaled() {
				w.ended = "signal: " + status.Signal().String()
			} else if status.ExitStatus() != 0 {
				w.ended = "exit status " + strconv.Itoa(status.ExitStatus())
			}
		}
	}
}
