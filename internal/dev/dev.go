// Package dev runs a whole Zhiyun on one machine: a server and any number of devices, each an agent process
// with its own loopback address, or ports of its own at one address, and its own root folder. Run it below a guard (internal/guard), so that nothing is
// left behind however it ends.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// Device is one device of the environment.
type Device struct {
	Name string
	Addr string // its own address, as 127.0.3.1, or one that it shares with others
	// PortOffset tells it from those that it shares its address with: it is added to the ports of modules.
	PortOffset int
}

// Config says what to run.
type Config struct {
	// Dir holds everything: DIR/server and DIR/devices/NAME. Required, absolute. Unix sockets stand below it,
	// so it must be short: 60 bytes at most.
	Dir string
	// Exe is the zhiyun binary. Required.
	Exe string
	// Devices to run an agent for.
	Devices []Device
	// ServerFlags and AgentFlags are added to the command lines.
	ServerFlags, AgentFlags []string
}

// Environment is a running Zhiyun.
type Environment struct {
	config Config
	mu     sync.Mutex
	server *child            // guarded by mu
	agents map[string]*child // guarded by mu
}

// child is one process that the environment started and waits for.
type child struct {
	*exec.Cmd
	done chan struct{} // closed when the process was waited for
}

// MaxDir is the longest folder name that leaves room for the sockets below it.
const MaxDir = 60

// Start starts the server, waits until it is ready, and starts the agents. On an error nothing is left running.
func Start(ctx context.Context, config Config) (*Environment, error) {
	var faults []error
	if !filepath.IsAbs(config.Dir) || len(config.Dir) > MaxDir {
		faults = append(faults, fmt.Errorf("dev: folder %q: want an absolute path of %d bytes at most, since unix sockets stand below it", config.Dir, MaxDir))
	}
	if config.Exe == "" {
		faults = append(faults, errors.New("dev: Exe is empty: name the zhiyun binary"))
	}
	taken := make(map[Device]string, len(config.Devices))
	for _, device := range config.Devices {
		place := Device{Addr: device.Addr, PortOffset: device.PortOffset}
		if other, is := taken[place]; is {
			faults = append(faults, fmt.Errorf("dev: devices %q and %q are both at %s with offset %d: want an address, or an offset, of each one's own", other, device.Name, device.Addr, device.PortOffset))
		}
		taken[place] = device.Name
		if ip := net.ParseIP(device.Addr); device.Name == "" || ip == nil || !ip.IsLoopback() {
			faults = append(faults, fmt.Errorf("dev: device %q at %q: want a name and a loopback address", device.Name, device.Addr))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	e := &Environment{config: config, agents: make(map[string]*child)}
	if err := e.StartServer(ctx); err != nil {
		e.Stop(2 * time.Second)
		return nil, err
	}
	for _, device := range config.Devices {
		if err := e.StartAgent(device); err != nil {
			e.Stop(2 * time.Second)
			return nil, err
		}
	}
	return e, nil
}

// ServerDir is the server's folder.
func (e *Environment) ServerDir() string { return filepath.Join(e.config.Dir, "server") }

// Target is where the server is.
func (e *Environment) Target() string {
	return "unix://" + filepath.Join(e.ServerDir(), "control.sock")
}

// Root is the root folder of a device.
func (e *Environment) Root(device string) string {
	return filepath.Join(e.config.Dir, "devices", device)
}

// Socket is where programs on a device route their calls.
func (e *Environment) Socket(device string) string {
	return "unix://" + filepath.Join(e.Root(device), "run", "l5.sock")
}

// StartServer starts the server, also one that was killed, and waits until it is ready. The one before must have ended.
func (e *Environment) StartServer(ctx context.Context) error {
	if err := os.MkdirAll(e.ServerDir(), 0o700); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	// A server that is there already would answer in place of ours, and let us believe that it is ready.
	socket := strings.TrimPrefix(e.Target(), "unix://")
	if conn, err := net.Dial("unix", socket); err == nil {
		conn.Close()
		return fmt.Errorf("dev: another server serves %s; end it, or use another folder", e.ServerDir())
	}
	args := append([]string{"server", "--dir", e.ServerDir()}, e.config.ServerFlags...)
	server, err := e.start(filepath.Join(e.ServerDir(), "server.log"), args)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.server = server
	e.mu.Unlock()
	// The socket appears when all is wired: then the server answers.
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("dev: the server is not ready: %w\n%s", ctx.Err(), tail(filepath.Join(e.ServerDir(), "server.log")))
		case <-server.done:
			return fmt.Errorf("dev: the server ended while starting: %s\n%s", server.ProcessState, tail(filepath.Join(e.ServerDir(), "server.log")))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// StartAgent starts the agent of a device, also one that was killed.
func (e *Environment) StartAgent(device Device) error {
	root := e.Root(device.Name)
	if err := os.MkdirAll(filepath.Join(root, "run"), 0o700); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	args := append([]string{"agent", "--device", device.Name, "--addr", device.Addr, "--port-offset", strconv.Itoa(device.PortOffset), "--root", root,
		"--server", e.Target(), "--enrol", "@" + e.enrolment(device.Name)}, e.config.AgentFlags...)
	if err := e.admit(device.Name); err != nil {
		return err
	}
	started, err := e.start(filepath.Join(root, "run", "agent.log"), args)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.agents[device.Name] = started
	e.mu.Unlock()
	return nil
}

// enrolment is the file with the token by which a device's agent gets its own credential.
func (e *Environment) enrolment(device string) string {
	return filepath.Join(e.Root(device), "run", "enrol")
}

// admit makes the token, unless the agent has its credential already.
func (e *Environment) admit(device string) error {
	if agent.Enrolled(e.Root(device), time.Now()) {
		return nil
	}
	server, err := control.Dial(e.Target(), "")
	if err != nil {
		return err
	}
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := server.Tokens.Issue(ctx, connect.NewRequest(&controlpb.IssueTokenRequest{
		Role: string(auth.Enrol), Name: device, Cause: &controlpb.Cause{Actor: "dev", Reason: "the devices of this environment"},
	}))
	if err != nil {
		return fmt.Errorf("dev: a token for %s to enrol with: %w", device, err)
	}
	if err := auth.WriteSecret(e.enrolment(device), []byte(answer.Msg.Token+"\n")); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	return nil
}

func (e *Environment) start(log string, args []string) (*child, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("dev: %w", err)
	}
	defer file.Close() // the child has its own descriptor
	command := exec.Command(e.config.Exe, args...)
	command.Stdout, command.Stderr = file, file
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for dev, which then stops the rest in order
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("dev: start %s: %w", args[0], err)
	}
	c := &child{command, make(chan struct{})}
	go func() {
		defer close(c.done)
		c.Wait()
	}()
	return c, nil
}

// AgentPID is the process of a device's agent, or 0.
func (e *Environment) AgentPID(device string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if agent := e.agents[device]; agent != nil {
		return agent.Process.Pid
	}
	return 0
}

// AgentDone is closed when the agent of a device that was started last has ended; nil if there was none.
func (e *Environment) AgentDone(device string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if agent := e.agents[device]; agent != nil {
		return agent.done
	}
	return nil
}

// ServerPID is the process of the server that was started last, or 0.
func (e *Environment) ServerPID() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		return e.server.Process.Pid
	}
	return 0
}

