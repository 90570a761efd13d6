package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow/daemon"
	"github.com/zhiyun-ops/zhiyun/flow/tooltest"
)

// Who runs flows alone, by cmd/flow-server, has the same verbs as with a whole server.
func TestTheVerbsDriveAFlowDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "flow") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, content := range map[string]string{
		"note.json":  `{"name": "note", "command": ["/bin/sh", "-c", "cat > \"$ZHIYUN_ROOT/note\"; echo wrote >&2; echo \"{\\\"root\\\": \\\"$ZHIYUN_ROOT\\\"}\""], "effect": "keyed", "timeout": "30s"}`,
		"note.yaml":  "flow: note\nparams: {text: {type: string, required: true}}\nsteps: [{name: write, tool: note, with: {text: \"${params.text}\"}}]",
		"again.yaml": "flow: note\nparams: {text: {type: string, required: true}}\nsteps: [{name: write, tool: note, with: {text: \"${params.text}\"}}, {name: sure, approve: {text: \"all of it?\"}}]",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := daemon.New(daemon.Config{Listen: "unix://" + dir + "/s", Data: filepath.Join(dir, "data"), Manifests: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	target, err := d.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	zhiyun := func(code int, says string, args ...string) string {
		t.Helper()
		out, err := run(t, append(args, "--server", target)...)
		if err != nil {
			out += err.Error()
		}
		if codeOf(err) != code || !strings.Contains(out, says) {
			t.Fatalf("%v ends with %d, want %d and %q:\n%s", args, codeOf(err), code, says, out)
		}
		return out
	}
	zhiyun(0, "note", "flow", "save", dir+"/note.yaml")
	zhiyun(0, "note", "flow", "definitions")
	zhiyun(0, "steps.sure", "flow", "save", dir+"/again.yaml", "--dry-run")
	zhiyun(0, "note", "tool", "list")
	zhiyun(exitUsage, `parameter "text" (string) is required`, "flow", "run", "note")
	zhiyun(exitUsage, "no parameter", "flow", "run", "note", "texts=1")
	zhiyun(0, "+ execution of note", "flow", "run", "note", "text=1", "--dry-run")
	var started struct {
		ID string `json:"id"`
	}
	if out := zhiyun(0, "id", "flow", "run", "note", "text=1", "-o", "json"); json.Unmarshal([]byte(out), &started) != nil {
		t.Fatalf("what was started?\n%s", out)
	}
	zhiyun(0, "execution.done", "flow", "watch", started.ID)
	if got, err := os.ReadFile(filepath.Join(dir, "data", "root", "note")); err != nil || !strings.Contains(string(got), `"text":"1"`) {
		t.Errorf("the tool wrote %q into ZHIYUN_ROOT, %v", got, err)
	}
	zhiyun(0, started.ID, "flow", "show", started.ID[:30])
	zhiyun(0, "wrote", "flow", "logs", started.ID)
	zhiyun(0, "1 executions, no fault", "flow", "check")
	zhiyun(exitFailed, "is done", "flow", "cancel", started.ID)

	zhiyun(0, "2", "flow", "save", dir+"/again.yaml")
	second := strings.TrimSpace(zhiyun(0, "-", "flow", "run", "note", "text=2", "--key", "k"))
	for asked := false; !asked; {
		asked = strings.Contains(zhiyun(0, "ID", "flow", "list", "--waits", "person"), second)
	}
	zhiyun(0, "LOCK", "flow", "locks")
	zhiyun(0, "sure", "flow", "approve", second, "sure", "--dry-run")
	zhiyun(0, "", "flow", "approve", second, "sure", "--reason", "seen")
	zhiyun(0, "execution.done", "flow", "watch", second)
	tool := filepath.Join(dir, "note.lay")
	if _, err := tooltest.New(tool, "note.lay", "sh"); err != nil {
		t.Fatal(err)
	}
	zhiyun(0, "tool/note.lay", "tool", "push", tool, "--dry-run")
	zhiyun(0, "sha256:", "tool", "push", tool)
	zhiyun(0, "pushed", "tool", "list", "note.lay")
	zhiyun(0, "sha256:", "tool", "versions", "note.lay")
	if err := os.WriteFile(filepath.Join(dir, "lay.yaml"), []byte("flow: lay\nsteps: [{name: lay, tool: note.lay, with: {name: hello}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	zhiyun(0, "lay", "flow", "save", dir+"/lay.yaml")
	zhiyun(0, "execution.done", "flow", "run", "lay", "--watch")
	zhiyun(exitFailed, "does not do this", "freeze", "--reason", "sale")
}
