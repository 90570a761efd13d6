package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/tooltest"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/flowapi"
	"github.com/zhiyun-ops/zhiyun/internal/tools"
	"github.com/zhiyun-ops/zhiyun/internal/wiring"
)

// manifests are those of every tool: the server's and the devices'.
func manifests() []flow.Manifest {
	exe, _ := os.Executable()
	return append(tools.Manifests(exe), wiring.DeviceTools(exe)...)
}

func onDevice(name string) bool {
	for _, tool := range device.Tools() {
		if tool.Name == name {
			return true
		}
	}
	return false
}

func deviceTool(ctx context.Context, name string) int {
	return device.Run(ctx, name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}

func serverTool(ctx context.Context, name string) int {
	return tools.Run(ctx, name, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}

// toolCommand runs a tool as a process, and serves those who write tools.
func toolCommand() *cli.Command {
	return &cli.Command{
		Name:      "tool",
		Usage:     "run a tool as flows do; list, describe, write and test tools",
		ArgsUsage: "NAME",
		Description: `A tool reads a JSON object from stdin and writes one to stdout; logs go to stderr. It finds the server and the device
in its environment (ZHIYUN_SERVER, ZHIYUN_TOKEN_FILE, ZHIYUN_ROOT, ...), as flows and agents set it, and what makes the
call one of a kind in ZHIYUN_KEY. docs/guides/tools.md is the whole contract.

Examples:

  $ zhiyun tool list device
  $ zhiyun tool describe device.acquire
  $ echo '{"module":"shop.cart"}' | zhiyun tool run resource.manifest     # or without run, as flows do
  $ zhiyun tool new db.backup --lang python && zhiyun tool test db.backup`,
		Flags: []cli.Flag{describeFlag(), outputFlag()},
		Subcommands: []*cli.Command{
			verb("list", "WORD ...", "list the server's tools, those with all the words in their names, titles or tags, and on how many connected devices each is", "zhiyun tool list device --stage obtain",
				[]cli.Flag{&cli.StringFlag{Name: "stage", Usage: "only those of this `STAGE`"}, &cli.StringFlag{Name: "tag", Usage: "only those with this `TAG`"}, folderFlag()}, listTools),
			{Name: "run", ArgsUsage: "NAME", Usage: "run a tool of this binary once: input on stdin, result on stdout",
				Flags:       []cli.Flag{describeFlag(), outputFlag()},
				Description: "Example:\n\n  $ echo '{\"module\":\"shop.cart\"}' | zhiyun tool run resource.manifest", Action: runOrDescribe},
			toolVerb("describe", "NAME|DIR", "show what a tool takes, returns and promises", "zhiyun tool describe device.acquire", describeTool, folderFlag()),
			toolVerb("lint", "NAME|DIR ...", "tell what is wrong with a tool's manifest, or missing", "zhiyun tool lint ./db.backup", lintTools, folderFlag()),
			toolVerb("test", "DIR|NAME ...", "hold tools to the contract, each by its own examples, in temporary folders", "zhiyun tool test ./db.backup", testTools,
				&cli.DurationFlag{Name: "timeout", Value: 5 * time.Minute, Usage: "`TIME` for all of it"}, &cli.StringFlag{Name: "dir", Value: ".", Usage: "`FOLDER` below which tools are looked for by their names"}),
			toolVerb("new", "NAME", "write a tool that passes the test, to begin with", "zhiyun tool new db.backup --lang python", newTool,
				&cli.StringFlag{Name: "lang", Value: "sh", Usage: "`LANGUAGE`: " + strings.Join(tooltest.Languages(), ", ")},
				&cli.StringFlag{Name: "dir", Usage: "`FOLDER` to write, which is not there yet", DefaultText: "./NAME"}),
			change("push", "DIR", "have the server run a tool from now on, in place of the one of its name", "zhiyun tool push ./db.backup --dry-run",
				[]cli.Flag{breakFlag(), reasonFlag()}, with(pushTool)),
			change("use", "NAME DIGEST", "go back, or forth, to a version that was pushed before", "zhiyun tool use db.backup 9f86d081884c",
				[]cli.Flag{breakFlag(), reasonFlag()}, with(useTool)),
			verb("versions", "[NAME]", "list the versions of pushed tools, the newest first", "zhiyun tool versions db.backup", nil, with(toolVersions)),
		},
		Action: runOrDescribe,
	}
}

// runOrDescribe is `zhiyun tool NAME`, as flows start it, and `zhiyun tool run NAME`.
func runOrDescribe(c *cli.Context) error {
	name := c.Args().First()
	switch {
	case name == "":
		return cli.ShowSubcommandHelp(c)
	case c.NArg() > 1:
		return usage("tool %s: %q is one argument too many; the input comes from stdin", name, c.Args().Get(1))
	case c.Bool("describe"):
		return printManifest(c, name)
	}
	return runTool(c.Context, name)
}

func describeFlag() cli.Flag {
	return &cli.BoolFlag{Name: "describe", Usage: "print the tool's manifest as JSON, as every tool does"}
}

func toolVerb(name, args, short, example string, action cli.ActionFunc, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, ArgsUsage: args, Usage: short, Description: "Example:\n\n  $ " + example, Flags: append(flags, outputFlag()), Action: action,
	}
}

func folderFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "look at the tools below this `FOLDER` as well"}
}

