package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// document is a value that the client has decoded, for printing.
func document(value any) []json.RawMessage {
	content, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return []json.RawMessage{content}
}

func packageCommand() *cli.Command {
	columns := []string{"NAME:name", "VERSION:version", "DIGEST:digest", "SIZE:size", "PUSHED:pushed_at", "BY:pushed_by"}
	return &cli.Command{
		Name: "package", Usage: "the package store",
		Subcommands: []*cli.Command{
			change("push", "NAME VERSION FILE", "keep a tar or tar.gz as a package", "zhiyun package push shop-cart 1.4.0 cart.tar.gz", []cli.Flag{reasonFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					path, err := arg(c, 2, "file")
					if err != nil {
						return err
					}
					file, err := os.Open(path)
					if err != nil {
						return usage("%v", err)
					}
					defer file.Close()
					pushed, err := a.PushPackage(c.Context, c.Args().Get(0), c.Args().Get(1), file, cause(c))
					if err != nil {
						return plainError(err)
					}
					pushed.Files = nil
					return printDocuments(c, document(pushed), columns...)
				})),
			verb("list", "[NAME]", "list packages", "zhiyun package list shop-cart", []cli.Flag{limitFlag()}, with(func(c *cli.Context, a *control.Client) error {
				items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
					return call(c.Context, a.Packages.List, &controlpb.PackageRequest{Name: c.Args().First(), Page: page})
				})
				if err != nil {
					return err
				}
				return printDocuments(c, items, columns...)
			})),
		},
	}
}

func fileCommand() *cli.Command {
	columns := []string{"NAMESPACE:namespace", "PATH:path", "MODE:mode", "SIZE:size", "DIGEST:digest", "PUSHED:pushed_at"}
	return &cli.Command{
		Name: "file", Usage: "the central file source",
		Subcommands: []*cli.Command{
			change("push", "NAMESPACE PATH FILE", "keep a file that devices mirror", "zhiyun file push shop motd.txt ./motd.txt",
				[]cli.Flag{reasonFlag(), &cli.StringFlag{Name: "mode", Value: "0644", Usage: "octal `PERMISSIONS`"}},
				with(func(c *cli.Context, a *control.Client) error {
					path, err := arg(c, 2, "file")
					if err != nil {
						return err
					}
					mode, err := strconv.ParseUint(c.String("mode"), 8, 12)
					if err != nil {
						return usage("--mode %q: want octal permissions, as 0644", c.String("mode"))
					}
					file, err := os.Open(path)
					if err != nil {
						return usage("%v", err)
					}
					defer file.Close()
					pushed, err := a.PushFile(c.Context, c.Args().Get(0), c.Args().Get(1), uint32(mode), file, cause(c))
					if err != nil {
						return plainError(err)
					}
					return printDocuments(c, document(pushed), columns...)
				})),
			verb("list", "NAMESPACE", "list files", "zhiyun file list shop", []cli.Flag{limitFlag()}, with(func(c *cli.Context, a *control.Client) error {
				items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
					return call(c.Context, a.Files.List, &controlpb.FileRequest{Namespace: c.Args().First(), Page: page})
				})
				if err != nil {
					return err
				}
				return printDocuments(c, items, columns...)
			})),
		},
	}
}

// paramValue is the value that a parameter is set to. A secret is not taken from the command line: every user of the
// machine could read it there.
func paramValue(stdin io.Reader, given string, secret bool) ([]byte, error) {
	switch {
	case given == "-":
		value, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
		return bytes.TrimRight(value, "\r\n"), err
	case secret:
		return nil, usage("config set --secret: give - for the value, and the value on standard input: others can read a command line")
	}
	return []byte(given), nil
}

