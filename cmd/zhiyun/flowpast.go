package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

func showTiming(c *cli.Context, a *control.Client, id string) error {
	answer, err := call(c.Context, a.Flows.Timing, &controlpb.ExecutionRequest{Id: id})
	if err != nil {
		return err
	}
	timing, err := decode[flow.Timing](answer.Json)
	if err != nil {
		return err
	}
	t := table{columns: []string{"STEP", "SHARE", "WALL", "RAN", "WAITED", "ATTEMPTS", "WORK", "UNDO"}, data: timing}
	for _, s := range timing.Steps {
		t.add(s.Step, fmt.Sprintf("%.1f%%", s.Share*100), s.Wall, s.Ran, s.Waited, s.Attempts, s.Work, s.Undo)
	}
	if forPeople(c) {
		fmt.Fprintf(c.App.Writer, "%s  %s  %s\n", timing.Execution, timing.State, text(timing.Wall))
	}
	return print(c, t)
}

func flowLogFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until the execution has ended"},
		itemFlag(),
		&cli.IntFlag{Name: "attempt", Usage: "`N`, from 1: only that attempt"},
	}
}

// flowLogs prints logs; where more than one attempt speaks, each line says which.
func flowLogs(c *cli.Context, a *control.Client) error {
	id, err := arg(c, 0, "execution's id")
	if err != nil {
		return err
	}
	request := &controlpb.LogsRequest{Id: id, Step: c.Args().Get(1), Attempt: int32(c.Int("attempt")), Follow: c.Bool("follow")}
	if c.IsSet("item") {
		item := int32(c.Int("item"))
		request.Item = &item
	}
	stream, err := a.Flows.Logs(c.Context, connect.NewRequest(request))
	if err != nil {
		return plainError(err)
	}
	defer stream.Close()
	for stream.Receive() {
		piece, err := decode[flow.LogPiece](stream.Msg().Json)
		if err != nil {
			return err
		}
		if c.String("output") == "json" {
			fmt.Fprintln(c.App.Writer, string(stream.Msg().Json))
		} else {
			printPiece(c.App.Writer, piece)
		}
	}
	return plainError(stream.Err())
}

// printPiece prints each line of a log behind the attempt that wrote it.
func printPiece(w io.Writer, p flow.LogPiece) {
	who := p.Step
	if p.Item > 0 {
		who += fmt.Sprintf("[%d]", p.Item)
	}
	if p.Kind != "" {
		who += " " + p.Kind
	}
	if p.Attempt > 1 {
		who += fmt.Sprintf("#%d", p.Attempt)
	}
	for line := range strings.Lines(p.Text) {
		fmt.Fprintf(w, "%s | %s\n", who, strings.TrimRight(line, "\n"))
	}
}

func exportFlow(c *cli.Context, a *control.Client) error {
	id, err := arg(c, 0, "execution's id")
	if err != nil {
		return err
	}
	stream, err := a.Flows.Export(c.Context, connect.NewRequest(&controlpb.ExecutionRequest{Id: id}))
	if err != nil {
		return plainError(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if _, err := c.App.Writer.Write(stream.Msg().Json); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return plainError(err)
	}
	fmt.Fprintln(c.App.Writer)
	return nil
}

func pruneFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "flow", Usage: "only executions of this `FLOW`"},
		&cli.DurationFlag{Name: "older-than", Usage: "those that ended longer ago than this `TIME`; default: what the server keeps"},
		reasonFlag(),
	}
}

func pruneFlows(c *cli.Context, a *control.Client) error {
	request := &controlpb.PruneRequest{Flow: c.String("flow"), Cause: cause(c)}
	if keep := c.Duration("older-than"); c.IsSet("older-than") {
		if keep <= 0 {
			return usage("--older-than %s: want a positive time", keep)
		}
		request.Keep = durationpb.New(keep)
	}
	stream, err := a.Flows.Prune(c.Context, connect.NewRequest(request))
	if err != nil {
		return plainError(err)
	}
	defer stream.Close()
	t := table{columns: []string{"ID", "FLOW", "STATE", "ENDED"}}
	removed := []flow.Pruned{}
	for stream.Receive() {
		one, err := decode[flow.Pruned](stream.Msg().Json)
		if err != nil {
			return err
		}
		removed = append(removed, one)
		t.add(one.Execution, one.Flow, one.State, one.Ended.Truncate(time.Second))
	}
	if err := stream.Err(); err != nil {
		return plainError(err)
	}
	t.data = removed
	return print(c, t)
}
