package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
)

// newVerb makes a verb: verb one that reads, change one that changes something.
type newVerb = func(name, args, short, example string, flags []cli.Flag, action cli.ActionFunc) *cli.Command

// change is a verb that changes something on the server, and so can be rehearsed: with --dry-run the server does all that it
// would do up to the first write, checks included, and tells what that would have been.
func change(name, args, short, example string, flags []cli.Flag, action cli.ActionFunc) *cli.Command {
	flags = append(flags, &cli.BoolFlag{Name: "dry-run", Usage: "show what would change, and change nothing"})
	return verb(name, args, short, example, flags, func(c *cli.Context) error {
		if !c.Bool("dry-run") {
			return action(c)
		}
		c.Context = context.WithValue(c.Context, rehearsingKey{}, true)
		err := action(c)
		var end *rehearsedError
		switch {
		case errors.As(err, &end):
			return printRehearsal(c, end.changes)
		case err == nil: // every call of a changing verb ends as a rehearsal
			return errors.New("the server did not say what would change; whether it changed something is not known")
		}
		return err
	})
}

type rehearsingKey struct{}

func rehearsing(ctx context.Context) bool { return ctx.Value(rehearsingKey{}) != nil }

// rehearsedError is the end of a rehearsed call.
type rehearsedError struct{ changes []control.Change }

func (e *rehearsedError) Error() string {
	return fmt.Sprintf("%d changes were rehearsed", len(e.changes))
}

func printRehearsal(c *cli.Context, changes []control.Change) error {
	if !forPeople(c) {
		return print(c, table{data: changes})
	}
	w := screen(c)
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing would change")
		return nil
	}
	for _, change := range changes {
		standing, is := "", false
		if id, found := strings.CutPrefix(change.Object, "execution/"); found && change.Before != nil && change.After != nil {
			standing, is = printStanding(id, change.Before, change.After)
		}
		switch {
		case is:
			fmt.Fprintln(w, standing)
		case change.Object == "execution":
			if err := printStart(w, change.After); err != nil {
				return err
			}
		case strings.HasPrefix(change.Object, "flow/") && change.Before != nil && change.After != nil:
			if err := printSave(w, change); err != nil {
				return err
			}
		case change.Gone:
			fmt.Fprintf(w, "- %s\n", change.Object)
		case change.Before == nil:
			fmt.Fprintf(w, "+ %s\n", change.Object)
			printFields(w, nil, change.After)
		default:
			fmt.Fprintf(w, "~ %s\n", change.Object)
			printFields(w, change.Before, change.After)
		}
	}
	return nil
}

// printStart tells what a start would begin, and what its tools say that they would touch.
func printStart(w io.Writer, document json.RawMessage) error {
	start, err := decode[flow.Rehearsal](document)
	if err != nil {
		return err
	}
	params, err := json.Marshal(start.Params)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "+ execution of %s, version %d, with %s\n", start.Flow, start.Version, params)
	return printPlanned(w, start)
}

// printSave tells what a save would change of a flow.
func printSave(w io.Writer, change control.Change) error {
	before, err := decode[flow.Definition](change.Before)
	if err != nil {
		return err
	}
	after, err := decode[flow.Definition](change.After)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "+ %s, in place of version %d\n", change.Object, before.Version)
	return printTable(w, diffTable(flow.Diff(before, after)))
}

// printFields tells the fields in which two documents differ, one a line.
func printFields(w io.Writer, before, after json.RawMessage) {
	old, now := make(map[string]string), make(map[string]string)
	flatten(old, "", before)
	flatten(now, "", after)
	paths := maps.Clone(old)
	maps.Copy(paths, now)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		was, had := old[path]
		is, has := now[path]
		switch {
		case had && has && was != is:
			fmt.Fprintf(w, "    %s: %s -> %s\n", path, was, is)
		case had && !has:
			fmt.Fprintf(w, "    %s: %s ->\n", path, was)
		case has && !had && is != "" && is != `""`:
			fmt.Fprintf(w, "    %s: %s\n", path, is)
		}
	}
}

// flatten puts the values of a document into out, by their paths.
func flatten(out map[string]string, path string, document json.RawMessage) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) == nil {
		flattenValue(out, path, value)
	}
}

func flattenValue(out map[string]string, path string, value any) {
	below := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	switch v := value.(type) {
	case map[string]any:
		for name, field := range v {
			flattenValue(out, below(name), field)
		}
	case []any:
		for i, element := range v {
			flattenValue(out, below(strconv.Itoa(i)), element)
		}
	case string:
		out[path] = v
	default:
		out[path] = fmt.Sprint(v)
	}
}
