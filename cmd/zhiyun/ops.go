package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
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
			return printDocuments(c, items, "AT:at", "ACTOR:actor", "ACTION:action", "OBJECT:object", "REASON:reason")
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

func tokenCommand() *cli.Command {
	return &cli.Command{
		Name: "token", Usage: "print the token of an operator, of the agent of a device, or of who reads metrics", ArgsUsage: "agent|operator|metrics NAME",
		Description: "Reads the server's key, so it runs where the server does.\n\nExample:\n\n  $ zhiyun token agent web-17 > /etc/zhiyun/token && chmod 600 /etc/zhiyun/token",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "dir", EnvVars: []string{"ZHIYUN_SERVER_DIR"}, Value: filepath.Join(defaultDir(), "server"), Usage: "`FOLDER` of the server"}},
		Action: func(c *cli.Context) error {
			role := auth.Role(c.Args().First())
			if role != auth.Agent && role != auth.Operator && role != auth.Metrics {
				return usage("token %q: want agent, operator or metrics, and a name", role)
			}
			keys, err := auth.Open(filepath.Join(c.String("dir"), "key"))
			if err != nil {
				return err
			}
			token, err := keys.Token(auth.Identity{Role: role, Name: c.Args().Get(1)})
			if err != nil {
				return usage("%v", err)
			}
			fmt.Fprintln(c.App.Writer, token)
			return nil
		},
	}
}

func certsCommand() *cli.Command {
	return &cli.Command{
		Name: "certs", Usage: "make a private CA, and certificates signed by it", ArgsUsage: "FOLDER HOST ...",
		Description: "Makes ca.pem and ca-key.pem in FOLDER if they are not there, and HOST.pem with HOST-key.pem for the hosts given (names or addresses).\n\nExample:\n\n  $ zhiyun certs /etc/zhiyun/tls 10.0.0.5 zhiyun.internal",
		Flags:       []cli.Flag{&cli.DurationFlag{Name: "valid", Value: 365 * 24 * time.Hour, Usage: "how long the certificates are good for"}},
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return usage("certs: give a folder and at least one host name or address")
			}
			files, err := certs.Make(c.Args().First(), c.Args().Tail(), c.Duration("valid"))
			if err != nil {
				return err
			}
			for _, file := range files {
				fmt.Fprintln(c.App.Writer, file)
			}
			return nil
		},
	}
}
