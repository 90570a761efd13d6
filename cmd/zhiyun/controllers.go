package main

import (
	"context"
	"encoding/json"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
)

// rolloutColumns are what is shown of a rollout.
var rolloutColumns = []string{"ID:id", "SERVICE:service", "STATE:status.state", "PERCENT:status.percent", "MEMBERS:new.id", "REASON:status.reason.code", "VERDICT:status.verdict.reason.code", "CHANGED:status.changed"}

func grayCommand() *cli.Command {
	return &cli.Command{
		Name: "gray", Usage: "look at rollouts, and steer them",
		Subcommands: []*cli.Command{
			verb("list", "", "list rollouts", "zhiyun gray list --open",
				[]cli.Flag{&cli.BoolFlag{Name: "open", Usage: "only those that have not ended"}, &cli.StringFlag{Name: "service", Usage: "only those of this `SERVICE`"}, limitFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
						return call(c.Context, a.Gray.List, &controlpb.ListRolloutsRequest{Service: c.String("service"), Open: c.Bool("open"), Page: page})
					})
					if err != nil {
						return err
					}
					return printDocuments(c, items, rolloutColumns...)
				})),
			verb("show", "ID", "show a rollout with the numbers of its last verdict", "zhiyun gray show r-17", nil, with(func(c *cli.Context, a *control.Client) error {
				id, err := arg(c, 0, "rollout's id")
				if err != nil {
					return err
				}
				answer, err := call(c.Context, a.Gray.Get, &controlpb.RolloutRequest{Id: id})
				if err != nil {
					return err
				}
				if forPeople(c) {
					return printYAML(c.App.Writer, json.RawMessage(answer.Json))
				}
				return print(c, table{data: json.RawMessage(answer.Json)})
			})),
			steerRollout("abort", "take the new devices back to 0", controlpbconnect.GrayServiceClient.Abort),
			steerRollout("promote", "go to the next stage without its gate", controlpbconnect.GrayServiceClient.Promote),
			steerRollout("pause", "stay at the stage", controlpbconnect.GrayServiceClient.Pause),
			steerRollout("resume", "go on judging", controlpbconnect.GrayServiceClient.Resume),
		},
	}
}

func steerRollout(name, short string, do func(controlpbconnect.GrayServiceClient, context.Context, *connect.Request[controlpb.RolloutRequest]) (*connect.Response[controlpb.JSON], error)) *cli.Command {
	return change(name, "ID", short, "zhiyun gray "+name+" r-17 --reason 'errors in the log'", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
		id, err := arg(c, 0, "rollout's id")
		if err != nil {
			return err
		}
		answer, err := do(a.Gray, c.Context, connect.NewRequest(&controlpb.RolloutRequest{Id: id, Cause: cause(c)}))
		if err != nil {
			return plainError(err)
		}
		return printDocuments(c, []json.RawMessage{answer.Msg.Json}, rolloutColumns...)
	}))
}

func scaleCommand() *cli.Command {
	dry := &cli.BoolFlag{Name: "dry-run", Usage: "print decision, devices and the flow that would run; change nothing"}
	count := &cli.IntFlag{Name: "count", Value: 1, Usage: "`NUMBER` of devices"}
	byHand := func(direction string, do func(controlpbconnect.ScaleServiceClient, context.Context, *connect.Request[controlpb.ScaleRequest]) (*connect.Response[controlpb.JSON], error)) *cli.Command {
		return verb(direction, "MODULE", "order an expansion or a contraction by hand", "zhiyun scale "+direction+" shop.cart --count 2 --dry-run",
			[]cli.Flag{dry, count, reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
				module, err := arg(c, 0, "module")
				if err != nil {
					return err
				}
				answer, err := do(a.Scale, c.Context, connect.NewRequest(&controlpb.ScaleRequest{
					Module: module, Count: int32(c.Int("count")), DryRun: c.Bool("dry-run"), Cause: cause(c),
				}))
				if err != nil {
					return plainError(err)
				}
				if forPeople(c) {
					return printYAML(c.App.Writer, json.RawMessage(answer.Msg.Json))
				}
				return print(c, table{data: json.RawMessage(answer.Msg.Json)})
			}))
	}
	return &cli.Command{
		Name: "scale", Usage: "what the decider wants and why; order by hand",
		Subcommands: []*cli.Command{
			verb("status", "[MODULE]", "show the last decision on each module, with its reason", "zhiyun scale status", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Scale.Status, &controlpb.ScaleRequest{Module: c.Args().First()})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "MODULE:module", "HAVE:decision.have", "WANT:decision.want", "LOAD:decision.load", "CAPACITY:decision.capacity", "REASON:decision.reason.code", "AT:decision.at")
			})),
			verb("orders", "[MODULE]", "list orders", "zhiyun scale orders shop.cart", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Scale.Orders, &controlpb.ScaleRequest{Module: c.Args().First()})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "KEY:key", "MODULE:module", "DIRECTION:direction", "COUNT:count", "STATE:state", "EXECUTION:id", "REASON:reason.code", "CREATED:created", "ENDED:ended")
			})),
			byHand("out", controlpbconnect.ScaleServiceClient.Out),
			byHand("in", controlpbconnect.ScaleServiceClient.In),
		},
	}
}

