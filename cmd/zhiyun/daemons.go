package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/agent"
	"github.com/zhiyun-ops/zhiyun/internal/doors"
	"github.com/zhiyun-ops/zhiyun/internal/server"
)

// logFlags say how daemons log.
func logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", Value: "info", EnvVars: []string{"ZHIYUN_LOG_LEVEL"}, Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.StringFlag{Name: "log-format", Value: "text", EnvVars: []string{"ZHIYUN_LOG_FORMAT"}, Usage: "`FORMAT`: text or json"},
	}
}

func logger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, usage("--log-level %q: want debug, info, warn or error", c.String("log-level"))
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := c.String("log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	default:
		return nil, usage("--log-format %q: want text or json", format)
	}
}

func serverCommand() *cli.Command {
	return &cli.Command{
		Name:  "server",
		Usage: "run the control plane",
		Description: `Keeps its record in an etcd embedded in --dir, or in a cluster with --etcd. Serves DIR/control.sock to its owner,
and, with --listen, agents and operators that bring a token.

Examples:

  $ zhiyun server --dir /var/lib/zhiyun --listen 127.0.0.1:7070
  $ zhiyun server --listen 10.0.0.5:7070 --cert server.pem --key server-key.pem --ca ca.pem --ca-key ca-key.pem --etcd https://10.0.0.7:2379`,
		Flags: append([]cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "dir", EnvVars: []string{"ZHIYUN_SERVER_DIR"}, Value: filepath.Join(defaultDir(), "server"), Usage: "`FOLDER` for all data of this server"},
			&cli.StringFlag{Name: "listen", EnvVars: []string{"ZHIYUN_LISTEN"}, Usage: "TCP `ADDRESS` for agents and operators; off loopback it needs --cert and --key"},
			&cli.StringFlag{Name: "hooks", EnvVars: []string{"ZHIYUN_HOOKS"}, Usage: "TCP `ADDRESS` for the webhooks of triggers; off loopback it needs --cert and --key"},
			&cli.StringSliceFlag{Name: "limit", Usage: "`WHAT=N` that flows run at a time: tool:NAME=8, tool:NAME=5/s (starts), device=2, module=4, open=50000 (executions); repeatable"},
			&cli.StringSliceFlag{Name: "host", Usage: "a `NAME` by which clients may call this server; repeatable"},
			&cli.StringFlag{Name: "cert", Usage: "`FILE` with the server's certificate, PEM; read anew at each handshake"},
			&cli.StringFlag{Name: "key", Usage: "`FILE` with its key, PEM"},
			&cli.StringFlag{Name: "ca", Usage: "`FILE` with the CAs that devices are to trust, the one that signs first"},
			&cli.StringFlag{Name: "ca-key", Usage: "`FILE` with the key of the first: devices that enrol get certificates"},
			&cli.StringFlag{Name: "client-ca", Usage: "`FILE` with the CA that all client certificates must be signed by; demands one of everybody, besides a token"},
			&cli.DurationFlag{Name: "device-life", Value: 30 * 24 * time.Hour, Usage: "`TIME` that the credential of a device is good for; renewed at two thirds"},
			&cli.StringSliceFlag{Name: "etcd", Usage: "`ENDPOINT` of an external etcd; repeatable"},
			&cli.StringFlag{Name: "etcd-ca", Usage: "`FILE` with etcd's CA"},
			&cli.StringFlag{Name: "etcd-cert", Usage: "`FILE` with the client certificate for etcd"},
			&cli.StringFlag{Name: "etcd-key", Usage: "`FILE` with its key"},
			&cli.StringFlag{Name: "flow-store", EnvVars: []string{"ZHIYUN_FLOW_STORE"}, Usage: "postgres:// `URL` of the database that holds the flows, and that several servers may share; a password goes into the file PGPASSFILE", DefaultText: "DIR/flow.db"},
			&cli.DurationFlag{Name: "bucket", Value: 10 * time.Second, Usage: "`WIDTH` of the buckets that outcomes are folded into"},
			&cli.DurationFlag{Name: "tick", Value: time.Second, Usage: "`TIME` between two looks of a controller"},
			&cli.DurationFlag{Name: "grace", Value: 30 * time.Second, Usage: "`TIME` an agent may be away before its device counts as lost"},
			&cli.DurationFlag{Name: "flow-keep", Usage: "`TIME` that executions are kept after their end", DefaultText: "for ever"},
			&cli.StringFlag{Name: "haproxy", Usage: "admin `SOCKET` of the HAProxy that holds the virtual addresses", DefaultText: "the built-in TCP proxy"},
			&cli.StringSliceFlag{Name: "sink-network", Usage: "`NETWORK`, as 169.254.10.0/24, in which notification sinks may be called although it is link-local or known for credentials of clouds; repeatable"},
			&cli.StringFlag{Name: "approve", Value: "manual", Usage: "how permission requests are answered: manual or auto"},
			&cli.BoolFlag{Name: "scale", Value: true, Usage: "run the decider; --scale=false leaves scaling to people"},
			&cli.StringFlag{Name: "exe", Usage: "the zhiyun `BINARY` that runs the tools", DefaultText: "this one"},
		}, logFlags()...),
		Action: func(c *cli.Context) error {
			if err := fromFile(c); err != nil {
				return err
			}
			log, err := logger(c)
			if err != nil {
				return err
			}
			bounds, err := limits(c.StringSlice("limit"))
			if err != nil {
				return err
			}
			sinks, err := networks(c.StringSlice("sink-network"))
			if err != nil {
				return err
			}
			decide := c.Bool("scale")
			s, err := server.New(server.Config{
				Dir: c.String("dir"), Listen: c.String("listen"), Hooks: c.String("hooks"), Limits: bounds, Hosts: c.StringSlice("host"),
				CertFile: c.String("cert"), KeyFile: c.String("key"), ClientCAFile: c.String("client-ca"),
				CAFile: c.String("ca"), CAKeyFile: c.String("ca-key"), DeviceLife: c.Duration("device-life"),
				Etcd: c.StringSlice("etcd"), EtcdCAFile: c.String("etcd-ca"), EtcdCertFile: c.String("etcd-cert"), EtcdKeyFile: c.String("etcd-key"),
				FlowStore: c.String("flow-store"),
				Bucket:    c.Duration("bucket"), Tick: c.Duration("tick"), Grace: c.Duration("grace"), FlowKeep: c.Duration("flow-keep"),
				HAProxy: c.String("haproxy"), SinkNetworks: sinks, Approve: c.String("approve"), Scale: &decide, Exe: c.String("exe"), Logger: log,
			})
			if err != nil {
				return cli.Exit(err, exitUsage)
			}
			return s.Run(c.Context)
		},
	}
}

