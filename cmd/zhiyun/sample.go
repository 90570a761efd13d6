package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/demo"
	"github.com/zhiyun-ops/zhiyun/internal/sample"
)

// isSample says whether this binary was installed as the sample module: its package holds it as bin/sample.
func isSample(args []string) bool { return filepath.Base(args[0]) == "sample" }

func runSample(args []string) int {
	return sample.Main(args[1:], os.Getenv, os.Stdout, os.Stderr)
}

// sampleCommand packs the sample module, and runs its callers.
func sampleCommand() *cli.Command {
	return &cli.Command{
		Name: "sample", Usage: "the sample module of the demo: pack it, or call it",
		Subcommands: []*cli.Command{
			{
				Name: "pack", ArgsUsage: "FILE", Usage: "write this binary as the sample module's package",
				Description: "Example:\n\n  $ zhiyun sample pack sample.tar && zhiyun package push sample 1.0.0 sample.tar",
				Action: func(c *cli.Context) error {
					path, err := arg(c, 0, "file to write")
					if err != nil {
						return err
					}
					exe, err := os.Executable()
					if err != nil {
						return err
					}
					return demo.WritePackage(exe, path)
				},
			},
			{
				Name: "load", Usage: "call a service at a rate that is set by lines \"PHASE RATE\" on stdin; report as JSON when it ends",
				Description: "Example:\n\n  $ (echo steady 100; sleep 10) | zhiyun sample load --l5 unix:///srv/zhiyun/run/l5.sock --caller shop.web --service shop.cart",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "l5", Required: true, Usage: "`TARGET`: the agent's socket, or a server"},
					&cli.StringFlag{Name: "caller", Required: true, Usage: "the calling `MODULE`"},
					&cli.StringFlag{Name: "service", Required: true, Usage: "the `SERVICE` to call"},
					&cli.StringFlag{Name: "path", Value: "/", Usage: "`PATH` to get"},
					&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "of the schedule"},
				},
				Action: func(c *cli.Context) error {
					return demo.Load(c.Context, demo.LoadConfig{
						Target: c.String("l5"), Caller: c.String("caller"), Service: c.String("service"), Path: c.String("path"),
						Seed: c.Uint64("seed"), Control: os.Stdin, Out: c.App.Writer,
					})
				},
			},
		},
	}
}
