package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// filterFlags say which executions.
func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "flow", Usage: "only those of this `FLOW`"},
		&cli.StringSliceFlag{Name: "state", Usage: "only those in this `STATE`: running, compensating, stuck, done, failed or cancelled; may be given more than once"},
		&cli.StringSliceFlag{Name: "param", Usage: "only those started with `NAME=VALUE`; may be given more than once"},
		&cli.StringFlag{Name: "module", Usage: "only those of this `MODULE`: the parameter module"},
		&cli.StringFlag{Name: "device", Usage: "only those of which a step ran on this `DEVICE`"},
		&cli.StringFlag{Name: "at", Usage: "only those that are at this `STEP`"},
		&cli.StringFlag{Name: "by", Usage: "only those that this `ACTOR` started"},
		&cli.StringFlag{Name: "key", Usage: "only that which was started with this `KEY`"},
		&cli.StringFlag{Name: "parent", Usage: "only sub-flows of this execution's `ID`"},
		&cli.StringSliceFlag{Name: "waits", Usage: "only those that wait for `WHAT`: person, signal, timer, lease or runnable"},
		&cli.StringFlag{Name: "text", Usage: "only those with this `TEXT` in their error, or in what they wait for"},
		&cli.StringFlag{Name: "since", Usage: "only those started since this `TIME`, or so long ago: 2h, 2026-11-22, 2026-11-22T18:00:00+08:00"},
		&cli.StringFlag{Name: "until", Usage: "only those started before this `TIME`, or longer ago"},
		&cli.IntFlag{Name: "version", Usage: "only those of this `VERSION` of the flow"},
	}
}

// filterOf reads filterFlags.
func filterOf(c *cli.Context) (*controlpb.ExecutionFilter, error) {
	f := &controlpb.ExecutionFilter{
		Flow: c.String("flow"), Version: int32(c.Int("version")), States: c.StringSlice("state"), Wakes: c.StringSlice("waits"), Step: c.String("at"),
		Actor: c.String("by"), Key: c.String("key"), Parent: c.String("parent"), Device: c.String("device"), Text: c.String("text"),
		Params: map[string]string{},
	}
	for _, one := range c.StringSlice("param") {
		name, value, ok := strings.Cut(one, "=")
		if !ok || name == "" {
			return nil, usage("--param %q: want NAME=VALUE", one)
		}
		f.Params[name] = value
	}
	if module := c.String("module"); module != "" {
		f.Params["module"] = module
	}
	var err error
	if f.Since, err = startedAt(c, "since"); err != nil {
		return nil, err
	}
	f.Until, err = startedAt(c, "until")
	return f, err
}

// startedAt reads a flag that is a time, or how long ago one was.
func startedAt(c *cli.Context, name string) (*timestamppb.Timestamp, error) {
	text := c.String(name)
	if text == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return timestamppb.New(time.Now().Add(-ago)), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return timestamppb.New(at), nil
		}
	}
	return nil, usage("--%s %q: want a time, as 2026-11-22T18:00:00Z or 2026-11-22, or how long ago, as 2h", name, text)
}

// stepWaits says what the first of a step's tasks that waits waits for.
func stepWaits(s flow.StepStatus) string {
	for i := range s.Tasks {
		switch t := &s.Tasks[i]; {
		case t.For != "":
			return t.For
		case !t.RetryAt.IsZero():
			return "another attempt at " + text(t.RetryAt)
		case t.State == flow.TaskHeld && t.Error != nil:
			return "a person: " + t.Error.Error()
		}
	}
	return ""
}

// waitsFor says what an execution waits for, since when, and until when at most.
func waitsFor(x flow.Execution) string {
	what := x.Wake.For
	if what == "" {
		what = "a timer"
	}
	if !x.Updated.IsZero() {
		what += ", since " + text(x.Updated)
	}
	if !x.Wake.At.IsZero() && x.State != flow.Stuck { // what is stuck stays so whatever happens then
		what += fmt.Sprintf(", until %s", text(x.Wake.At))
	}
	return what
}
