package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
)

func triggerCommand() *cli.Command {
	return &cli.Command{
		Name: "trigger", Usage: "start flows on schedules and by webhooks",
		Subcommands: []*cli.Command{
			verb("list", "", "list the triggers, and when they start their flows next", "zhiyun trigger list", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Triggers.List, &controlpb.TriggerRequest{})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "TRIGGER:trigger", "FLOW:flow", "CRON:schedule.cron", "ZONE:schedule.zone", "NEXT:next", "LAST:state.last", "PAUSED BY:state.paused.actor")
			})),
			verb("show", "NAME", "show a trigger", "zhiyun trigger show nightly", nil, with(func(c *cli.Context, a *control.Client) error {
				name, err := arg(c, 0, "trigger's name")
				if err != nil {
					return err
				}
				answer, err := call(c.Context, a.Triggers.Get, &controlpb.TriggerRequest{Name: name})
				if err != nil {
					return err
				}
				if forPeople(c) {
					return printYAML(c.App.Writer, json.RawMessage(answer.Json))
				}
				return print(c, table{data: json.RawMessage(answer.Json)})
			})),
			verb("history", "NAME", "what became of a trigger's last times and calls, the newest first", "zhiyun trigger history nightly", nil, with(func(c *cli.Context, a *control.Client) error {
				name, err := arg(c, 0, "trigger's name")
				if err != nil {
					return err
				}
				answer, err := call(c.Context, a.Triggers.History, &controlpb.TriggerRequest{Name: name})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "AT:at", "DUE:due", "OUTCOME:outcome", "EXECUTION:execution", "BY:by", "REASON:reason")
			})),
			change("apply", "FILE", "keep a trigger, '-' is stdin; its secret may come from a file of its own", "zhiyun trigger apply nightly.yaml",
				[]cli.Flag{&cli.StringFlag{Name: "secret-file", Usage: "`FILE` with the webhook's secret"}, reasonFlag()}, with(applyTrigger)),
			orderTrigger("pause", "start nothing until it is resumed", controlpbconnect.TriggerServiceClient.Pause),
			orderTrigger("resume", "let a paused trigger go on", controlpbconnect.TriggerServiceClient.Resume),
			change("fire", "NAME", "start a trigger's flow now", "zhiyun trigger fire nightly --reason 'after the fix'",
				[]cli.Flag{&cli.StringFlag{Name: "body", Usage: "of a webhook: `JSON` object, or @FILE, that a call would bring"}, reasonFlag()}, with(fireTrigger)),
			change("delete", "NAME", "remove a trigger with its history; what it has started goes on", "zhiyun trigger delete nightly",
				[]cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
					name, err := arg(c, 0, "trigger's name")
					if err != nil {
						return err
					}
					_, err = call(c.Context, a.Triggers.Delete, &controlpb.TriggerRequest{Name: name, Cause: cause(c)})
					return err
				})),
		},
	}
}

type triggerOrder = func(controlpbconnect.TriggerServiceClient, context.Context, *connect.Request[controlpb.TriggerRequest]) (*connect.Response[controlpb.JSON], error)

func orderTrigger(name, short string, do triggerOrder) *cli.Command {
	return change(name, "NAME", short, "zhiyun trigger "+name+" nightly --reason 'the report is wrong'", []cli.Flag{reasonFlag()},
		with(func(c *cli.Context, a *control.Client) error {
			which, err := arg(c, 0, "trigger's name")
			if err != nil {
				return err
			}
			_, err = do(a.Triggers, c.Context, connect.NewRequest(&controlpb.TriggerRequest{Name: which, Cause: cause(c)}))
			return plainError(err)
		}))
}

func applyTrigger(c *cli.Context, a *control.Client) error {
	text, err := readArg(c)
	if err != nil {
		return err
	}
	if file := c.String("secret-file"); file != "" {
		if text, err = withSecret(text, file); err != nil {
			return err
		}
	}
	answer, err := call(c.Context, a.Triggers.Apply, &controlpb.ApplyTriggerRequest{Document: text, Cause: cause(c)})
	if err != nil {
		return err
	}
	return printDocuments(c, []json.RawMessage{answer.Json}, "TRIGGER:trigger", "FLOW:flow", "NEXT:next")
}

// withSecret puts the secret of a file into a trigger's document.
func withSecret(text []byte, file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("--secret-file: %v", err)
	}
	parsed, err := trigger.ParseWithSecret(text, strings.TrimRight(string(content), "\r\n"))
	if err != nil {
		return nil, usage("%v", err)
	}
	return json.Marshal(parsed)
}

func fireTrigger(c *cli.Context, a *control.Client) error {
	name, err := arg(c, 0, "trigger's name")
	if err != nil {
		return err
	}
	body := []byte(c.String("body"))
	if file, ok := strings.CutPrefix(string(body), "@"); ok {
		if body, err = os.ReadFile(file); err != nil {
			return usage("--body: %v", err)
		}
	}
	answer, err := call(c.Context, a.Triggers.Fire, &controlpb.TriggerRequest{Name: name, Body: body, Cause: cause(c)})
	if err != nil {
		return err
	}
	return printStarted(c, answer.Id)
}
