package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/bench"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", ArgsUsage: strings.Join(bench.Packages(), "|") + "|all ...", Usage: "measure the packages on this machine, each beside its floor",
		Description: `A row each: our figure, the floor (what the same work costs with nothing of ours in the way), and their ratio. Absolute
figures are this machine's; ratios travel. It needs about a minute, no server, and leaves no file behind.

Examples:

  $ zhiyun bench l5 flow
  $ zhiyun bench flow --store postgres --dsn postgres://localhost/bench
  $ zhiyun bench all --json`,
		Flags: []cli.Flag{
			outputFlag(),
			&cli.BoolFlag{Name: "json", Usage: "the same as -o json"},
			&cli.DurationFlag{Name: "span", Value: 300 * time.Millisecond, Usage: "`TIME` to measure each figure for"},
			&cli.Float64Flag{Name: "part", Value: 1, Usage: "`SHARE` of the full scale (161,679 instances and devices) to fill tables with, up to 1"},
			&cli.BoolFlag{Name: "long", Usage: "measure at full scale what takes minutes: 10,000 streams"},
			&cli.StringFlag{Name: "store", Value: "sqlite", Usage: "`KIND` of store that flows are measured on: sqlite or postgres"},
			&cli.StringFlag{Name: "dsn", Usage: "PostgreSQL server for --store postgres, as a `URL`; what is made there is dropped", EnvVars: []string{"ZHIYUN_BENCH_DSN"}},
			&cli.StringFlag{Name: "dir", Usage: "`FOLDER` below which files are written: its disk is measured", DefaultText: "the temporary folder"},
		},
		Action: func(c *cli.Context) error {
			config := bench.Config{Span: c.Duration("span"), Part: c.Float64("part"), Dir: c.String("dir"), Long: c.Bool("long")}
			switch store, dsn := c.String("store"), c.String("dsn"); {
			case store == "postgres" && !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://"):
				return usage("bench: --store postgres needs --dsn postgres://USER@HOST/DATABASE, a server that may be written to")
			case store == "postgres":
				config.DSN = dsn
			case store != "sqlite":
				return usage("bench: --store %q: there are sqlite and postgres", store)
			}
			for _, name := range c.Args().Slice() {
				if name == "all" {
					config.Packages = bench.Packages()
					break
				}
				if !slices.Contains(bench.Packages(), name) {
					return usage("bench: nothing is called %q; there are %s and all", name, strings.Join(bench.Packages(), ", "))
				}
				config.Packages = append(config.Packages, name)
			}
			if len(config.Packages) == 0 {
				return usage("bench: name what to measure: %s or all", strings.Join(bench.Packages(), ", "))
			}
			began := time.Now()
			config.Progress = func(what string) {
				if time.Since(began) > time.Second {
					fmt.Fprintf(c.App.ErrWriter, "%5.1f s  %s\n", time.Since(began).Seconds(), what)
				}
			}
			if c.Bool("json") {
				if err := c.Set("output", "json"); err != nil {
					return err
				}
			}
			rows, err := bench.Run(c.Context, config)
			if err != nil {
				return err
			}
			t := table{columns: []string{"NAME", "VALUE", "UNIT", "FLOOR", "RATIO", "FLOOR IS"}, data: rows}
			for _, row := range rows {
				t.add(row.Name, figure(row.Value), row.Unit, figure(row.Floor), figure(row.Ratio), row.Against)
			}
			return print(c, t)
		},
	}
}

// figure is a number with three significant digits, for people.
func figure(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
