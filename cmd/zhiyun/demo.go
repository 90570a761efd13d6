package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/demo"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "watch a burst being absorbed with no hands, in about two minutes",
		Description: `Starts a server, 13 devices and two caller processes on this machine, triples the load, kills a device, tampers with a
file, and ends the burst. What happens then is the work of scale, flow, gray and drift. Every expectation is checked:
exit code 1 if one is not met. Nothing is left running, however it ends.

Examples:

  $ zhiyun demo
  $ zhiyun demo --json 2>story.txt >report.json
  $ zhiyun demo --scale=false       # without the decider nothing is expanded, and it fails`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON to stdout, and the story to stderr"},
			&cli.StringFlag{Name: "dir", Usage: "`FOLDER` for data and logs; a short path. It is kept", DefaultText: "a new temporary one"},
			&cli.BoolFlag{Name: "keep", Usage: "keep the temporary folder"},
			&cli.BoolFlag{Name: "scale", Value: true, Usage: "run the decider"},
			oneAddressFlag(),
			&cli.DurationFlag{Name: "hang", Usage: "`TIME` after which a chapter in which nothing more happens has failed", DefaultText: "4m"},
		},
		Action: guarded(func(c *cli.Context) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			config := demo.Config{Exe: exe, Keep: c.Bool("keep"), Out: c.App.Writer, Decide: c.Bool("scale"), OneAddress: c.Bool("one-address"), Hang: c.Duration("hang")}
			if c.String("dir") != "" {
				if config.Dir, err = filepath.Abs(c.String("dir")); err != nil {
					return err
				}
			}
			if c.Bool("json") {
				config.Out = c.App.ErrWriter
			}
			report, err := demo.Run(c.Context, config)
			if c.Bool("json") {
				encoder := json.NewEncoder(c.App.Writer)
				encoder.SetIndent("", "  ")
				if err := encoder.Encode(report); err != nil {
					return err
				}
			} else {
				report.Print(c.App.Writer)
			}
			return err
		}),
	}
}
