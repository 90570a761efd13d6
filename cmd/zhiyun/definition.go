package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

func lintCommand() *cli.Command {
	return verb("lint", "FILE", "check a definition against the server's tools and flows; keeps nothing", "zhiyun flow lint expand.yaml", nil, with(lintFlow))
}

func flowPlanCommand() *cli.Command {
	return verb("plan", "FLOW[@VERSION] [NAME=VALUE|NAME=@FILE ...]", "show each step with its input, as far as the parameters tell; runs nothing",
		"zhiyun flow plan expand module=shop.cart count=2", nil, with(planFlow))
}

func graphCommand() *cli.Command {
	command := verb("graph", "FLOW[@VERSION]|FILE", "draw a flow", "zhiyun flow graph expand -o dot | dot -Tsvg > expand.svg", nil, graphFlow)
	command.Flags = append(serverFlags(), &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text", Usage: "`FORM`: text, dot or mermaid"})
	return command
}

func diffCommand() *cli.Command {
	return verb("diff", "FLOW [A] [B]", "show what differs between two versions of a flow, by step and field; A and B are versions or files; by default the last two, or A and the latest",
		"zhiyun flow diff expand 3 5", nil, with(diffFlow))
}

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON Schema of the format of flows, for editors", Description: "Example:\n\n  $ zhiyun flow schema > flow.schema.json",
		Action: func(c *cli.Context) error {
			_, err := c.App.Writer.Write(flow.JSONSchema())
			return err
		},
	}
}

func lintFlow(c *cli.Context, a *control.Client) error {
	text, err := readArg(c)
	if err != nil {
		return err
	}
	answer, err := call(c.Context, a.Flows.Lint, &controlpb.LintFlowRequest{Document: text})
	if err != nil {
		return err
	}
	if len(answer.Items) == 0 {
		fmt.Fprintln(c.App.Writer, "no faults")
		return nil
	}
	if err := printDocuments(c, raws(answer.Items), "LINE:line", "COLUMN:column", "PATH:path", "PROBLEM:message"); err != nil {
		return err
	}
	faults := 0
	for _, item := range answer.Items {
		if fault, err := decode[flow.Fault](item); err != nil || !fault.Warning {
			faults++
		}
	}
	if faults == 0 {
		fmt.Fprintf(c.App.Writer, "no faults; warnings: %d\n", len(answer.Items))
		return nil
	}
	return cli.Exit(fmt.Sprintf("faults: %d", faults), exitFailed)
}

func planFlow(c *cli.Context, a *control.Client) error {
	name, err := arg(c, 0, "flow's name")
	if err != nil {
		return err
	}
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && strings.Contains(name, ".") {
		return usage("flow plan %s: it plans flows that are saved: zhiyun flow save %s, then give the flow's name", name, name)
	}
	values, err := params(c, a, name, c.Args().Tail())
	if err != nil {
		return err
	}
	content, err := json.Marshal(values)
	if err != nil {
		return err
	}
	answer, err := call(c.Context, a.Flows.Plan, &controlpb.PlanFlowRequest{Flow: name, Params: content})
	if err != nil {
		return err
	}
	if !forPeople(c) {
		return print(c, table{data: json.RawMessage(answer.Json)})
	}
	plan, err := decode[flow.Plan](answer.Json)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s v%d  %s\n", plan.Flow, plan.Version, text(plan.Title))
	if len(plan.Locks) > 0 {
		fmt.Fprintf(c.App.Writer, "holds: %s\n", strings.Join(plan.Locks, ", "))
	}
	t := table{columns: []string{"STEP", "DOES", "FATE", "INPUT", "NEEDS"}}
	for _, s := range plan.Steps {
		name := strings.Repeat("  ", s.Depth) + s.Name
		t.add(name, does(s), fate(s), input(s), s.Needs)
		for i, item := range s.First {
			one := flow.PlannedStep{Tool: s.Tool, Device: item.Device, Input: item.Input}
			t.add(fmt.Sprintf("%s[%d]", name, i), does(one), "", input(one), "")
		}
		if n := len(s.First); n > 0 && n < *s.Items {
			t.add(fmt.Sprintf("%s[%d]", name, n), fmt.Sprintf("and so on, to [%d]", *s.Items-1), "", "", "")
		}
	}
	return printTable(screen(c), t)
}

func does(s flow.PlannedStep) string {
	out := s.Kind
	switch {
	case s.Tool != "":
		out = s.Tool
	case s.Says != "":
		out = "notify: " + s.Says
	case s.Waits != "":
		out = "wait for " + s.Waits
	case s.Takes != "":
		out += ": " + s.Takes
	}
	if s.Device != "" {
		out += " on " + s.Device
	}
	switch {
	case s.Items != nil:
		out += fmt.Sprintf(", %d times", *s.Items)
	case s.Each != "":
		out += ", each of " + s.Each
	}
	return out
}

func fate(s flow.PlannedStep) string {
	if s.Fails != "" {
		return "fails: " + s.Fails
	}
	if s.Why == "" {
		return string(s.Fate)
	}
	return string(s.Fate) + ": " + s.Why
}

func input(s flow.PlannedStep) string {
	if s.Input == nil {
		return ""
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s.Input); err != nil {
		return ""
	}
	return strings.TrimSpace(out.String())
}

