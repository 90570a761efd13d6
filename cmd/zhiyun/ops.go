package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

func pauseCommand() *cli.Command {
	return change("pause", "[MODULE]", "the stop button: no automatic action, on a module or on anything", "zhiyun pause shop.cart --reason 'incident 42'",
		[]cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
			answer, err := call(c.Context, a.Ops.Pause, &controlpb.PauseRequest{Module: c.Args().First(), Cause: cause(c)})
			if err != nil {
				return err
			}
			return printDocuments(c, []json.RawMessage{answer.Json}, "MODULE:module", "BY:actor", "SINCE:at", "REASON:reason")
		}))
}

func resumeCommand() *cli.Command {
	return change("resume", "[MODULE]", "let automation go on", "zhiyun resume shop.cart", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
		answer, err := call(c.Context, a.Ops.Resume, &controlpb.PauseRequest{Module: c.Args().First(), Cause: cause(c)})
		if err != nil {
			return err
		}
		if !answer.WasPaused {
			fmt.Fprintln(c.App.ErrWriter, "it was not paused")
		}
		return nil
	}))
}

func auditCommand() *cli.Command {
	return verb("audit", "", "who did what, when and why, the newest first", "zhiyun audit --since 1h --actor scale",
		[]cli.Flag{
			&cli.StringFlag{Name: "actor", Usage: "only by this `ACTOR`: scale, gray, drift, flow, operator:NAME"},
			&cli.StringFlag{Name: "object", Usage: "only on this `OBJECT`, as module/shop.cart"},
			&cli.DurationFlag{Name: "since", Usage: "only of the last `TIME`"}, limitFlag(),
		}, with(func(c *cli.Context, a *control.Client) error {
			request := &controlpb.AuditRequest{Actor: c.String("actor"), Object: c.String("object")}
			if d := c.Duration("since"); d > 0 {
				request.Since = timestamppb.New(time.Now().Add(-d))
			}
			items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
				request.Page = page
				return call(c.Context, a.Ops.Audit, request)
			})
			if err != nil {
				return err
			}
			return printDocuments(c, items, "AT:at", "ACTOR:actor", "PROVED:proved", "ACTION:action", "OBJECT:object", "REASON:reason")
		}))
}

func doctorCommand() *cli.Command {
	return verb("doctor", "", "look at each part of the server, and say what is wrong and how to mend it", "zhiyun doctor", nil, with(func(c *cli.Context, a *control.Client) error {
		answer, err := call(c.Context, a.Ops.Doctor, &controlpb.InfoRequest{})
		if err != nil {
			return err
		}
		if err := printDocuments(c, raws(answer.Items), "CHECK:name", "OK:ok", "FOUND:text"); err != nil {
			return err
		}
		var ill []string
		for _, item := range answer.Items {
			check, err := decode[control.Examined](item)
			if err != nil {
				return err
			}
			if !check.OK {
				ill = append(ill, check.Name)
			}
		}
		if len(ill) > 0 {
			return fmt.Errorf("not in order: %s", strings.Join(ill, ", "))
		}
		return nil
	}))
}
