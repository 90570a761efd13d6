package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// with dials the server and hands its connection to do.
func with(do func(*cli.Context, *control.Client) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		server, err := dial(c)
		if err != nil {
			return err
		}
		defer server.Close()
		return do(c, server)
	}
}

// arg is a required argument.
func arg(c *cli.Context, i int, what string) (string, error) {
	if value := c.Args().Get(i); value != "" {
		return value, nil
	}
	return "", usage("%s: the %s is missing", c.Command.HelpName, what)
}

func flowCommand() *cli.Command {
	return &cli.Command{
		Name: "flow", Usage: "run, watch and steer executions",
		Subcommands: []*cli.Command{
			change("run", "FLOW [NAME=VALUE|NAME=@FILE ...]", "start an execution; a secret comes from a file, a list is its entries between commas",
				"zhiyun flow run expand module=shop.cart count=2 --watch\n  $ zhiyun flow run drain devices=d7,d8 password=@secret.txt",
				[]cli.Flag{
					&cli.StringFlag{Name: "key", Usage: "`KEY` that makes the start one of a kind: the same key again starts nothing"},
					&cli.BoolFlag{Name: "watch", Usage: "print each event until the execution ends"}, reasonFlag(),
					&cli.BoolFlag{Name: "exempt", Usage: "go on through freezes; --reason says why"},
				}, with(runFlow)),
			verb("list", "", "list executions, the newest first", "zhiyun flow list --module shop.cart --device d7 --state stuck --since 2h",
				append(filterFlags(), &cli.BoolFlag{Name: "open", Usage: "only those that have not ended"}, &cli.BoolFlag{Name: "oldest", Usage: "the oldest first"}, limitFlag()),
				with(listFlows)),
			verb("show", "ID", "show an execution, step by step", "zhiyun flow show 019ab3f2 --timing",
				[]cli.Flag{&cli.BoolFlag{Name: "timing", Usage: "where its time went"}}, with(showFlow)),
			verb("logs", "ID [STEP]", "print what the steps of an execution wrote to stderr", "zhiyun flow logs 019ab3f2 install -f", flowLogFlags(), with(flowLogs)),
			verb("export", "ID", "print an execution as one document, which a test can replay", "zhiyun flow export 019ab3f2 > night.json", nil, with(exportFlow)),
			change("prune", "", "remove executions that ended longer ago than they are kept", "zhiyun flow prune --flow expand --older-than 720h", pruneFlags(), with(pruneFlows)),
			verb("watch", "ID", "print each event of an execution until it ends", "zhiyun flow watch 019ab3f2", nil, with(func(c *cli.Context, a *control.Client) error {
				id, err := arg(c, 0, "execution's id")
				if err != nil {
					return err
				}
				return watchFlow(c, a, id)
			})),
			steerFlow("cancel", "undo what was done, and end the execution"),
			steerFlow("retry", "try again what an execution is stuck at"),
			intervene("skip", "end the step an execution is at, and go on", "", resultFlag()),
			intervene("fail", "end the step an execution is at as failed", "", itemFlag()),
			intervene("retry-step", "try one step again, with another input if one is given", " --input '{\"count\": 2}'", itemFlag(),
				&cli.StringFlag{Name: "input", Usage: "`JSON` object, or @FILE, to run the tool with; default: the input as it was"}),
			intervene("back", "undo what came after the beginning of a step, and go on from there", ""),
			intervene("settle", "say how a step ended that waits for a person", " --done", itemFlag(), resultFlag(),
				&cli.BoolFlag{Name: "done", Usage: "it had its effect"}, &cli.BoolFlag{Name: "undone", Usage: "it had none"}),
			signalFlow(),
			intervene("approve", "say yes to a step that asks", ""),
			intervene("refuse", "say no to a step that asks: it fails", ""),
			intervene("choose", "say which way an if or a switch takes", " --case then",
				&cli.StringFlag{Name: "case", Required: true, Usage: "`WAY`: then, else, or the number of a case, from 0"}),
			migrateFlow(),
			steerFlow("pause", "start no further step"),
			steerFlow("resume", "go on with a paused execution"),
			lintCommand(), flowPlanCommand(), graphCommand(), diffCommand(), schemaCommand(), checkCommand(),
			change("save", "FILE", "keep a new version of a flow", "zhiyun flow save expand.yaml", []cli.Flag{reasonFlag()}, with(func(c *cli.Context, a *control.Client) error {
				text, err := readArg(c)
				if err != nil {
					return err
				}
				answer, err := call(c.Context, a.Flows.Save, &controlpb.SaveFlowRequest{Document: text, Cause: cause(c)})
				if err != nil {
					return err
				}
				return printDocuments(c, []json.RawMessage{answer.Json}, "FLOW:flow", "VERSION:version")
			})),
			verb("locks", "", "list the locks that executions hold", "zhiyun flow locks", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Flows.Locks, &controlpb.LocksRequest{})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "LOCK:key", "EXECUTION:execution", "SINCE:since")
			})),
			verb("freezes", "", "list the freezes in force", "zhiyun flow freezes", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Freezes.List, &controlpb.FreezeRequest{})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "MODULE:module", "UNTIL:until", "BY:actor", "SINCE:at", "REASON:reason")
			})),
			verb("definitions", "", "list the flows there are", "zhiyun flow definitions", nil, with(func(c *cli.Context, a *control.Client) error {
				answer, err := call(c.Context, a.Flows.Definitions, &controlpb.DefinitionsRequest{})
				if err != nil {
					return err
				}
				return printDocuments(c, raws(answer.Items), "FLOW:flow", "VERSION:version", "TITLE:title")
			})),
		},
	}
}