// runTool ends the process with the tool's exit code: that is the tool contract.
func runTool(ctx context.Context, name string) error {
	run := serverTool
	if onDevice(name) {
		run = deviceTool
	}
	if code := run(ctx, name); code != 0 {
		return cli.Exit("", code)
	}
	return nil
}

// known are the manifests of all tools at hand: of this binary, and of the folder that the flag names.
func known(c *cli.Context) ([]flow.Manifest, error) {
	all := manifests()
	if dir := c.String("dir"); dir != "" {
		found, err := flow.ReadManifests(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// lookUp returns a tool by its name, or by the folder in which it lies.
func lookUp(c *cli.Context, name string) (flow.Manifest, error) {
	if name == "" {
		return flow.Manifest{}, usage("tool %s: name a tool, or its folder", c.Command.Name)
	}
	if _, err := os.Stat(filepath.Join(name, flow.ManifestFile)); err == nil {
		return flow.ReadManifest(name)
	}
	all, err := known(c)
	if err != nil {
		return flow.Manifest{}, err
	}
	for _, m := range all {
		if m.Name == name {
			return m, nil
		}
	}
	return flow.Manifest{}, usage("tool %s %q: no such tool, and no folder with a %s; 'zhiyun tool list' names those that Zhiyun brings, 'zhiyun tool versions' those that were pushed", c.Command.Name, name, flow.ManifestFile)
}

func printManifest(c *cli.Context, name string) error {
	m, err := lookUp(c, name)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(c.App.Writer)
	encoder.SetIndent("", "  ")
	return encoder.Encode(m)
}

func describeTool(c *cli.Context) error {
	tool, err := lookUp(c, c.Args().First())
	if err != nil {
		return err
	}
	t := table{columns: []string{"FIELD", "VALUE"}, data: tool}
	t.add("name", tool.Name)
	t.add("title", tool.Title)
	t.add("version", tool.Version)
	t.add("stage", tool.Stage)
	t.add("tags", tool.Tags)
	t.add("effect", tool.Effect)
	t.add("timeout", tool.Timeout)
	t.add("undo", tool.Undo)
	t.add("probe", tool.Probe)
	t.add("plans", tool.Plan)
	t.add("resident", tool.Resident != nil)
	t.add("on device", tool.OnDevice)
	t.add("platforms", tool.Platforms)
	t.add("digest", tool.Digest)
	t.add("input", strings.TrimSpace(string(tool.Input)))
	t.add("output", strings.TrimSpace(string(tool.Output)))
	return print(c, t)
}

// listTools lists the tools that the server runs, those that were pushed among them; without a server those of this binary.
func listTools(c *cli.Context) error {
	all, err := serverTools(c)
	if err != nil {
		return err
	}
	have := make(map[string]flowapi.KnownTool, len(all))
	manifests := make([]flow.Manifest, len(all))
	for i, tool := range all {
		have[tool.Manifest.Name], manifests[i] = tool, tool.Manifest
	}
	found := []flowapi.KnownTool{}
	t := table{columns: []string{"NAME", "VERSION", "STAGE", "DEVICES", "FROM", "EFFECT", "UNDO", "TITLE"}}
	for _, m := range shelf.Search(manifests, shelf.Query{Words: c.Args().Slice(), Stage: c.String("stage"), Tag: c.String("tag")}) {
		tool := have[m.Name]
		found = append(found, tool)
		where, from := "", "zhiyun"
		if m.OnDevice {
			where = strconv.Itoa(tool.Standing.Devices)
		}
		if tool.Standing.Pushed {
			from = "pushed"
		}
		t.add(m.Name, m.Version, m.Stage, where, from, m.Effect, m.Undo, m.Title)
	}
	t.data = found
	return print(c, t)
}

// serverTools are the tools that the server knows, with those of the folder that the flag names.
func serverTools(c *cli.Context) ([]flowapi.KnownTool, error) {
	if _, err := target(c); err != nil && c.String("server") == "" {
		fmt.Fprintln(c.App.ErrWriter, "no server is running here: these are the tools of this binary")
		all, err := known(c)
		out := make([]flowapi.KnownTool, len(all))
		for i, m := range all {
			out[i].Manifest = m
		}
		return out, err
	}
	server, err := dial(c)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	answer, err := call(c.Context, server.Flows.Tools, &controlpb.ToolsRequest{})
	if err != nil {
		return nil, err
	}
	var out []flowapi.KnownTool
	for _, item := range answer.Items {
		tool, err := decode[flowapi.KnownTool](item)
		if err != nil {
			return nil, err
		}
		out = append(out, tool)
	}
	if dir := c.String("dir"); dir != "" {
		found, err := flow.ReadManifests(dir)
		if err != nil {
			return nil, usage("--dir: %v", err)
		}
		for _, m := range found {
			out = append(out, flowapi.KnownTool{Manifest: m})
		}
	}
	return out, nil
}

func lintTools(c *cli.Context) error {
	type told struct {
		Tool string `json:"tool"`
		tooltest.Problem
	}
	problems, fatal := []told{}, 0
	t := table{columns: []string{"TOOL", "FIELD", "MENDS", "PROBLEM"}}
	for i := range max(1, c.NArg()) {
		m, err := lookUp(c, c.Args().Get(i))
		if err != nil {
			return err
		}
		for _, p := range tooltest.Lint(m) {
			mends := "should"
			if p.Fatal {
				mends = "must"
				fatal++
			}
			problems = append(problems, told{m.Name, p})
			t.add(m.Name, p.Field, mends, p.Message)
		}
	}
	t.data = problems
	if err := print(c, t); err != nil {
		return err
	}
	if fatal > 0 {
		return fmt.Errorf("tool lint: %d problems must be mended", fatal)
	}
	return nil
}

func testTools(c *cli.Context) error {
	if c.NArg() == 0 {
		return usage("tool test: name the folder of a tool; tools that are built into zhiyun are tested with it")
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	type told struct {
		Tool string `json:"tool"`
		tooltest.Finding
	}
	findings := []told{}
	t := table{columns: []string{"TOOL", "CHECK", "OUTCOME", "TOOK", "DETAIL"}}
	failed := 0
	for _, dir := range c.Args().Slice() {
		if _, err := os.Stat(filepath.Join(dir, flow.ManifestFile)); err != nil {
			dir = filepath.Join(c.String("dir"), dir)
		}
		if _, err := os.Stat(filepath.Join(dir, flow.ManifestFile)); err != nil {
			return usage("tool test %q: it is no folder with a %s in it; tools that are built into zhiyun are tested with it", dir, flow.ManifestFile)
		}
		found, err := tooltest.Check(ctx, tooltest.Config{Dir: dir})
		for _, f := range found {
			if f.Outcome == tooltest.Failed {
				failed++
			}
			findings = append(findings, told{filepath.Base(dir), f})
			t.add(filepath.Base(dir), f.Check, f.Outcome, f.Took, f.Detail)
		}
		if err != nil {
			return errors.Join(print(c, t), err)
		}
	}
	t.data = findings
	if err := print(c, t); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("tool test: %d checks failed", failed)
	}
	return nil
}

func newTool(c *cli.Context) error {
	name := c.Args().First()
	if name == "" {
		return usage("tool new: name the tool, as in db.backup")
	}
	dir := c.String("dir")
	if dir == "" {
		dir = name
	}
	files, err := tooltest.New(dir, name, c.String("lang"))
	if err != nil {
		return usage("%v", err)
	}
	for _, file := range files {
		fmt.Fprintln(c.App.Writer, file)
	}
	if c.String("lang") == "go" {
		fmt.Fprintf(c.App.ErrWriter, "build it: (cd %s && go build -o run .)\n", dir)
	}
	return nil
}

func breakFlag() cli.Flag {
	return &cli.BoolFlag{Name: "break", Usage: "even if flows no longer compile; --dry-run tells which"}
}

func pushTool(c *cli.Context, a *control.Client) error {
	dir, err := arg(c, 0, "folder of the tool")
	if err != nil {
		return err
	}
	m, err := flow.ReadManifest(dir)
	if err != nil {
		return usage("tool push: %v", err)
	}
	for _, p := range tooltest.Lint(m) {
		if p.Fatal {
			return usage("tool push %s: %s: %s", dir, p.Field, p.Message)
		}
	}
	reader, writer := io.Pipe()
	defer reader.Close()
	go func() { writer.CloseWithError(shelf.Pack(dir, writer)) }() // ends with the reader
	pushed, err := a.PushTool(c.Context, reader, c.Bool("break"), cause(c))
	if err != nil {
		return plainError(err)
	}
	return printTool(c, pushed)
}

func useTool(c *cli.Context, a *control.Client) error {
	if c.NArg() < 2 {
		return usage("tool use: name the tool and a digest; 'zhiyun tool versions' lists them")
	}
	answer, err := call(c.Context, a.Flows.UseTool, &controlpb.UseToolRequest{Name: c.Args().Get(0), Digest: c.Args().Get(1), BreakFlows: c.Bool("break"), Cause: cause(c)})
	if err != nil {
		return err
	}
	used, err := decode[flow.Manifest](answer.Json)
	if err != nil {
		return err
	}
	return printTool(c, used)
}

func printTool(c *cli.Context, m flow.Manifest) error {
	t := table{columns: []string{"NAME", "VERSION", "DIGEST"}, data: m}
	t.add(m.Name, m.Version, m.Digest)
	return print(c, t)
}

func toolVersions(c *cli.Context, a *control.Client) error {
	answer, err := call(c.Context, a.Flows.ToolVersions, &controlpb.ToolsRequest{Name: c.Args().First()})
	if err != nil {
		return err
	}
	return printDocuments(c, raws(answer.Items), "NAME:manifest.name", "VERSION:manifest.version", "DIGEST:manifest.digest", "CURRENT:current", "PUSHED:at", "TITLE:manifest.title")
}
