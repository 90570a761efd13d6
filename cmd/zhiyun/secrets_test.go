package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
)

const tellingFlow = `
flow: tell
params: {password: secret}
steps:
  - {name: tell, tool: tell, with: {text: "${params.password}"}}
  - {name: notice, notify: {text: "it is ${steps.tell.text}"}}
  - {name: fail, tool: tell, with: {text: "${steps.tell.text}", fail: true}, on_failure: pause}
`

// Whatever verb an operator uses, and in whatever format, a secret is not on the screen, not in the audit record, and not in a log.
func TestNoVerbShowsASecret(t *testing.T) {
	const secret = `tr0ub4dor "&3"`
	w := controltest.New(t)
	if _, err := w.Flow.Save(t.Context(), []byte(tellingFlow)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	struck := 0
	zhiyun := func(args ...string) string {
		t.Helper()
		out, err := run(t, append(args, "--server", w.Target)...)
		if err != nil {
			out += err.Error()
		}
		if strings.Contains(out, "ub4dor") {
			t.Errorf("%s shows it:\n%s", strings.Join(args, " "), out)
		}
		if strings.Contains(out, "******") {
			struck++
		}
		return out
	}
	zhiyun("flow", "run", "tell", "password=@"+file, "--dry-run")
	id := strings.TrimSpace(zhiyun("flow", "run", "tell", "password=@"+file, "--reason", "for "+secret))
	for event, err := range w.Flow.Watch(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind == flow.EventStuck {
			break
		}
	}
	if out := zhiyun("flow", "list", "--text", "ub4dor"); strings.Contains(out, id) {
		t.Errorf("it can be searched for:\n%s", out)
	}
	if out := zhiyun("flow", "list", "--param", "password="+secret); strings.Contains(out, id) {
		t.Errorf("it can be searched for:\n%s", out)
	}
	zhiyun("flow", "fail", id, "fail", "--dry-run")
	zhiyun("flow", "cancel", "--all", "--flow", "tell", "--dry-run")
	zhiyun("flow", "cancel", id, "--reason", "it shows "+secret)
	if _, err := w.Flow.Wait(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"table", "json", "yaml"} {
		for _, verb := range []string{"show", "watch", "logs", "export"} {
			zhiyun("flow", verb, id, "-o", format)
		}
		zhiyun("flow", "list", "-o", format)
		zhiyun("audit", "-o", format)
		zhiyun("flow", "show", "--timing", id, "-o", format)
	}
	zhiyun("flow", "prune", "--older-than", "1ns", "--dry-run")
	if struck < 10 {
		t.Errorf("only %d answers had something struck out", struck)
	}
	err := filepath.WalkDir(w.FlowLogs, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			content, _ := os.ReadFile(path)
			if text := string(content); strings.Contains(text, "ub4dor") || !strings.Contains(text, "told ******") {
				t.Errorf("%s: %s", path, text)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