func configCommand() *cli.Command {
	level := []cli.Flag{
		&cli.StringFlag{Name: "level", Value: "module", Usage: "`LEVEL`: business, module, site or device; the nearer one overrides"},
		&cli.StringFlag{Name: "of", Usage: "`NAME` of that business, module, site or device"},
	}
	return &cli.Command{
		Name: "config", Usage: "the config center: templates and parameters",
		Subcommands: []*cli.Command{
			change("set", "KEY VALUE|-", "set a parameter; - reads the value from standard input, as a secret should be", "zhiyun config set cart.workers 8 --level module --of shop.cart",
				append([]cli.Flag{&cli.BoolFlag{Name: "secret", Usage: "never show the value again"}, reasonFlag()}, level...),
				with(func(c *cli.Context, a *control.Client) error {
					value, err := paramValue(c.App.Reader, c.Args().Get(1), c.Bool("secret"))
					if err != nil {
						return err
					}
					if !json.Valid(value) {
						value, _ = json.Marshal(string(value))
					}
					answer, err := call(c.Context, a.Configs.Set, &controlpb.ParamRequest{
						Level: c.String("level"), Owner: c.String("of"), Key: c.Args().First(), Value: value, Secret: c.Bool("secret"), Cause: cause(c),
					})
					if err != nil {
						return err
					}
					return printDocuments(c, []json.RawMessage{answer.Json}, "LEVEL:level", "OF:owner", "KEY:key", "VALUE:value")
				})),
			verb("get", "[KEY]", "show the parameters of a level, secrets masked", "zhiyun config get --level module --of shop.cart", level,
				with(func(c *cli.Context, a *control.Client) error {
					items, err := pages(0, func(page *controlpb.Page) (*controlpb.Listing, error) {
						return call(c.Context, a.Configs.Params, &controlpb.ParamsRequest{Level: c.String("level"), Owner: c.String("of"), Page: page})
					})
					if err != nil {
						return err
					}
					return printDocuments(c, items, "LEVEL:level", "OF:owner", "KEY:key", "VALUE:value", "SECRET:secret")
				})),
			change("template", "NAME FILE", "keep a template", "zhiyun config template cart.json ./cart.json.tmpl", []cli.Flag{reasonFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					path, err := arg(c, 1, "file")
					if err != nil {
						return err
					}
					body, err := readFileOr(path, c.App.Reader)
					if err != nil {
						return err
					}
					answer, err := call(c.Context, a.Configs.SetTemplate, &controlpb.TemplateRequest{Name: c.Args().First(), Body: string(body), Cause: cause(c)})
					if err != nil {
						return err
					}
					return printDocuments(c, []json.RawMessage{answer.Json}, "NAME:name", "VERSION:version")
				})),
			verb("render", "TEMPLATE", "show a file as a device would get it, secrets masked", "zhiyun config render cart.json --module shop.cart --device web-17",
				[]cli.Flag{&cli.StringFlag{Name: "module", Usage: "for this `MODULE`"}, &cli.StringFlag{Name: "device", Usage: "for this `DEVICE`"}},
				with(func(c *cli.Context, a *control.Client) error {
					answer, err := call(c.Context, a.Configs.Render, &controlpb.RenderRequest{Template: c.Args().First(), Module: c.String("module"), Device: c.String("device")})
					if err != nil {
						return err
					}
					if !forPeople(c) {
						return print(c, table{data: json.RawMessage(answer.Json)})
					}
					rendered, err := decode[struct {
						Body []byte `json:"body"`
					}](answer.Json)
					if err != nil {
						return err
					}
					_, err = c.App.Writer.Write(rendered.Body)
					return err
				})),
		},
	}
}

func permissionCommand() *cli.Command {
	columns := []string{"CALLER:caller", "SERVICE:service", "STATE:state", "BY:by", "REASON:reason"}
	act := func(name, short string, do func(a *control.Client) func(c *cli.Context, q *controlpb.PermissionRequest) (*controlpb.JSON, error)) *cli.Command {
		return change(name, "CALLER SERVICE", short, "zhiyun permission "+name+" shop.web shop.cart --reason 'new page'", []cli.Flag{reasonFlag()},
			with(func(c *cli.Context, a *control.Client) error {
				why := cause(c)
				why.Key = uid.New()
				answer, err := do(a)(c, &controlpb.PermissionRequest{Caller: c.Args().Get(0), Service: c.Args().Get(1), Cause: why})
				if err != nil {
					return err
				}
				return printDocuments(c, []json.RawMessage{answer.Json}, columns...)
			}))
	}
	return &cli.Command{
		Name: "permission", Usage: "who may call what",
		Subcommands: []*cli.Command{
			act("request", "ask that a caller may call a service", func(a *control.Client) func(*cli.Context, *controlpb.PermissionRequest) (*controlpb.JSON, error) {
				return func(c *cli.Context, q *controlpb.PermissionRequest) (*controlpb.JSON, error) {
					return call(c.Context, a.Permissions.Request, q)
				}
			}),
			act("approve", "grant what was asked for", func(a *control.Client) func(*cli.Context, *controlpb.PermissionRequest) (*controlpb.JSON, error) {
				return func(c *cli.Context, q *controlpb.PermissionRequest) (*controlpb.JSON, error) {
					return call(c.Context, a.Permissions.Approve, q)
				}
			}),
			act("revoke", "take a grant away", func(a *control.Client) func(*cli.Context, *controlpb.PermissionRequest) (*controlpb.JSON, error) {
				return func(c *cli.Context, q *controlpb.PermissionRequest) (*controlpb.JSON, error) {
					return call(c.Context, a.Permissions.Revoke, q)
				}
			}),
			verb("list", "", "list grants and requests", "zhiyun permission list --service shop.cart",
				[]cli.Flag{&cli.StringFlag{Name: "caller", Usage: "only of this `CALLER`"}, &cli.StringFlag{Name: "service", Usage: "only for this `SERVICE`"}, limitFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
						return call(c.Context, a.Permissions.List, &controlpb.PermissionRequest{Caller: c.String("caller"), Service: c.String("service"), Page: page})
					})
					if err != nil {
						return err
					}
					return printDocuments(c, items, columns...)
				})),
		},
	}
}