func raws(items [][]byte) []json.RawMessage {
	out := make([]json.RawMessage, len(items))
	for i, item := range items {
		out[i] = item
	}
	return out
}

// readArg reads the file that the first argument names; "-" is stdin.
func readArg(c *cli.Context) ([]byte, error) {
	path, err := arg(c, 0, "file")
	if err != nil {
		return nil, err
	}
	return readFileOr(path, c.App.Reader)
}

// given reads NAME=VALUE. A value @FILE is what stands in a file: others can read a command line, so that is how secrets are given; @@ begins one that begins with @.
func given(args []string) (map[string]string, error) {
	texts := make(map[string]string, len(args))
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if _, twice := texts[name]; !ok || twice || name == "" {
			return nil, usage("parameter %q: want NAME=VALUE, and each once", arg)
		}
		if file, ok := strings.CutPrefix(text, "@"); ok && !strings.HasPrefix(file, "@") {
			content, err := readText(file)
			if err != nil {
				return nil, usage("parameter %s: %v", name, err)
			}
			text = strings.TrimRight(content, "\r\n")
		} else if ok {
			text = file
		}
		if !utf8.ValidString(text) { // JSON would put other characters in the place of its bytes
			return nil, usage("parameter %s is no text in UTF-8; give what is none as base64", name)
		}
		texts[name] = text
	}
	return texts, nil
}

// readText reads a file, or what a program writes into one, that may stand in a message to the server.
func readText(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, rpc.MaxMessage+1))
	if err == nil && len(content) > rpc.MaxMessage {
		err = fmt.Errorf("%s holds more than the %d bytes of a message", path, rpc.MaxMessage)
	}
	return string(content), err
}