func driftCommand() *cli.Command {
	finding := func(kind newVerb, name, short string, flags []cli.Flag, do func(c *cli.Context, a *control.Client, q *controlpb.FindingRequest) error) *cli.Command {
		return kind(name, "ID", short, "zhiyun drift "+name+" web-17/config/etc/cart.json", flags, with(func(c *cli.Context, a *control.Client) error {
			id, err := arg(c, 0, "finding's id")
			if err != nil {
				return err
			}
			return do(c, a, &controlpb.FindingRequest{Id: id, Cause: cause(c)})
		}))
	}
	return &cli.Command{
		Name: "drift", Usage: "what differs from what should be",
		Subcommands: []*cli.Command{
			verb("list", "", "list findings that are not closed", "zhiyun drift list --module shop.cart",
				[]cli.Flag{&cli.StringFlag{Name: "device", Usage: "only of this `DEVICE`"}, &cli.StringFlag{Name: "module", Usage: "only of this `MODULE`"},
					&cli.StringFlag{Name: "kind", Usage: "only of this `KIND`: file, config, package, process or port"}, &cli.StringSliceFlag{Name: "state", Usage: "only in this `STATE`; repeatable"}, limitFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
						return call(c.Context, a.Drift.List, &controlpb.ListFindingsRequest{
							Device: c.String("device"), Module: c.String("module"), Kind: c.String("kind"), States: c.StringSlice("state"), Page: page,
						})
					})
					if err != nil {
						return err
					}
					return printDocuments(c, items, "ID:id", "MODULE:module", "STATUS:finding.status", "EXPECTED:finding.expected", "ACTUAL:finding.actual", "SINCE:finding.first_seen")
				})),
			finding(verb, "show", "show a finding", nil, func(c *cli.Context, a *control.Client, q *controlpb.FindingRequest) error {
				answer, err := call(c.Context, a.Drift.Get, q)
				if err != nil {
					return err
				}
				if forPeople(c) {
					return printYAML(c.App.Writer, json.RawMessage(answer.Json))
				}
				return print(c, table{data: json.RawMessage(answer.Json)})
			}),
			finding(change, "repair", "have the agent repair it now", []cli.Flag{reasonFlag()}, func(c *cli.Context, a *control.Client, q *controlpb.FindingRequest) error {
				_, err := call(c.Context, a.Drift.Repair, q)
				return err
			}),
			finding(change, "ignore", "let it stay, until a moment or for good", []cli.Flag{reasonFlag(), &cli.DurationFlag{Name: "for", Usage: "for this `TIME`"}}, func(c *cli.Context, a *control.Client, q *controlpb.FindingRequest) error {
				if d := c.Duration("for"); d > 0 {
					q.Until = timestamppb.New(time.Now().Add(d))
				}
				_, err := call(c.Context, a.Drift.Ignore, q)
				return err
			}),
			finding(change, "reopen", "take it up again: it is repaired anew where repairing had been given up, or was not wanted", []cli.Flag{reasonFlag()},
				func(c *cli.Context, a *control.Client, q *controlpb.FindingRequest) error {
					_, err := call(c.Context, a.Drift.Reopen, q)
					return err
				}),
			verb("compare", "DEVICE PEER", "compare two devices of a module", "zhiyun drift compare web-17 web-3", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Drift.Peers, &controlpb.PeersRequest{Device: c.Args().Get(0), Peer: c.Args().Get(1)})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "KIND:kind", "SUBJECT:subject", "EXPECTED:expected", "ACTUAL:actual")
			})),
		},
	}
}

func l5Command() *cli.Command {
	return &cli.Command{
		Name: "l5", Usage: "who serves what, and why each gets its share",
		Subcommands: []*cli.Command{
			verb("resolve", "[SERVICE]", "list the instances of a service, or the services there are", "zhiyun l5 resolve shop.cart", nil, with(func(c *cli.Context, a *control.Client) error {
				service := c.Args().First()
				if service == "" {
					answer, err := call(c.Context, a.Registry.Services, &controlpb.ServicesRequest{})
					if err != nil {
						return err
					}
					t := table{columns: []string{"SERVICE"}, data: answer.Services}
					for _, name := range answer.Services {
						t.add(name)
					}
					return print(c, t)
				}
				answer, err := call(c.Context, a.Registry.Instances, &controlpb.ServiceRequest{Service: service})
				if err != nil {
					return err
				}
				if len(answer.Items) == 0 {
					return noInstance(service)
				}
				return printDocuments(c, raws(answer.Items), "ADDR:addr", "DEVICE:device", "WEIGHT:weight", "SHARE:share", "STATE:state", "SUSPECT:suspect", "DOWN:down")
			})),
			explainCommand(),
			rulesCommand(),
			callCommand(),
		},
	}
}
