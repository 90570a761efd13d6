package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
)

// declareDevices puts a development environment's site, type and devices into the CMDB. Those that are there stay.
func declareDevices(ctx context.Context, a *control.Client, devices []dev.Device) error {
	var text strings.Builder
	text.WriteString("kind: site\nname: here\ncity: here\n---\nkind: device_type\nname: small\ncores: 1\nmemory_mb: 1024\n")
	for _, device := range devices {
		fmt.Fprintf(&text, "---\nkind: device\nname: %s\naddr: %s\nport_offset: %d\nsite: here\ntype: small\n", device.Name, device.Addr, device.PortOffset)
	}
	_, err := call(ctx, a.Resources.Apply, &controlpb.ApplyRequest{
		Documents: []*controlpb.SourceDocument{{Name: "dev", Text: []byte(text.String())}},
		Cause:     &controlpb.Cause{Actor: "dev", Reason: "the devices of this environment"},
	})
	return err
}

func deviceCommand() *cli.Command {
	act := func(name, short string, do func(*cli.Context, *control.Client, *controlpb.DevicesRequest) error) *cli.Command {
		return change(name, "DEVICE ...", short, "zhiyun device "+name+" web-17 --reason 'new disk'", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
			if !c.Args().Present() {
				return usage("device %s: name at least one device", name)
			}
			return do(c, a, &controlpb.DevicesRequest{Names: c.Args().Slice(), Cause: cause(c)})
		}))
	}
	return &cli.Command{
		Name: "device", Usage: "the life of devices",
		Subcommands: []*cli.Command{
			verb("counts", "", "count devices by state", "zhiyun device counts", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Devices.Counts, &controlpb.CountsRequest{})
				if err != nil {
					return err
				}
				content, err := json.Marshal(answer.States)
				if err != nil {
					return err
				}
				return printDocuments(c, []json.RawMessage{content}, "IDLE:idle", "HELD:held", "IN_SERVICE:in_service", "FAULTY:faulty", "RETIRED:retired")
			})),
			act("fault", "say that devices are out of order", func(c *cli.Context, a *control.Client, q *controlpb.DevicesRequest) error {
				_, err := call(c.Context, a.Devices.MarkFaulty, q)
				return err
			}),
			act("repair", "say that faulty devices are in order again: they become idle. One that served is cleaned first: zhiyun flow run clean device=NAME module=MODULE", func(c *cli.Context, a *control.Client, q *controlpb.DevicesRequest) error {
				_, err := call(c.Context, a.Devices.Repair, q)
				return err
			}),
			act("retire", "take devices out of use for good", func(c *cli.Context, a *control.Client, q *controlpb.DevicesRequest) error {
				_, err := call(c.Context, a.Devices.Retire, q)
				return err
			}),
		},
	}
}