// params turns NAME=VALUE into the parameters of a flow, or of one version of it, FLOW@VERSION: each is read as its declared type says.
func params(c *cli.Context, a *control.Client, name string, args []string) (map[string]any, error) {
	out := make(map[string]any)
	texts, err := given(args)
	if err != nil || len(texts) == 0 {
		return out, err
	}
	name, pin, pinned := strings.Cut(name, "@")
	version := 0
	if pinned {
		if version, err = versionOf(pin); err != nil {
			return nil, err
		}
	}
	d, err := serverDefinition(c, a, name, version)
	if err != nil {
		return nil, err
	}
	known := make([]string, len(d.Params))
	var faults []string
	for i := range d.Params {
		p := &d.Params[i]
		known[i] = p.Name
		if one, ok := texts[p.Name]; ok {
			if out[p.Name], err = p.FromText(one); err != nil {
				faults = append(faults, fmt.Sprintf("flow %s: %v", name, strings.TrimPrefix(err.Error(), flow.ErrInvalid.Error()+": ")))
			}
		}
	}
	for _, one := range slices.Sorted(maps.Keys(texts)) {
		if !slices.Contains(known, one) {
			faults = append(faults, fmt.Sprintf("flow %s has no parameter %q; it has %s", name, one, strings.Join(known, ", ")))
		}
	}
	if len(faults) > 0 {
		return nil, usage("%s", strings.Join(faults, "\n"))
	}
	return out, nil
}

func runFlow(c *cli.Context, a *control.Client) error {
	name, err := arg(c, 0, "flow's name")
	if err != nil {
		return err
	}
	values, err := params(c, a, name, c.Args().Tail())
	if err != nil {
		return err
	}
	content, err := json.Marshal(values)
	if err != nil {
		return err
	}
	why := cause(c)
	why.Key = c.String("key")
	answer, err := call(c.Context, a.Flows.Start, &controlpb.StartFlowRequest{Flow: name, Params: content, Cause: why, Exempt: c.Bool("exempt")})
	if err != nil {
		return err
	}
	if !c.Bool("watch") {
		return printStarted(c, answer.Id)
	}
	fmt.Fprintln(c.App.ErrWriter, "execution", answer.Id)
	return watchFlow(c, a, answer.Id)
}

// printStarted tells which execution was started: its ID alone for people and shells, an object for programs.
func printStarted(c *cli.Context, id string) error {
	if forPeople(c) {
		fmt.Fprintln(c.App.Writer, id)
		return nil
	}
	return print(c, table{data: map[string]string{"id": id}})
}

// watchFlow follows an execution to its end; one that did not end well is exit code 1.
func watchFlow(c *cli.Context, a *control.Client, id string) error {
	stream, err := a.Flows.Watch(c.Context, connect.NewRequest(&controlpb.ExecutionRequest{Id: id}))
	if err != nil {
		return plainError(err)
	}
	defer stream.Close()
	where := make(attemptDevices)
	for stream.Receive() {
		event, err := decode[flow.Event](stream.Msg().Json)
		if err != nil {
			return err
		}
		where.fill(&event)
		if c.String("output") == "json" {
			fmt.Fprintln(c.App.Writer, string(stream.Msg().Json))
		} else {
			fmt.Fprintln(c.App.Writer, eventLine(event))
		}
	}
	if err := stream.Err(); err != nil {
		return plainError(err)
	}
	answer, err := call(c.Context, a.Flows.Get, &controlpb.ExecutionRequest{Id: id})
	if err != nil {
		return err
	}
	execution, err := decode[flow.Execution](answer.Json)
	if err != nil {
		return err
	}
	if execution.State != flow.Done {
		return fmt.Errorf("execution %s: %s", id, execution.State)
	}
	return nil
}

// attemptDevices are the devices of attempts that were seen to start: only their start says where they are.
type attemptDevices map[struct {
	step string
	item int
}]string

func (a attemptDevices) fill(e *flow.Event) {
	key := struct {
		step string
		item int
	}{e.Step, e.Item}
	switch {
	case !strings.HasPrefix(string(e.Kind), "attempt."):
	case e.Device != "":
		a[key] = e.Device
	default:
		e.Device = a[key]
	}
}

