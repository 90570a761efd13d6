package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestFlagsMayFollowArguments(t *testing.T) {
	app := newApp()
	for _, tc := range []struct{ in, want string }{
		{"zhiyun get devices -o json", "zhiyun get -o json devices"},
		{"zhiyun flow run expand module=m count=2 --watch", "zhiyun flow run --watch expand module=m count=2"},
		{"zhiyun flow run --key k expand --watch a=b", "zhiyun flow run --key k --watch expand a=b"},
		{"zhiyun scale out m --count=3 --dry-run", "zhiyun scale out --count=3 --dry-run m"},
		{"zhiyun apply - --reason why", "zhiyun apply --reason why -"},
		{"zhiyun config set k -- -5", "zhiyun config set -- k -5"},
		{"zhiyun", "zhiyun"},
		{"zhiyun nosuch -x", "zhiyun -x nosuch"},
		{"zhiyun flow run expand a=b --help", "zhiyun flow run --help"},
		{"zhiyun get devices -o json -h", "zhiyun get --help"},
		{"zhiyun config set k -- --help", "zhiyun config set -- k --help"},
	} {
		got := strings.Join(flagsFirst(app, strings.Fields(tc.in)), " ")
		if got != tc.want {
			t.Errorf("%q became %q, want %q", tc.in, got, tc.want)
		}
	}
}

// Every verb explains itself with an example, and has flags that are documented.
func TestEveryVerbHasAnExample(t *testing.T) {
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, command := range commands {
			name := path + " " + command.Name
			if command.Usage == "" {
				t.Errorf("%s has no usage line", name)
			}
			if len(command.Subcommands) == 0 && !strings.Contains(command.Description, "$ zhiyun") && !strings.Contains(command.Description, "zhiyun") {
				t.Errorf("%s shows no example", name)
			}
			for _, flag := range command.Flags {
				if documented, ok := flag.(cli.DocGenerationFlag); ok && documented.GetUsage() == "" {
					t.Errorf("%s: flag --%s has no usage", name, flag.Names()[0])
				}
			}
			walk(name, command.Subcommands)
		}
	}
	walk("zhiyun", newApp().Commands)
}

// run is the command line. The library keeps its help flag in a global, so the tests here are not parallel.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	app := newApp()
	var out bytes.Buffer
	app.Writer, app.ErrWriter = &out, &out
	err := app.RunContext(t.Context(), flagsFirst(app, append([]string{"zhiyun"}, args...)))
	return out.String(), err
}

// Who has half a command and asks for help gets that of its verb.
func TestHelpMayFollowArguments(t *testing.T) {
	out, err := run(t, "flow", "run", "expand", "module=shop.cart", "--help")
	if err != nil || !strings.Contains(out, "zhiyun flow run - start an execution") {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
}

// A tool runs by its name, with the word run before it or not.
func TestToolRuns(t *testing.T) {
	for _, args := range [][]string{{"tool", "run", "device.acquire", "--describe"}, {"tool", "device.acquire", "--describe"}} {
		out, err := run(t, args...)
		if err != nil || !strings.Contains(out, `"device.acquire"`) {
			t.Errorf("%v: error %v, printed:\n%s", args, err, out)
		}
	}
}

func TestWrongCallsAreExitCodeTwo(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag":        {"get", "--nosuch"},
		"unknown kind":        {"get", "gadgets", "--server", "http://127.0.0.1:1"},
		"unknown verb":        {"flow", "nosuch"},
		"unknown first verb":  {"nosuch"},
		"bad target":          {"get", "devices", "--server", "ftp://x"},
		"plain http off host": {"get", "devices", "--server", "http://192.0.2.1:80"},
		"missing argument":    {"flow", "show", "--server", "http://127.0.0.1:1"},
		"no word on the end":  {"flow", "settle", "3f2a", "install", "--server", "http://127.0.0.1:1"},
		"both words":          {"flow", "settle", "3f2a", "install", "--done", "--undone", "--server", "http://127.0.0.1:1"},
		"not an object":       {"flow", "retry-step", "3f2a", "install", "--input", "[1]", "--server", "http://127.0.0.1:1"},
		"bad parameter":       {"flow", "run", "expand", "module", "--server", "http://127.0.0.1:1"},
		"bad number":          {"dev", "--devices", "many"},
		"argument too many":   {"scale", "out", "shop.cart", "9", "--server", "http://127.0.0.1:1"},
		"two to pause":        {"pause", "shop.cart", "shop.web", "--server", "http://127.0.0.1:1"},
		"number of devices":   {"dev", "8"},
		"nothing to measure":  {"bench"},
		"two tools":           {"tool", "run", "flow.params", "name.lookup"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, args...)
			exit, ok := err.(cli.ExitCoder)
			if !ok || exit.ExitCode() != exitUsage {
				t.Fatalf("%v: error %v, want exit code 2", args, err)
			}
		})
	}
}

func TestRulesWithWhatJSONHasNotAreNamed(t *testing.T) {
	_, err := readRules("-", strings.NewReader("locality: {prefer: site, spare: .nan}"))
	exit, ok := err.(cli.ExitCoder)
	if !ok || exit.ExitCode() != exitUsage || !strings.Contains(err.Error(), "NaN") {
		t.Errorf("error %v, want exit code 2", err)
	}
}

func TestServerThatIsNotThereIsNamed(t *testing.T) {
	_, err := run(t, "get", "devices", "--server", "http://127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Fatalf("error %v does not say that the server cannot be reached", err)
	}
}

func TestDocumentsPrintInThreeFormats(t *testing.T) {
	items := []json.RawMessage{
		json.RawMessage(`{"name":"a","status":{"percent":10},"new":[{"id":"p"},{"id":"q"}],"since":"2026-01-02T03:04:05Z"}`),
		json.RawMessage(`{"name":"b"}`),
	}
	for format, want := range map[string]string{
		"table": "NAME  PERCENT  MEMBERS\na     10       p,q\nb     -        -\n",
		"yaml":  "- name: a\n  status:\n    percent: 10\n  new:\n    - id: p\n    - id: q\n  since: \"2026-01-02T03:04:05Z\"\n- name: b\n",
	} {
		app := newApp()
		var out bytes.Buffer
		app.Writer = &out
		app.Commands = []*cli.Command{{Name: "show", Flags: []cli.Flag{outputFlag()}, Action: func(c *cli.Context) error {
			return printDocuments(c, items, "NAME:name", "PERCENT:status.percent", "MEMBERS:new.id")
		}}}
		if err := app.Run([]string{"zhiyun", "show", "-o", format}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
}