// networks reads what --sink-network says.
func networks(texts []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = netip.ParsePrefix(text); err != nil {
			return nil, usage("--sink-network %q: want a network, as 169.254.10.0/24 or fe80::1/128", text)
		}
	}
	return out, nil
}

func agentCommand() *cli.Command {
	var open doors.Config
	var doorFlags []cli.Flag
	for _, o := range open.Options() {
		doorFlags = append(doorFlags, &cli.StringFlag{Name: o.Name, Category: "doors for programs that do not speak l5:", Usage: o.Usage, Destination: o.Value})
	}
	return &cli.Command{
		Name:  "agent",
		Usage: "run the agent of one device",
		Description: `Runs the device's share of flows, keeps its processes, answers its programs' routes on ROOT/run/l5.sock, and watches
that it stays as declared. What it runs outlives it: the next agent adopts it.

Example:

  $ (umask 077; zhiyun token enrol web-17 > web-17.enrol)   # on the server; bring the file to the device, mode 600
  $ zhiyun agent --device web-17 --addr 10.0.3.17 --server https://10.0.0.5:7070 --enrol @web-17.enrol

The token is good for one device, once, and for an hour. What it is exchanged for stays below ROOT/var/zhiyun/credential
and is renewed by the agent.

Doors let programs that do not speak l5 find services; docs/guides/doors.md shows each:

  $ zhiyun agent ... --dns 127.0.0.1:5300
  $ dig @127.0.0.1 -p 5300 shop.cart.l5 SRV`,
		Flags: append(append([]cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "device", EnvVars: []string{"ZHIYUN_DEVICE"}, Required: true, Usage: "the device's `NAME` in the CMDB"},
			&cli.StringFlag{Name: "addr", EnvVars: []string{"ZHIYUN_ADDR"}, Required: true, Usage: "its IP `ADDRESS`"},
			&cli.IntFlag{Name: "port-offset", EnvVars: []string{"ZHIYUN_PORT_OFFSET"}, Usage: "`NUMBER` that is added to the ports of modules, as in the CMDB: the device shares its address with others"},
			&cli.StringFlag{Name: "site", Usage: "the `SITE` where it stands"},
			&cli.StringFlag{Name: "root", EnvVars: []string{"ZHIYUN_ROOT"}, Value: "/srv/zhiyun", Usage: "`FOLDER` that the device's files live under"},
			&cli.StringFlag{Name: "enrol", EnvVars: []string{"ZHIYUN_ENROL"}, Usage: "`@FILE` with the token to enrol with (in the environment it may be the token itself); not used once the device has its credential"},
			&cli.StringSliceFlag{Name: "flow-server", Usage: "`TARGET` of a further server that shares the flows of the first (its --flow-store); repeatable"},
			&cli.BoolFlag{Name: "believe", Usage: "take programs on this device for the module that they say they are; for development"},
			&cli.StringFlag{Name: "listen", Usage: "loopback `ADDRESS` for /healthz, /readyz and /metrics"},
			&cli.StringFlag{Name: "tools", Usage: "`FOLDER` of folders with tools of your own for this device"},
			&cli.DurationFlag{Name: "rescan", Value: time.Minute, Usage: "`TIME` between two full looks at the declared files"},
			&cli.DurationFlag{Name: "poll", Value: 5 * time.Second, Usage: "`TIME` between two looks at processes and ports"},
			&cli.DurationFlag{Name: "settle", Value: 30 * time.Second, Usage: "`TIME` that repair waits after the declaration changed"},
			&cli.StringFlag{Name: "exe", Usage: "the zhiyun `BINARY` that runs the tools", DefaultText: "this one"},
		}, doorFlags...), append(serverFlags(), logFlags()...)...),
		Action: func(c *cli.Context) error {
			if err := fromFile(c); err != nil {
				return err
			}
			log, err := logger(c)
			if err != nil {
				return err
			}
			server, err := target(c)
			if err != nil {
				return err
			}
			if enrol := c.String("enrol"); enrol != "" && !strings.HasPrefix(enrol, "@") && enrol != os.Getenv("ZHIYUN_ENROL") {
				return usage("--enrol: others can read a command line; give @FILE with the token, or the token in ZHIYUN_ENROL")
			}
			return agent.Run(c.Context, agent.Config{
				Device: c.String("device"), Addr: c.String("addr"), PortOffset: c.Int("port-offset"), Site: c.String("site"), Root: c.String("root"),
				Server: server, FlowServers: c.StringSlice("flow-server"), TokenFile: c.String("token-file"), TLS: tlsFiles(c), Enrol: c.String("enrol"), Believe: c.Bool("believe"), Exe: c.String("exe"), Listen: c.String("listen"),
				Tools: c.String("tools"), Rescan: c.Duration("rescan"), Poll: c.Duration("poll"), Settle: c.Duration("settle"), Doors: open, Logger: log,
			})
		},
	}
}
