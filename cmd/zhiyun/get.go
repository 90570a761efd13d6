package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// columns are what `get` shows of each kind; kinds without a row show their names alone.
var columns = map[cmdb.Kind][]string{
	cmdb.KindDevice:     {"NAME:name", "STATE:state", "MODULE:module", "ADDR:addr", "SITE:site", "TYPE:type", "HOLDER:holder", "FAULT:fault", "SINCE:since"},
	cmdb.KindModule:     {"NAME:name", "BUSINESS:business", "MIN:scale.min", "MAX:scale.max", "SERVICES:services.id", "PACKAGES:packages.name", "CALLS:permissions"},
	cmdb.KindSite:       {"NAME:name", "CITY:city"},
	cmdb.KindDeviceType: {"NAME:name", "CORES:cores", "MEMORY_MB:memory_mb"},
}

// kindOf accepts a kind in the singular or plural, with '-' for '_'.
func kindOf(given string) (cmdb.Kind, error) {
	name := strings.ReplaceAll(given, "-", "_")
	var known []string
	for _, kind := range cmdb.Kinds() {
		if k := string(kind); name == k || name == k+"s" || name == strings.TrimSuffix(k, "s")+"es" {
			return kind, nil
		}
		known = append(known, string(kind))
	}
	return "", usage("kind %q: there are %s", given, strings.Join(known, ", "))
}

func getCommand() *cli.Command {
	return verb("get", "KIND [NAME]", "list the objects of the CMDB, or show one",
		"zhiyun get devices --filter 'state == \"idle\"' -o table",
		[]cli.Flag{&cli.StringFlag{Name: "filter", Usage: "CEL `EXPRESSION` over an object's fields"}, limitFlag()},
		func(c *cli.Context) error {
			kind, err := kindOf(c.Args().First())
			if err != nil {
				return err
			}
			server, err := dial(c)
			if err != nil {
				return err
			}
			client := server.Resources
			var items []json.RawMessage
			if name := c.Args().Get(1); name != "" {
				answer, err := call(c.Context, client.Get, &controlpb.GetResourceRequest{Kind: string(kind), Name: name})
				if err != nil {
					return err
				}
				items = append(items, answer.Json)
			} else if items, err = pages(c.Int("limit"), func(page *controlpb.Page) (*controlpb.Listing, error) {
				return call(c.Context, client.List, &controlpb.ListResourcesRequest{Kind: string(kind), Filter: c.String("filter"), Page: page})
			}); err != nil {
				return err
			}
			shown := columns[kind]
			if shown == nil {
				shown = []string{"NAME:name"}
			}
			return printDocuments(c, items, shown...)
		})
}

func describeCommand() *cli.Command {
	return verb("describe", "KIND NAME", "show one object of the CMDB whole, with its history",
		"zhiyun describe module shop.cart", nil,
		func(c *cli.Context) error {
			kind, err := kindOf(c.Args().First())
			if err != nil {
				return err
			}
			name := c.Args().Get(1)
			if name == "" {
				return usage("describe %s: which one? Give its name", kind)
			}
			server, err := dial(c)
			if err != nil {
				return err
			}
			client := server.Resources
			object, err := call(c.Context, client.Get, &controlpb.GetResourceRequest{Kind: string(kind), Name: name})
			if err != nil {
				return err
			}
			history, err := call(c.Context, client.History, &controlpb.HistoryRequest{Kind: string(kind), Name: name})
			if err != nil {
				return err
			}
			var changes []json.RawMessage
			for _, item := range history.Items {
				changes = append(changes, item)
			}
			data := map[string]any{"object": json.RawMessage(object.Json), "history": changes}
			if !forPeople(c) {
				return print(c, table{data: data})
			}
			if err := printYAML(c.App.Writer, json.RawMessage(object.Json)); err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, "\nhistory:")
			t := table{columns: []string{"VERSION", "AT", "WHO", "WHY", "WHAT"}}
			for _, item := range changes {
				change, err := decode[cmdb.Change](item)
				if err != nil {
					return err
				}
				t.add(change.Version, change.At, change.Actor, change.Reason, change.Action)
			}
			return printTable(screen(c), t)
		})
}