// ServerDone is closed when the server that was started last has ended.
func (e *Environment) ServerDone() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server.done
}

// Stop ends agents and server with SIGTERM, and with SIGKILL those that outlive the grace period.
func (e *Environment) Stop(grace time.Duration) {
	e.mu.Lock()
	children := make([]*child, 0, len(e.agents))
	for _, agent := range e.agents {
		children = append(children, agent)
	}
	server := e.server
	e.mu.Unlock()
	stopAll(children, grace)
	if server != nil {
		stopAll([]*child{server}, grace)
	}
}

func stopAll(children []*child, grace time.Duration) {
	for _, c := range children {
		c.Process.Signal(syscall.SIGTERM)
	}
	deadline := time.NewTimer(grace)
	defer deadline.Stop()
	for _, c := range children {
		select {
		case <-c.done:
		case <-deadline.C:
			deadline.Reset(0) // the rest has no time left either
			c.Process.Kill()
			<-c.done
		}
	}
}

// tail is the end of a log, for an error message.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	const most = 4 << 10
	if info, err := file.Stat(); err == nil && info.Size() > most {
		file.Seek(-most, io.SeekEnd)
	}
	content, _ := io.ReadAll(file)
	return strings.TrimSpace(string(content))
}

// FastServer are flags with which a server on one machine sees and acts within seconds.
func FastServer(decide bool) []string {
	return []string{"--bucket", "1s", "--tick", "500ms", "--grace", "3s", "--approve", "auto", fmt.Sprintf("--scale=%t", decide)}
}

// FastAgent are the same for agents, which believe what programs say they are: here they are started by hand.
func FastAgent() []string {
	return []string{"--believe", "--poll", "1s", "--rescan", "10s", "--settle", "3s"}
}
