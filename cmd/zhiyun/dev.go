package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
	"github.com/zhiyun-ops/zhiyun/internal/guard"
)

// guardedEnv marks a process that already runs below a guard.
const guardedEnv = "ZHIYUN_GUARDED"

// guarded runs the verb below a guard: this process only waits. However it ends, kill -9 included, the guard ends what
// the verb has started.
func guarded(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		if os.Getenv(guardedEnv) != "" {
			return action(c)
		}
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		if err := os.Setenv(guardedEnv, "1"); err != nil {
			return err
		}
		// Signals are passed on: the verb below ends in its own order.
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
		g, err := guard.Start(context.WithoutCancel(c.Context), exe, os.Args[1:]...)
		if err != nil {
			return err
		}
		go func() { // ends with the process
			for range signals {
				g.Signal(syscall.SIGTERM)
			}
		}()
		if err := g.Wait(); err != nil {
			var code interface{ ExitCode() int }
			if errors.As(err, &code) {
				return cli.Exit("", code.ExitCode())
			}
			return cli.Exit("", exitFailed)
		}
		return nil
	}
}

// oneAddressFlag has devices share 127.0.0.1.
func oneAddressFlag() cli.Flag {
	return &cli.BoolFlag{
		Name: "one-address", Value: dev.OneAddress(), DefaultText: "false on Linux, true elsewhere",
		Usage: "devices share 127.0.0.1, with ports of their own: {addr}:PORT in a manifest is PORT plus the device's offset",
	}
}

func devCommand() *cli.Command {
	return &cli.Command{
		Name:  "dev",
		Usage: "run a whole Zhiyun on this machine: a server and some devices",
		Description: `Each device is an agent process with its own loopback address, or ports of its own, and its own root folder, known to the CMDB as idle. The verbs find
this server by themselves. A server that is killed is started again. Several can run on a machine, each in a folder (--dir) and with addresses of its own. Ctrl-C ends all of it; what the record holds is there again the next time.

Example:

  $ zhiyun dev --devices 8
  $ zhiyun get devices            # in another terminal`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.IntFlag{Name: "devices", Value: 4, Usage: "`NUMBER` of devices, 1 to 100"},
			&cli.StringFlag{Name: "dir", Value: filepath.Join(defaultDir(), "dev"), Usage: "`FOLDER` for all data; a short path, since sockets stand below it"},
			&cli.BoolFlag{Name: "scale", Value: true, Usage: "run the decider"},
			oneAddressFlag(),
		},
		Action: guarded(func(c *cli.Context) error {
			if err := fromFile(c); err != nil {
				return err
			}
			n := c.Int("devices")
			if n < 1 || n > 100 {
				return usage("--devices %d: want 1 to 100", n)
			}
			dir, err := filepath.Abs(c.String("dir"))
			if err != nil {
				return err
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			config := dev.Config{Dir: dir, Exe: exe, ServerFlags: dev.FastServer(c.Bool("scale")), AgentFlags: dev.FastAgent()}
			network := &dev.Network{}
			if !c.Bool("one-address") {
				if network, err = dev.ClaimFor(dir); err != nil {
					return err
				}
				defer network.Close()
			}
			if config.Devices, err = dev.Places(network.Number, n, c.Bool("one-address")); err != nil {
				return err
			}
			for i := range config.Devices {
				config.Devices[i].Name = fmt.Sprintf("d%02d", i+1)
			}
			return runDev(c, config)
		}),
	}
}

func runDev(c *cli.Context, config dev.Config) error {
	fmt.Fprintf(c.App.Writer, "starting a server and %d devices in %s, at %s and up\n", len(config.Devices), config.Dir, config.Devices[0].Addr)
	starting, cancel := context.WithTimeout(c.Context, time.Minute)
	defer cancel()
	environment, err := dev.Start(starting, config)
	if err != nil {
		return err
	}
	defer environment.Stop(10 * time.Second)
	server, err := control.Dial(environment.Target(), "")
	if err != nil {
		return err
	}
	if err := declareDevices(starting, server, config.Devices); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "ready: %s\nlogs: %s, %s\nCtrl-C ends it\n", environment.Target(),
		filepath.Join(environment.ServerDir(), "server.log"), filepath.Join(environment.Root("d01"), "run", "agent.log"))
	return keepServer(c, environment)
}

// keepServer starts the server again whenever it has ended, until the person ends all of it, or the server will not stay.
func keepServer(c *cli.Context, environment *dev.Environment) error {
	log := filepath.Join(environment.ServerDir(), "server.log")
	var ends restarts
	for began := time.Now(); ; {
		select {
		case <-c.Context.Done():
			fmt.Fprintln(c.App.Writer, "stopping")
			return nil
		case <-environment.ServerDone():
		}
		wait, again := ends.next(time.Since(began))
		if !again {
			return fmt.Errorf("the server has ended %d times, each soon after its start, and is not started again; its log says why: %s. What it has recorded stays in %s for the next 'zhiyun dev'",
				mostSoon, log, environment.ServerDir())
		}
		fmt.Fprintf(c.App.Writer, "the server has ended, its log says why: %s; starting it again", log)
		if wait > 0 {
			fmt.Fprintf(c.App.Writer, " in %s", wait)
		}
		fmt.Fprintln(c.App.Writer)
		select {
		case <-c.Context.Done():
			fmt.Fprintln(c.App.Writer, "stopping")
			return nil
		case <-time.After(wait):
		}
		began = time.Now()
		starting, cancel := context.WithTimeout(c.Context, time.Minute)
		err := environment.StartServer(starting)
		cancel()
		if err != nil && c.Context.Err() == nil {
			fmt.Fprintln(c.App.ErrWriter, err)
		}
	}
}
