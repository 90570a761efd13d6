package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// orderFlags are those of a verb that can be given in bulk.
func orderFlags(more ...cli.Flag) []cli.Flag {
	return slices.Concat(more, []cli.Flag{
		reasonFlag(),
		&cli.BoolFlag{Name: "all", Usage: "to every open execution that the flags below select, in place of one ID"},
		&cli.BoolFlag{Name: "yes", Usage: fmt.Sprintf("with --all: also if more than %d are selected", flow.DefaultBulk)},
	}, filterFlags())
}

// why is the reason in a verb's example.
func why(verb string) string {
	switch verb {
	case flow.OrderRetry, flow.OrderRetryStep:
		return "disk replaced"
	case flow.OrderPause:
		return "sale"
	case flow.OrderResume:
		return "the sale is over"
	case flow.OrderSkip, flow.OrderSettle:
		return "done by hand"
	case flow.OrderApprove, flow.OrderRefuse:
		return "seen the figures"
	}
	return "wrong module"
}

// steerFlow is a verb on an open execution, or on many.
func steerFlow(name, short string) *cli.Command {
	example := "zhiyun flow " + name + " 019ab3f2 --reason '" + why(name) + "'"
	return change(name, "ID", short, example+"\n  $ zhiyun flow "+name+" --all --flow expand --device d7 --dry-run", orderFlags(), with(func(c *cli.Context, a *control.Client) error {
		return giveOrder(c, a, &controlpb.InterveneRequest{Verb: name}, 0)
	}))
}

// giveOrder gives an order to the execution that the first argument names, or to all that the flags select. needs is how many arguments the
// order has beside that.
func giveOrder(c *cli.Context, a *control.Client, order *controlpb.InterveneRequest, needs int) error {
	order.Cause = cause(c)
	if !c.Bool("all") {
		id, err := arg(c, 0, "execution's id")
		if err != nil {
			return err
		}
		order.Id = id
		_, err = call(c.Context, a.Flows.Intervene, order)
		return err
	}
	if c.NArg() > needs {
		return usage("%s: give an ID or --all, not both", c.Command.HelpName)
	}
	filter, err := filterOf(c)
	if err != nil {
		return err
	}
	return bulk(c, a, &controlpb.BulkRequest{Filter: filter, Order: order, Cause: cause(c)})
}

// migrateFlow is the verb that moves an open execution, or many, to another version of their flow.
func migrateFlow() *cli.Command {
	return change("migrate", "ID", "go on as another version of the flow, if what is done is in it",
		"zhiyun flow migrate 019ab3f2 --to 4\n  $ zhiyun flow migrate --all --flow expand --version 3 --dry-run",
		orderFlags(&cli.IntFlag{Name: "to", Usage: "the `VERSION`", DefaultText: "the latest"}), with(func(c *cli.Context, a *control.Client) error {
			return giveOrder(c, a, &controlpb.InterveneRequest{Verb: flow.OrderMigrate, Version: int32(c.Int("to"))}, 0)
		}))
}

// signalFlow is the verb that hands a signal to one execution, or to many.
func signalFlow() *cli.Command {
	return change("signal", "ID NAME", "hand a signal to an execution that waits for it, or will",
		"zhiyun flow signal 019ab3f2 loaded --payload '{\"rows\": 7}'\n  $ zhiyun flow signal --all loaded --flow import --id load-2026-11-22",
		orderFlags(
			&cli.StringFlag{Name: "payload", Usage: "`JSON` that the step returns as its payload, or @FILE"},
			&cli.StringFlag{Name: "id", Usage: "`ID` of the signal: the same again is acknowledged, and changes nothing"},
		), with(func(c *cli.Context, a *control.Client) error {
			at := 1
			if c.Bool("all") {
				at = 0
			}
			name, err := arg(c, at, "signal's name")
			if err != nil {
				return err
			}
			request := &controlpb.SignalRequest{Name: name, SignalId: c.String("id"), Cause: cause(c)}
			if request.Payload, err = jsonFlag(c, "payload"); err != nil {
				return err
			}
			if c.Bool("all") {
				if c.NArg() > 1 {
					return usage("%s: give an ID or --all, not both", c.Command.HelpName)
				}
				filter, err := filterOf(c)
				if err != nil {
					return err
				}
				return bulk(c, a, &controlpb.BulkRequest{Filter: filter, Signal: request, Cause: cause(c)})
			}
			request.Id = c.Args().First()
			_, err = call(c.Context, a.Flows.Signal, request)
			return err
		}))
}

// bulk sends an order in bulk and prints a line as each is done. The exit code is 1 if one failed.
func bulk(c *cli.Context, a *control.Client, request *controlpb.BulkRequest) error {
	if c.Bool("yes") {
		request.Max = flow.MaxBulk
	}
	stream, err := a.Flows.Bulk(c.Context, connect.NewRequest(request))
	if err != nil {
		return plainError(err)
	}
	defer stream.Close()
	counts := map[flow.BulkOutcome]int{}
	n := 0
	for stream.Receive() {
		line, err := decode[flow.BulkLine](stream.Msg().Json)
		if err != nil {
			return err
		}
		n++
		counts[line.Outcome]++
		if c.String("output") == "json" {
			fmt.Fprintln(c.App.Writer, string(stream.Msg().Json))
		} else {
			fmt.Fprintf(c.App.Writer, "%d/%d  %s\n", n, line.Of, bulkText(line))
		}
	}
	if err := plainError(stream.Err()); err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "%d done, %d unchanged, %d failed\n", counts[flow.BulkDone], counts[flow.BulkUnchanged], counts[flow.BulkFailed])
	if counts[flow.BulkFailed] > 0 {
		return fmt.Errorf("%d of %d failed", counts[flow.BulkFailed], n)
	}
	return nil
}

func bulkText(line flow.BulkLine) string {
	parts := []string{line.Execution, line.Flow, standingText(line.Before), string(line.Outcome)}
	if line.Why != "" {
		parts = append(parts, line.Why)
	} else if line.After != line.Before {
		parts[2] += " -> " + standingText(line.After)
	}
	return strings.Join(parts, "  ")
}

func standingText(s flow.Standing) string {
	out := string(s.State)
	if s.Step != "" && !s.State.Ended() {
		out += " at " + s.Step
	}
	if s.Paused {
		out += ", paused"
	}
	return out
}

// printStanding is a rehearsed order in bulk, one line for each execution.
func printStanding(id string, before, after json.RawMessage) (string, bool) {
	was, err := decode[flow.Standing](before)
	if err != nil || was.State == "" {
		return "", false
	}
	is, err := decode[flow.Standing](after)
	if err != nil {
		return "", false
	}
	out := fmt.Sprintf("~ %s  %s -> %s", id, standingText(was), standingText(is))
	if was.Version != is.Version {
		out += fmt.Sprintf("  version %d -> %d", was.Version, is.Version)
	}
	return out, true
}
