package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/zhiyun-ops/zhiyun/internal/control/controltest"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/rule"
)

func TestRulesAreSetShownAndRefused(t *testing.T) {
	w := controltest.New(t)
	if err := w.Names.Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: "127.0.0.1:80", Share: 100}}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	verb := func(args ...string) (string, error) {
		return run(t, append(append([]string{"l5", "rules"}, args...), "--server", w.Target)...)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("routes:\n- name: canary\n  to: [{select: {version: v2}, weight: -5}]\n")
	if _, err := verb("set", "shop.cart", file); err == nil || !strings.Contains(err.Error(), "routes[0] (canary).to[0].weight is -5: want 0 to") {
		t.Errorf("a bad rule: %v", err)
	}
	write("subset: 20\nlocality: {prefer: site}\nroutes:\n- name: canary\n  to: [{select: {version: v2}, weight: 5}, {select: {version: v1}, weight: 95}]\n")
	if _, err := verb("set", "shop.cart", file, "--revision", "7"); err == nil || !strings.Contains(err.Error(), "changed in between") {
		t.Errorf("over another revision: %v", err)
	}
	if out, err := verb("set", "shop.cart", file, "--revision", "0"); err != nil || !strings.Contains(out, "prefer: site") {
		t.Errorf("set: %s %v", out, err)
	}
	_, err := verb("isolate", "shop.cart", "127.0.0.1:80")
	if exit, ok := err.(cli.ExitCoder); !ok || exit.ExitCode() != exitUsage || !strings.Contains(err.Error(), "--reason is empty") {
		t.Errorf("without a reason: %v", err)
	}
	if _, err := verb("isolate", "shop.cart", "127.0.0.1:80", "--reason", "heap dump"); err != nil {
		t.Error(err)
	}
	out, err := verb("get", "shop.cart")
	for _, want := range []string{"# rules of shop.cart at revision", "subset: 20", "name: canary", "weight: 95", "heap dump"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("get lacks %q: %v\n%s", want, err, out)
		}
	}
	if out, err := run(t, "l5", "explain", "shop.cart", "--server", w.Target); err != nil || !strings.Contains(out, "isolated: heap dump") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	if _, err := verb("isolate", "shop.cart", "127.0.0.1:80", "--end"); err != nil {
		t.Error(err)
	}
	if out, err := verb("set", "shop.cart", "--none"); err != nil || !strings.Contains(out, "{}") {
		t.Errorf("none: %s %v", out, err)
	}
}

// The example of the guide is a document of rules.
func TestGuideShowsRules(t *testing.T) {
	guide, err := os.ReadFile("../../docs/l5-rules.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(guide), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	document, err := readRules("-", strings.NewReader(example))
	if err != nil || !found {
		t.Fatal(err)
	}
	if _, err := rule.Parse(document); err != nil {
		t.Error(err)
	}
}
