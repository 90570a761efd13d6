package tooltest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/tooltest"
)

func made(t *testing.T, language string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "note.lay")
	if _, err := tooltest.New(dir, "note.lay", language); err != nil {
		t.Fatal(err)
	}
	if language == "go" {
		build := exec.Command("go", "build", "-o", "run", ".")
		build.Dir, build.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return dir
}

// What tool new writes passes tool test, with nothing left to mend.
func TestNewToolsPass(t *testing.T) {
	t.Parallel()
	for _, language := range tooltest.Languages() {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("python3"); language == "python" && err != nil {
				if os.Getenv("ZHIYUN_REQUIRE") == "1" {
					t.Fatal("python3 is not installed; apt-get install python3")
				}
				t.Skip("python3 is not installed; apt-get install python3")
			}
			dir := made(t, language)
			tooltest.Verify(t, tooltest.Config{Dir: dir})
			m, err := flow.ReadManifest(dir)
			if err != nil {
				t.Fatal(err)
			}
			if problems := tooltest.Lint(m); len(problems) > 0 {
				t.Errorf("lint: %+v", problems)
			}
		})
	}
}

// Every check fails on a tool with the fault that it looks for.
func TestChecksFind(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		manifest func(map[string]any)
		script   [2]string // replaced in run, and by what
		fails    string
	}{
		"manifest that the program does not tell": {script: [2]string{`exec cat "$(dirname "$0")/tool.json"`, `echo '{"name": "note.lay"}'; exit`}, fails: "describe"},
		"no examples":              {manifest: func(m map[string]any) { delete(m, "examples") }, fails: "lint"},
		"another output":           {script: [2]string{`printf '{"path": "notes/%s"}\n' "$name"`, `printf '{"path": "note/%s"}\n' "$name"`}, fails: "examples"},
		"takes anything":           {script: [2]string{`[ -n "$name" ] ||`, `[ -n "$name" ] || name=x; :  ||`}, fails: "bad input"},
		"once more each time":      {script: [2]string{`mv "$note.tmp" "$note"`, `mv "$note.tmp" "$note"; echo x >> "$notes/count"; touch "$notes/$$"`}, fails: "same key"},
		"says it is pure":          {manifest: func(m map[string]any) { m["effect"] = "pure" }, fails: "same key"},
		"undo forgets":             {script: [2]string{`= "$ZHIYUN_KEY" ]; then rm -f "$note"; fi`, `= "$ZHIYUN_KEY" ]; then :; fi`}, fails: "undo"},
		"undo fails without do":    {script: [2]string{`= "$ZHIYUN_KEY" ]; then rm -f "$note"; fi`, `= "$ZHIYUN_KEY" ]; then rm -f "$note"; else exit 3; fi`}, fails: "undo of nothing"},
		"half a note":              {script: [2]string{`printf '%s' "$ZHIYUN_KEY" > "$note.tmp"`, `printf 'half' > "$note"; sleep 1; printf '%s' "$ZHIYUN_KEY" > "$note.tmp"`}, fails: "killed"},
		"deaf":                     {script: [2]string{"set -eu\n", "set -eu\ntrap '' TERM\nend=$(($(date +%s)+8)); while [ $(date +%s) -lt $end ]; do sleep 0.1; done\n"}, fails: "told to end"},
		"leaves a process":         {script: [2]string{`mkdir -p "$notes"`, `mkdir -p "$notes"; sleep 60 >/dev/null 2>&1 &`}, fails: "nothing left"},
		"does what it should plan": {script: [2]string{`[ -n "${ZHIYUN_PLAN:-}" ]`, `mkdir -p "$notes" && [ -n "${ZHIYUN_PLAN:-}" ]`}, fails: "plan"},
		"is not resident":          {manifest: func(m map[string]any) { m["resident"] = map[string]any{} }, fails: "resident"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := made(t, "sh")
			if tc.manifest != nil {
				path := filepath.Join(dir, flow.ManifestFile)
				edit(t, path, func(text string) string {
					var m map[string]any
					if err := json.Unmarshal([]byte(text), &m); err != nil {
						t.Fatal(err)
					}
					tc.manifest(m)
					data, err := json.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					return string(data)
				})
			}
			if tc.script[0] != "" {
				edit(t, filepath.Join(dir, "run"), func(text string) string {
					if !strings.Contains(text, tc.script[0]) {
						t.Fatalf("run has no %q", tc.script[0])
					}
					return strings.Replace(text, tc.script[0], tc.script[1], 1)
				})
			}
			others := map[string]string{}
			for _, check := range tooltest.Checks() {
				if check != tc.fails {
					others[check] = "not looked at here"
				}
			}
			findings, err := tooltest.Check(t.Context(), tooltest.Config{Dir: dir, Skip: others})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range findings {
				found = found || f.Check == tc.fails && f.Outcome == tooltest.Failed
			}
			if !found {
				t.Errorf("the check %q passed; all: %+v", tc.fails, findings)
			}
		})
	}
}

func edit(t *testing.T, path string, change func(string) string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(change(string(data))), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	problems := tooltest.Lint(flow.Manifest{
		Name: "db.user", Command: []string{"db-user"}, Effect: flow.Keyed, Undo: "db.user",
		Input:    json.RawMessage(`{"type": "object", "properties": {"password": {"type": "string"}, "count": {}}, "required": ["password"]}`),
		Output:   json.RawMessage(`{"type": "object", "properties": {"token": {"type": "string"}}}`),
		Examples: []flow.Example{{Input: json.RawMessage(`{"pasword": "x"}`)}},
	})
	said := map[string]bool{}
	for _, p := range problems {
		said[p.Field] = p.Fatal
	}
	for field, fatal := range map[string]bool{
		"title": false, "version": false, "timeout": false, "input.password": false, "input.count": false, "output.token": true, "examples[0].input": true,
	} {
		if got, there := said[field]; !there || got != fatal {
			t.Errorf("%s: found %t, fatal %t; want fatal %t", field, there, got, fatal)
		}
	}
	if !problems[0].Fatal {
		t.Error("the worst is not told first")
	}
}