func notifyCommand() *cli.Command {
	expiry := &cli.DurationFlag{Name: "for", Value: time.Hour, Usage: "until this `TIME` from now"}
	return &cli.Command{
		Name: "notify", Usage: "notices, mutes and silences",
		Subcommands: []*cli.Command{
			noticeHistory(),
			change("retry", "ID", "have the sinks that have not taken a notice tried again", "zhiyun notify retry 5d41c0de", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Notify.Redeliver, &controlpb.RedeliverRequest{Id: c.Args().First(), Cause: cause(c)})
				if err != nil {
					return err
				}
				return printDocuments(c, []json.RawMessage{answer.Json}, noticeColumns...)
			})),
			noticeRules("routes", "route", "list the routes, in the order in which they are tried", "NAME:name", "SEVERITY:severity", "KINDS:kinds", "MODULES:modules", "OWNERS:owners", "SINKS:sinks", "TEMPLATE:template", "CONTINUE:continue"),
			noticeRules("templates", "template", "list the templates of notices", "NAME:name", "TITLE:title", "TEXT:text", "BY:actor"),
			noticeRules("sinks", "sink", "list the sinks that were set up", "NAME:name", "KIND:kind", "URL:url", "ADDR:addr", "TO:to", "BY:actor"),
			change("set", "route|template|sink FILE", "keep a route, a template or a sink, in place of one of its name; '-' is stdin", "zhiyun notify set route 10-critical.yaml --dry-run", []cli.Flag{reasonFlag()}, with(setNoticeRule)),
			change("remove", "route|template|sink NAME", "remove a route, or a template or sink that no route uses", "zhiyun notify remove route 10-critical", []cli.Flag{reasonFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					name, err := arg(c, 1, "name")
					if err != nil {
						return err
					}
					_, err = call(c.Context, a.Notify.RemoveRule, &controlpb.NotifyRuleRequest{Kind: c.Args().First(), Name: name, Cause: cause(c)})
					return err
				})),
			change("mute", "[MODULE]", "hold back the load events of a module, or of all", "zhiyun notify mute shop.cart --for 30m --reason 'load test'",
				[]cli.Flag{expiry, reasonFlag(), &cli.BoolFlag{Name: "all", Usage: "of every module, in place of one; --reason says why"}},
				with(func(c *cli.Context, a *control.Client) error {
					switch module := c.Args().First(); {
					case (module == "") != c.Bool("all"):
						return usage("notify mute: name the module, or give --all, which mutes the load events of every module")
					case c.Bool("all") && c.String("reason") == "":
						return usage("notify mute --all: give a --reason: nobody is told of load any more, and whoever wonders must find why")
					}
					why := cause(c)
					why.Key = uid.New()
					answer, err := call(c.Context, a.Notify.Mute, &controlpb.MuteRequest{Kind: "load", Module: c.Args().First(), Expiry: durationpb.New(c.Duration("for")), Cause: why})
					if err != nil {
						return err
					}
					return printDocuments(c, []json.RawMessage{answer.Json}, "KEY:key", "MODULE:module", "UNTIL:until")
				})),
			change("unmute", "KEY", "lift a mute", "zhiyun notify unmute 5d41c0de", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
				why := cause(c)
				why.Key = c.Args().First()
				_, err := call(c.Context, a.Notify.Unmute, &controlpb.MuteRequest{Cause: why})
				return err
			})),
			verb("mutes", "", "list the mutes that are in force", "zhiyun notify mutes", []cli.Flag{limitFlag()}, with(func(c *cli.Context, a *control.Client) error {
				items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
					return call(c.Context, a.Notify.Mutes, &controlpb.NotifyListRequest{Page: page})
				})
				if err != nil {
					return err
				}
				return printDocuments(c, items, "KEY:key", "KIND:kind", "MODULE:module", "UNTIL:until", "BY:actor", "REASON:reason")
			})),
			verb("silences", "", "list the silences that are in force", "zhiyun notify silences", []cli.Flag{limitFlag()}, with(func(c *cli.Context, a *control.Client) error {
				items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
					return call(c.Context, a.Notify.Silences, &controlpb.NotifyListRequest{Page: page})
				})
				if err != nil {
					return err
				}
				return printDocuments(c, items, "KEY:key", "DEVICES:devices", "UNTIL:until", "BY:actor", "REASON:reason")
			})),
			change("silence", "DEVICE ...", "silence the alerts of devices", "zhiyun notify silence web-17 web-18 --for 2h --reason 'disk swap'", []cli.Flag{expiry, reasonFlag()},
				with(func(c *cli.Context, a *control.Client) error {
					why := cause(c)
					why.Key = uid.New()
					answer, err := call(c.Context, a.Notify.Silence, &controlpb.SilenceRequest{Devices: c.Args().Slice(), Expiry: durationpb.New(c.Duration("for")), Cause: why})
					if err != nil {
						return err
					}
					return printDocuments(c, []json.RawMessage{answer.Json}, "KEY:key", "DEVICES:devices", "UNTIL:until")
				})),
			change("unsilence", "KEY", "lift a silence", "zhiyun notify unsilence 5d41c0de", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
				why := cause(c)
				why.Key = c.Args().First()
				_, err := call(c.Context, a.Notify.Unsilence, &controlpb.SilenceRequest{Cause: why})
				return err
			})),
		},
	}
}
