package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
)

// written are the repository's documents, by path. What was decided or released once stays as it was written, and is not among them.
func written(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "adr" || entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".."):
			if path == "../.." {
				return nil
			}
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".md") || entry.Name() == "CHANGELOG.md":
			return nil
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Each call of zhiyun that a document shows is one that zhiyun takes: the verb is there, and has the flags.
func TestDocumentsShowCallsThatAreTaken(t *testing.T) {
	app, calls := newApp(), 0
	for path, text := range written(t) {
		for _, call := range callsIn(text) {
			calls++
			if fault := refused(app, call); fault != "" {
				t.Errorf("%s shows zhiyun %s: %s", path, strings.Join(call, " "), fault)
			}
		}
	}
	if calls < 90 {
		t.Errorf("only %d calls were found in the documents", calls)
	}
	for call, want := range map[string]string{
		"flow explode": "no verb explode", "explode": "no verb explode", "flow list --stat stuck": "no flag stat", "flow run --key": "", "flow": "", "flow list --state=stuck": "",
	} {
		if got := refused(app, strings.Fields(call)); got != want {
			t.Errorf("zhiyun %s: %q, want %q", call, got, want)
		}
	}
}

// Each flow and each trigger that a document shows can be saved, as far as that needs no tools.
func TestDocumentsShowFlowsThatParse(t *testing.T) {
	shown := 0
	for path, text := range written(t) {
		for _, match := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
			var err error
			switch block := match[1]; {
			case strings.HasPrefix(block, "flow:"):
				_, err = flow.Parse([]byte(block))
			case strings.HasPrefix(block, "trigger:"):
				_, err = trigger.Parse([]byte(block))
			default:
				continue
			}
			if shown++; err != nil {
				t.Errorf("%s shows\n%s%v", path, match[1], err)
			}
		}
	}
	if shown < 4 {
		t.Errorf("only %d flows and triggers were found in the documents", shown)
	}
}

var example = regexp.MustCompile("(?m)^(?:\\$ )?(?:bin/)?zhiyun (.*)$|`(?:bin/)?zhiyun ([^`]*)`")

// callsIn are the words behind each "zhiyun" that begins a line of an example, or a text between backquotes. A word such as a|b stands for several calls.
func callsIn(text string) (calls [][]string) {
	for _, match := range example.FindAllStringSubmatch(text, -1) {
		all := [][]string{nil}
		for _, word := range words(match[1] + match[2]) {
			one := []string{word}
			if strings.Contains(word, "|") && !strings.ContainsAny(word, "=' ") && word[0] != '-' {
				one = strings.Split(word, "|")
			}
			var longer [][]string
			for _, call := range all {
				for _, w := range one {
					longer = append(longer, append(slices.Clone(call), w))
				}
			}
			all = longer
		}
		calls = append(calls, all...)
	}
	return calls
}

// words splits a line as a shell does, as far as examples go, up to a comment or what another program does.
func words(line string) (out []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var word strings.Builder
		quote := byte(0)
		i := 0
		for ; i < len(line) && (quote != 0 || line[i] != ' '); i++ {
			switch c := line[i]; {
			case c == quote:
				quote = 0
			case quote == 0 && (c == '\'' || c == '"'):
				quote = c
			default:
				word.WriteByte(c)
			}
		}
		line = line[i:]
		switch w := word.String(); {
		case slices.Contains([]string{"|", ">", "&&", "&", "<", "\\", "..."}, w) || strings.HasPrefix(w, "#"):
			return out
		case strings.HasSuffix(w, ";"):
			return append(out, strings.TrimSuffix(w, ";"))
		default:
			out = append(out, w)
		}
	}
	return out
}

// refused says why a call is not one of zhiyun's; nothing if it is.
func refused(app *cli.App, call []string) string {
	commands, flags, leaf := app.Commands, app.Flags, false
	for !leaf && len(call) > 0 && !strings.HasPrefix(call[0], "-") {
		command := find(commands, call[0])
		switch {
		case command == nil && strings.ToUpper(call[0]) == call[0]:
			return "" // a name to be filled in
		case command == nil:
			return "no verb " + call[0]
		}
		commands, flags, call = command.Subcommands, command.Flags, call[1:]
		leaf = len(commands) == 0
	}
	for i, word := range call {
		name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if word[0] != '-' || name == "" || name == "help" || i > 0 && takesValue(flags, call[i-1]) {
			continue
		}
		if !slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }) {
			return "no flag " + name
		}
	}
	return ""
}
