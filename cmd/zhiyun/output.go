package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// outputFlag is the -o of every verb that prints.
func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, wide (a table that is not cut to the terminal), json or yaml"}
}

// table is what a verb prints: columns for people, data for programs. The data's JSON form is a contract.
type table struct {
	columns []string
	rows    [][]string
	data    any
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = text(cell)
	}
	t.rows = append(t.rows, row)
}

// text is a cell for people: no value is a dash, so that columns stay readable and cuttable.
func text(cell any) string {
	var s string
	switch v := cell.(type) {
	case time.Time:
		if !v.IsZero() {
			s = v.Local().Format("2006-01-02 15:04:05")
		}
	case time.Duration:
		s = v.Round(time.Millisecond).String()
	case []string:
		s = strings.Join(v, ",")
	default:
		s = fmt.Sprint(v)
	}
	if s == "" || s == "<nil>" {
		return "-"
	}
	return s
}

// print writes t in the format that the user asked for.
func print(c *cli.Context, t table) error {
	switch format := c.String("output"); format {
	case "table", "wide", "":
		return printTable(screen(c), t)
	case "json":
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(t.data)
	case "yaml":
		return printYAML(c.App.Writer, t.data)
	default:
		return usage("--output %q: want table, wide, json or yaml", format)
	}
}

// forPeople says whether people read what is printed, and not programs.
func forPeople(c *cli.Context) bool {
	format := c.String("output")
	return format == "" || format == "table" || format == "wide"
}

// screen is where tables go: one that says its width, if they are to be cut to it.
func screen(c *cli.Context) io.Writer {
	if c.String("output") == "wide" {
		return struct{ io.Writer }{c.App.Writer}
	}
	return c.App.Writer
}

// printDocuments prints JSON documents: as they are for programs, and for people by columns, each "TITLE:path" where the
// path leads through the fields; below a list it takes each element's.
func printDocuments(c *cli.Context, items []json.RawMessage, columns ...string) error {
	t := table{data: items}
	if items == nil {
		t.data = []json.RawMessage{}
	}
	var paths [][]string
	for _, column := range columns {
		title, path, _ := strings.Cut(column, ":")
		t.columns = append(t.columns, title)
		paths = append(paths, strings.Split(path, "."))
	}
	for _, item := range items {
		var document any
		if err := json.Unmarshal(item, &document); err != nil {
			return fmt.Errorf("the server's answer: %w", err)
		}
		cells := make([]any, len(paths))
		for i, path := range paths {
			cells[i] = strings.Join(follow(document, path), ",")
		}
		t.add(cells...)
	}
	return print(c, t)
}

// follow returns the texts at the end of a path.
func follow(value any, path []string) []string {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		var out []string
		for _, element := range v {
			out = append(out, follow(element, path)...)
		}
		return out
	case map[string]any:
		if len(path) > 0 {
			return follow(v[path[0]], path[1:])
		}
		content, _ := json.Marshal(v)
		return []string{string(content)}
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return []string{text(at)}
		}
		return []string{v}
	case float64:
		return []string{strconv.FormatFloat(v, 'g', 8, 64)}
	}
	return []string{fmt.Sprint(value)}
}

func printTable(w io.Writer, t table) error {
	if file, is := w.(*os.File); is {
		if size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil {
			t = t.cut(int(size.Col))
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(t.columns, "\t"))
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// leastCell is how narrow a column is made at most.
const leastCell = 8

// cut makes a table fit a width, 0 for any: the widest columns give way, all alike, the first one last, since it says what a row is about.
func (t table) cut(width int) table {
	wide := make([]int, len(t.columns))
	for _, row := range append([][]string{t.columns}, t.rows...) {
		for i, cell := range row[:min(len(row), len(wide))] {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	over := func() (n int) {
		for _, w := range wide {
			n += w + 2
		}
		return n - 2 - width
	}
	if width <= 0 || len(wide) == 0 || over() <= 0 {
		return t
	}
	for _, some := range [][]int{wide[1:], wide[:1]} {
		for most := slices.Max(slices.Concat(some, []int{leastCell})); over() > 0 && most > leastCell; most-- {
			for i := range some {
				some[i] = min(some[i], max(most-1, leastCell))
			}
		}
	}
	out := table{columns: t.columns, data: t.data}
	for _, row := range t.rows {
		short := slices.Clone(row)
		for i, cell := range short[:min(len(row), len(wide))] {
			if utf8.RuneCountInString(cell) > wide[i] {
				short[i] = string([]rune(cell)[:wide[i]-1]) + "…"
			}
		}
		out.rows = append(out.rows, short)
	}
	return out
}

// printYAML goes through JSON, so that both formats have the same names.
func printYAML(w io.Writer, data any) error {
	content, err := json.Marshal(data)
	if err != nil {
		return err
	}
	var node yaml.Node // JSON is YAML; a node keeps the order of the fields
	if err := yaml.Unmarshal(content, &node); err != nil {
		return err
	}
	plain(&node)
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	defer encoder.Close()
	return encoder.Encode(&node)
}

// plain drops JSON's braces and quotes where YAML does not need them.
func plain(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		plain(child)
	}
}

// usage is an error of the call itself that the help of the verb mends: exit code 2.
func usage(format string, args ...any) error {
	return cli.Exit(fmt.Sprintf(format, args...)+" (see --help)", exitUsage)
}