// eventLine is one event for people.
func eventLine(e flow.Event) string {
	parts := []string{e.At.Local().Format("15:04:05.000"), fmt.Sprintf("%-20s", e.Kind)}
	for _, part := range []string{e.Step, e.Tool, e.Device, e.Actor, e.Reason, e.Text} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if e.Attempt > 1 {
		parts = append(parts, "attempt "+strconv.Itoa(e.Attempt))
	}
	if e.Error != nil {
		parts = append(parts, e.Error.Error())
	}
	return strings.TrimRight(strings.Join(parts, "  "), " ")
}

func listFlows(c *cli.Context, a *control.Client) error {
	filter, err := filterOf(c)
	if err != nil {
		return err
	}
	filter.Open = c.Bool("open")
	items, err := pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
		return call(c.Context, a.Flows.List, &controlpb.ListExecutionsRequest{Filter: filter, Oldest: c.Bool("oldest"), Page: page})
	})
	if err != nil {
		return err
	}
	return printDocuments(c, items, "ID:id", "FLOW:flow", "STATE:state", "STEP:step", "PAUSED:paused", "WAITS FOR:wake.for", "SINCE:updated", "BY:actor", "STARTED:started", "ENDED:ended", "ERROR:error.message")
}

func showFlow(c *cli.Context, a *control.Client) error {
	id, err := arg(c, 0, "execution's id")
	if err != nil {
		return err
	}
	if c.Bool("timing") {
		return showTiming(c, a, id)
	}
	answer, err := call(c.Context, a.Flows.Get, &controlpb.ExecutionRequest{Id: id})
	if err != nil {
		return err
	}
	if !forPeople(c) {
		return print(c, table{data: json.RawMessage(answer.Json)})
	}
	execution, err := decode[flow.Execution](answer.Json)
	if err != nil {
		return err
	}
	w := screen(c)
	fmt.Fprintf(w, "%s  %s v%d  %s  by %s: %s\n", execution.ID, execution.Flow, execution.Version, execution.State, text(execution.Actor), text(execution.Reason))
	if execution.Paused {
		fmt.Fprintf(w, "paused: zhiyun flow resume %s\n", execution.ID)
	}
	if wake := execution.Wake; wake.For != "" || wake.Kind == flow.WakeTimer {
		fmt.Fprintf(w, "waits for: %s\n", waitsFor(execution))
	}
	if execution.Error != nil {
		fmt.Fprintf(w, "error: %v\n", execution.Error)
	}
	t := table{columns: []string{"STEP", "STATE", "TASKS", "STARTED", "TOOK", "WAITS FOR"}}
	for _, step := range execution.Steps {
		var took time.Duration
		switch {
		case !step.Ended.IsZero():
			took = step.Ended.Sub(step.Started)
		case step.State == flow.StepRunning && !execution.State.Ended(): // so far
			took = max(0, time.Since(step.Started).Truncate(time.Second))
		}
		t.add(step.Name, stepState(execution, step), len(step.Tasks), step.Started, took, stepWaits(step))
	}
	if err := printTable(w, t); err != nil {
		return err
	}
	for _, step := range execution.Steps {
		if lost := lostOf(step); len(lost) > 0 {
			fmt.Fprintf(w, "%s went on without: %s\n", step.Name, strings.Join(lost, "; "))
		}
	}
	return nil
}

// stepState is where a step stands. One that was under way when its execution turned back does not run any more once that has ended.
func stepState(x flow.Execution, step flow.StepStatus) string {
	if x.State.Ended() && step.State == flow.StepRunning {
		return "stopped"
	}
	return string(step.State)
}

// lostOf is what the tool of a step says that it went on without, under the name lost of its output.
func lostOf(step flow.StepStatus) []string {
	var out struct {
		Lost []string `json:"lost"`
	}
	if json.Unmarshal(step.Output, &out) != nil {
		return nil // it has no output, or another thing by that name
	}
	return out.Lost
}
