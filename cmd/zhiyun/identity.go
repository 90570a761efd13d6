package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/certs"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// tokenCommand makes, lists and revokes what operators, devices and others prove themselves by.
func tokenCommand() *cli.Command {
	month := 30 * 24 * time.Hour
	return &cli.Command{
		Name: "token", Usage: "credentials: how operators, devices and others prove who they are",
		Subcommands: []*cli.Command{
			issueVerb(auth.Enrol, "DEVICE", "make a token with which a device gets its own credential, once", "umask 077; zhiyun token enrol web-17 --ttl 1h > web-17.enrol", time.Hour),
			issueVerb(auth.Operator, "NAME", "make a token that may do everything", "umask 077; zhiyun token operator li --ttl 8h > ~/.zhiyun.token", month),
			issueVerb(auth.Viewer, "NAME", "make a token that may read, and change nothing", "umask 077; zhiyun token viewer board > /etc/zhiyun/token", month),
			issueVerb(auth.Metrics, "NAME", "make a token that may read /metrics, and nothing else", "zhiyun token metrics prometheus > /etc/prometheus/zhiyun.token", month),
			issueVerb(auth.Agent, "DEVICE", "make a token for the agent of a device; better, enrol the device", "umask 077; zhiyun token agent web-17 > /etc/zhiyun/token", month),
			verb("list", "", "what is in force: tokens and the certificates of devices", "zhiyun token list --role agent", []cli.Flag{
				&cli.StringFlag{Name: "role", Usage: "only of this `ROLE`"}, &cli.StringFlag{Name: "name", Usage: "only of this `NAME`"},
				&cli.BoolFlag{Name: "all", Usage: "those that have ended in the last 30 days, too"}, limitFlag(),
			}, with(func(c *cli.Context, a *control.Client) error {
				items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
					return call(c.Context, a.Tokens.List, &controlpb.ListTokensRequest{Role: c.String("role"), Name: c.String("name"), All: c.Bool("all"), Page: page})
				})
				if err != nil {
					return err
				}
				return printCredentials(c, items)
			})),
			change("revoke", "[ID]", "end a credential at once, or all of an identity", "zhiyun token revoke --role agent --name web-17 --reason 'disk was sold'", []cli.Flag{
				&cli.StringFlag{Name: "role", Usage: "with --name, in place of ID: the `ROLE`"}, &cli.StringFlag{Name: "name", Usage: "and `NAME` of whose credentials all end"}, reasonFlag(),
			}, with(func(c *cli.Context, a *control.Client) error {
				id := c.Args().First()
				if (id == "") == (c.String("role") == "" || c.String("name") == "") {
					return usage("token revoke: give an ID, or --role and --name")
				}
				answer, err := call(c.Context, a.Tokens.Revoke, &controlpb.RevokeTokenRequest{Id: id, Role: c.String("role"), Name: c.String("name"), Cause: cause(c)})
				if err != nil {
					return err
				}
				return printCredentials(c, raws(answer.Items))
			})),
		},
	}
}

// issueVerb makes a token of one role, and prints it: the only time that it is seen.
func issueVerb(role auth.Role, args, short, example string, ttl time.Duration) *cli.Command {
	return verb(string(role), args, short, example, []cli.Flag{
		&cli.DurationFlag{Name: "ttl", Value: ttl, Usage: "`TIME` until it ends"}, reasonFlag(),
	}, with(func(c *cli.Context, a *control.Client) error {
		name, err := arg(c, 0, "name")
		if err != nil {
			return err
		}
		answer, err := call(c.Context, a.Tokens.Issue, &controlpb.IssueTokenRequest{Role: string(role), Name: name, Ttl: durationpb.New(c.Duration("ttl")), Cause: cause(c)})
		if err != nil {
			return err
		}
		made, err := decode[center.Credential](answer.Credential)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.ErrWriter, "token %s of %s:%s, until %s; keep it in a file of mode 600\n", made.ID, made.Role, made.Name, made.Expires.Local().Format(time.DateTime))
		fmt.Fprintln(c.App.Writer, answer.Token)
		return nil
	}))
}

func printCredentials(c *cli.Context, items []json.RawMessage) error {
	return printDocuments(c, items, "ID:id", "ROLE:role", "NAME:name", "FORM:form", "CREATED:created", "EXPIRES:expires", "BY:by", "REVOKED:revoked.at")
}

// certsCommand makes and rotates a private CA.
func certsCommand() *cli.Command {
	return &cli.Command{
		Name: "certs", Usage: "a private CA for servers and devices",
		Subcommands: []*cli.Command{
			{
				Name: "make", Usage: "make a CA, and the certificate of a server signed by it", ArgsUsage: "FOLDER HOST ...",
				Description: "Makes ca.pem and ca-key.pem in FOLDER if they are not there, and HOST.pem with HOST-key.pem for the hosts given (names or addresses).\n\nExample:\n\n  $ zhiyun certs make /etc/zhiyun/tls 10.0.0.5 zhiyun.internal",
				Flags:       []cli.Flag{&cli.DurationFlag{Name: "valid", Value: 365 * 24 * time.Hour, Usage: "how long the certificate is good for"}},
				Action: func(c *cli.Context) error {
					if c.NArg() < 2 {
						return usage("certs make: give a folder and at least one host name or address")
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
			},
			folderVerb("rotate", "make a new CA that signs from now on; the old one stays trusted", "the new CA signs; when every agent has renewed (zhiyun token list), make the servers' certificates anew and retire the old CA", certs.Rotate),
			folderVerb("retire", "drop the old CAs of the folder; what they have signed is void", "one CA is left", certs.Retire),
			{
				Name: "show", Usage: "say what the folder holds, and when it ends", ArgsUsage: "FOLDER", Description: "Example:\n\n  $ zhiyun certs show /etc/zhiyun/tls",
				Flags: []cli.Flag{outputFlag()},
				Action: func(c *cli.Context) error {
					dir, err := arg(c, 0, "folder")
					if err != nil {
						return err
					}
					return showCerts(c, dir)
				},
			},
		},
	}
}

func folderVerb(name, short, done string, do func(dir string) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: short, ArgsUsage: "FOLDER", Description: "Example:\n\n  $ zhiyun certs " + name + " /etc/zhiyun/tls",
		Action: func(c *cli.Context) error {
			dir, err := arg(c, 0, "folder")
			if err != nil {
				return err
			}
			if err := do(dir); err != nil {
				return err
			}
			fmt.Fprintln(c.App.ErrWriter, done)
			return nil
		},
	}
}

// shown is one certificate of a folder.
type shown struct {
	File    string    `json:"file"`
	Subject string    `json:"subject"`
	CA      bool      `json:"ca"`
	Expires time.Time `json:"expires"`
	Pin     string    `json:"pin"`
}

func showCerts(c *cli.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return err
	}
	t := table{columns: []string{"FILE", "SUBJECT", "CA", "EXPIRES", "PIN"}}
	all := []shown{}
	for _, file := range files {
		bundle, err := certs.ReadBundle(file)
		if err != nil {
			continue // a key
		}
		for _, one := range bundle {
			s := shown{filepath.Base(file), one.Subject.CommonName, one.IsCA, one.NotAfter, certs.Pin(one)}
			all = append(all, s)
			t.add(s.File, s.Subject, s.CA, s.Expires.Format(time.RFC3339), s.Pin)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%s holds no certificate; make one: zhiyun certs make %s HOST", dir, dir)
	}
	t.data = all
	return print(c, t)
}
