package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

func moduleFlag() cli.Flag {
	return &cli.StringFlag{Name: "module", Usage: "only executions that are about this `MODULE`"}
}

func freezeCommand() *cli.Command {
	return change("freeze", "", "let what runs of flows end, and start nothing more, but what is exempt",
		"zhiyun freeze --module shop.cart --until 2h --reason 'sale'", []cli.Flag{
			moduleFlag(), reasonFlag(),
			&cli.StringFlag{Name: "until", Usage: "`TIME` at which it ends by itself: 2h from now, or 2026-11-12T08:00:00+08:00", DefaultText: "zhiyun unfreeze"},
		}, with(func(c *cli.Context, a *control.Client) error {
			request := &controlpb.FreezeRequest{Module: c.String("module"), Cause: cause(c)}
			if text := c.String("until"); text != "" {
				at, err := instant(text, time.Now())
				if err != nil {
					return err
				}
				request.Until = timestamppb.New(at)
			}
			answer, err := call(c.Context, a.Freezes.Freeze, request)
			if err != nil {
				return err
			}
			return printDocuments(c, []json.RawMessage{answer.Json}, "MODULE:module", "UNTIL:until", "BY:actor", "SINCE:at", "REASON:reason")
		}))
}

// instant reads a time: RFC 3339, or a duration from now.
func instant(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, usage("time %q: want a duration from now, as 2h, or 2026-11-12T08:00:00+08:00", text)
	}
	return at, nil
}

func unfreezeCommand() *cli.Command {
	return change("unfreeze", "", "let executions go on that a freeze holds", "zhiyun unfreeze --module shop.cart", []cli.Flag{moduleFlag(), reasonFlag()},
		with(func(c *cli.Context, a *control.Client) error {
			answer, err := call(c.Context, a.Freezes.Unfreeze, &controlpb.FreezeRequest{Module: c.String("module"), Cause: cause(c)})
			if err != nil {
				return err
			}
			if !answer.WasPaused {
				fmt.Fprintln(c.App.ErrWriter, "it was not frozen")
			}
			return nil
		}))
}