// isFile reports whether an argument names a document in a file, and not a flow or a version.
func isFile(name string) bool {
	ext := filepath.Ext(name)
	return ext == ".yaml" || ext == ".yml" || strings.ContainsRune(name, filepath.Separator)
}

func fileDefinition(path string) (flow.Definition, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return flow.Definition{}, usage("%v", err)
	}
	d, err := flow.Parse(content)
	if err != nil {
		return flow.Definition{}, usage("%s: %v", path, err)
	}
	return d, nil
}

// serverDefinition fetches a version of a flow, 0 for the latest.
func serverDefinition(c *cli.Context, a *control.Client, name string, version int) (flow.Definition, error) {
	answer, err := call(c.Context, a.Reading().Flows.Definition, &controlpb.DefinitionRequest{Flow: name, Version: int32(version)})
	if err != nil {
		return flow.Definition{}, err
	}
	saved, err := decode[flow.Definition](answer.Json)
	if err != nil {
		return flow.Definition{}, err
	}
	d, err := flow.Parse(answer.Document) // in which 2 and 2.0 are different
	d.Version = saved.Version
	return d, err
}

// versionOf reads a version's number.
func versionOf(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return 0, usage("version %q: want a number from 1", text)
	}
	return int(n), nil
}

func graphFlow(c *cli.Context) error {
	name, err := arg(c, 0, "flow's name")
	if err != nil {
		return err
	}
	draw := func(d flow.Definition, err error) error {
		if err != nil {
			return err
		}
		drawn, err := flow.Graph(d, c.String("output"))
		if err != nil {
			return usage("%v", err)
		}
		fmt.Fprint(c.App.Writer, drawn)
		return nil
	}
	if isFile(name) {
		return draw(fileDefinition(name))
	}
	name, pin, pinned := strings.Cut(name, "@")
	version := 0
	if pinned {
		if version, err = versionOf(pin); err != nil {
			return err
		}
	}
	return with(func(c *cli.Context, a *control.Client) error { return draw(serverDefinition(c, a, name, version)) })(c)
}

func diffFlow(c *cli.Context, a *control.Client) error {
	name, err := arg(c, 0, "flow's name")
	if err != nil {
		return err
	}
	sides := c.Args().Tail()
	if len(sides) > 2 {
		return usage("flow diff: want FLOW and at most two versions or files")
	}
	one := func(side string) (flow.Definition, error) {
		if isFile(side) {
			return fileDefinition(side)
		}
		version, err := versionOf(side)
		if err != nil {
			return flow.Definition{}, err
		}
		return serverDefinition(c, a, name, version)
	}
	var before, after flow.Definition
	switch {
	case len(sides) == 2:
		if before, err = one(sides[0]); err == nil {
			after, err = one(sides[1])
		}
	case len(sides) == 1 && isFile(sides[0]):
		if before, err = serverDefinition(c, a, name, 0); err == nil {
			after, err = fileDefinition(sides[0])
		}
	default:
		if after, err = serverDefinition(c, a, name, 0); err != nil {
			break
		}
		switch {
		case len(sides) == 1:
			before, err = one(sides[0])
		case after.Version < 2:
			return usage("flow %s has one version; name a file to compare it with", name)
		default:
			before, err = serverDefinition(c, a, name, after.Version-1)
		}
	}
	if err != nil {
		return err
	}
	changes := flow.Diff(before, after)
	if len(changes) == 0 && forPeople(c) {
		fmt.Fprintln(c.App.Writer, "no differences")
		return nil
	}
	return print(c, diffTable(changes))
}

func diffTable(changes []flow.Change) table {
	t := table{columns: []string{"PART", "FIELD", "", "BEFORE", "AFTER"}, data: changes}
	for _, change := range changes {
		part := change.Part
		if part == "" {
			part = "flow"
		}
		t.add(part, change.Field, change.Kind, change.Before, change.After)
	}
	return t
}

func checkCommand() *cli.Command {
	return verb("check", "", "verify the store of the flows: histories without gaps that fold to what stands for them, and for whatever is open one thing that wakes it; reads only",
		"zhiyun flow check --open", []cli.Flag{&cli.BoolFlag{Name: "open", Usage: "only executions that have not ended"}}, with(func(c *cli.Context, a *control.Client) error {
			answer, err := call(c.Context, a.Flows.Check, &controlpb.CheckFlowsRequest{Open: c.Bool("open")})
			if err != nil {
				return err
			}
			report, err := decode[flow.CheckReport](answer.Json)
			if err != nil {
				return err
			}
			t := table{columns: []string{"EXECUTION", "FAULT"}, data: report}
			for _, v := range report.Violations {
				t.add(v.Execution, v.Message)
			}
			switch {
			case len(report.Violations) == 0 && forPeople(c):
				fmt.Fprintf(c.App.Writer, "%d executions, no fault\n", report.Executions)
				return nil
			case len(report.Violations) == 0:
				return print(c, t)
			}
			if err := print(c, t); err != nil {
				return err
			}
			return fmt.Errorf("%d faults in %d executions; keep a copy of the store before you mend anything", len(report.Violations), report.Executions)
		}))
}