// documents reads the YAML files that the arguments name: files, folders, or - for standard input.
func documents(args []string) ([]*controlpb.SourceDocument, error) {
	if len(args) == 0 {
		return nil, usage("give files or folders of YAML, or - for standard input")
	}
	var files []string
	var out []*controlpb.SourceDocument
	for _, arg := range args {
		if arg == "-" {
			text, err := io.ReadAll(os.Stdin)
			if err != nil {
				return nil, err
			}
			out = append(out, &controlpb.SourceDocument{Name: "standard input", Text: text})
			continue
		}
		err := filepath.WalkDir(arg, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			ext := filepath.Ext(path)
			if !entry.IsDir() && (path == arg || ext == ".yaml" || ext == ".yml" || ext == ".json") {
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, usage("%v", err)
		}
	}
	slices.Sort(files)
	for _, file := range slices.Compact(files) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, usage("%v", err)
		}
		out = append(out, &controlpb.SourceDocument{Name: file, Text: text})
	}
	if len(out) == 0 {
		return nil, usage("no .yaml, .yml or .json file below %s", strings.Join(args, ", "))
	}
	return out, nil
}

func planCommand() *cli.Command {
	return verb("plan", "FILE|FOLDER|- ...", "show what an apply would change, and what that touches",
		"zhiyun plan site/",
		[]cli.Flag{pruneFlag()},
		func(c *cli.Context) error {
			docs, err := documents(c.Args().Slice())
			if err != nil {
				return err
			}
			server, err := dial(c)
			if err != nil {
				return err
			}
			client := server.Resources
			plan, err := call(c.Context, client.Plan, &controlpb.PlanRequest{Documents: docs, Prune: c.StringSlice("prune")})
			if err != nil {
				return err
			}
			if !forPeople(c) {
				return print(c, table{data: json.RawMessage(plan.Plan)})
			}
			fmt.Fprint(c.App.Writer, plan.Text)
			if !plan.Empty {
				fmt.Fprintf(c.App.Writer, "\napply exactly this with: zhiyun apply --plan %s %s\n", plan.Hash, strings.Join(c.Args().Slice(), " "))
			}
			return nil
		})
}

func pruneFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "prune", Usage: "`KIND` of which everything goes that the files do not declare; repeatable"}
}

func applyCommand() *cli.Command {
	return verb("apply", "FILE|FOLDER|- ...", "make the CMDB what the files declare",
		"zhiyun apply site/ --reason 'new site'",
		[]cli.Flag{
			pruneFlag(), reasonFlag(),
			&cli.StringFlag{Name: "plan", Usage: "`HASH` of the plan that was looked at: apply exactly that or nothing"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show the plan and change nothing"},
		},
		func(c *cli.Context) error {
			if c.Bool("dry-run") {
				return planCommand().Action(c)
			}
			docs, err := documents(c.Args().Slice())
			if err != nil {
				return err
			}
			server, err := dial(c)
			if err != nil {
				return err
			}
			client := server.Resources
			answer, err := call(c.Context, client.Apply, &controlpb.ApplyRequest{
				Documents: docs, Prune: c.StringSlice("prune"), Hash: c.String("plan"), Cause: cause(c),
			})
			if err != nil {
				return err
			}
			if !forPeople(c) {
				return print(c, table{data: map[string]any{"revision": answer.Revision, "plan": json.RawMessage(answer.Plan.Plan)}})
			}
			fmt.Fprint(c.App.Writer, answer.Plan.Text)
			return nil
		})
}

func deleteCommand() *cli.Command {
	return change("delete", "KIND NAME", "take an object out of the CMDB",
		"zhiyun delete site old-site --reason 'closed'", []cli.Flag{reasonFlag()},
		func(c *cli.Context) error {
			kind, err := kindOf(c.Args().First())
			if err != nil {
				return err
			}
			server, err := dial(c)
			if err != nil {
				return err
			}
			client := server.Resources
			answer, err := call(c.Context, client.Delete, &controlpb.DeleteResourceRequest{Kind: string(kind), Name: c.Args().Get(1), Cause: cause(c)})
			if err != nil {
				return err
			}
			fmt.Fprint(c.App.Writer, answer.Plan.GetText())
			return nil
		})
}
