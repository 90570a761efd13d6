package folder_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/drift/folder"
)

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	try(t, os.MkdirAll(filepath.Dir(name), 0o755))
	try(t, os.WriteFile(name, []byte(content), mode))
	try(t, os.Chmod(name, mode))
}

// setup returns a source of one declaration and the root of a device that is empty.
func setup(t *testing.T, declaration string) (folder.Source, string) {
	t.Helper()
	base := t.TempDir()
	source := folder.Source{State: base + "/desired.yaml", Files: base + "/source"}
	write(t, source.State, declaration, 0o644)
	write(t, source.Files+"/etc/app.conf", "port = 80\n", 0o644)
	root := base + "/root"
	try(t, os.Mkdir(root, 0o755))
	return source, root
}

// mend repairs all that differs, once, and returns what still does.
func mend(t *testing.T, source folder.Source, root string) []drift.Finding {
	t.Helper()
	state, _, err := source.Desired(t.Context())
	try(t, err)
	live, err := drift.Collect(t.Context(), state, drift.Files(root))
	try(t, err)
	repairer := &folder.Repairer{Source: source, Root: root}
	for _, f := range drift.Compare(state, live) {
		if err := repairer.Repair(t.Context(), f); err != nil {
			t.Errorf("repair %v: %v", f, err)
		}
	}
	live, err = drift.Collect(t.Context(), state, drift.Files(root))
	try(t, err)
	return drift.Compare(state, live)
}

func TestRepairsEverySortOfDifference(t *testing.T) {
	t.Parallel()
	const declaration = `
files:
  etc/app.conf: {kind: config, mode: "0640"}
  etc/current: {link: app.conf}
  data: {type: dir, mode: "0700"}
  tmp/old: {type: absent}
exact: {dirs: [etc]}
`
	for name, spoil := range map[string]func(t *testing.T, root string){
		"empty":     func(*testing.T, string) {},
		"content":   func(t *testing.T, root string) { write(t, root+"/etc/app.conf", "port = 81\n", 0o640) },
		"mode":      func(t *testing.T, root string) { write(t, root+"/etc/app.conf", "port = 80\n", 0o666) },
		"directory": func(t *testing.T, root string) { write(t, root+"/etc/app.conf/x", "", 0o644) },
		"file":      func(t *testing.T, root string) { write(t, root+"/data", "", 0o644) },
		"link": func(t *testing.T, root string) {
			try(t, os.Mkdir(root+"/etc", 0o755))
			try(t, os.Symlink("/etc/passwd", root+"/etc/current"))
		},
		"unexpected": func(t *testing.T, root string) {
			write(t, root+"/etc/stray", "", 0o644)
			write(t, root+"/tmp/old", "", 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, root := setup(t, declaration)
			spoil(t, root)
			if left := mend(t, source, root); len(left) != 0 {
				t.Errorf("after the repairs: %v", left)
			}
		})
	}
}

// What is not declared is not overwritten with what is (argoproj/argo-cd#4912).
func TestUndeclaredFieldsAreLeftAlone(t *testing.T) {
	t.Parallel()
	source, root := setup(t, "files: {etc/app.conf: {}}")
	write(t, root+"/etc/app.conf", "port = 81\n", 0o600)
	if left := mend(t, source, root); len(left) != 0 {
		t.Errorf("after the repair: %v", left)
	}
	info, err := os.Stat(root + "/etc/app.conf")
	try(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the mode became %v", info.Mode().Perm())
	}
}

func TestRepairNeverLeavesTheRoot(t *testing.T) {
	t.Parallel()
	source, root := setup(t, "files: {etc/app.conf: {}}")
	outside := t.TempDir()
	try(t, os.Symlink(outside, root+"/etc"))
	err := (&folder.Repairer{Source: source, Root: root}).Repair(t.Context(), drift.Finding{
		Kind: drift.KindFile, Subject: "etc/app.conf", Fields: []string{drift.FieldMissing},
		File: &drift.File{Digest: drift.Digest([]byte("port = 80\n"))},
	})
	if err == nil {
		t.Error("no error")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("written outside the root: %v", entries)
	}
}

func TestRepairerSaysWhatItCannot(t *testing.T) {
	t.Parallel()
	source, root := setup(t, "files: {etc/app.conf: {}}")
	r := &folder.Repairer{Source: source, Root: root}
	if err := r.Repair(t.Context(), drift.Finding{Kind: drift.KindProcess, Subject: "web"}); !errors.Is(err, drift.ErrCannotRepair) {
		t.Errorf("a process: %v", err)
	}
	err := r.Repair(t.Context(), drift.Finding{Kind: drift.KindFile, Subject: "etc/app.conf", Fields: []string{drift.FieldMissing},
		File: &drift.File{Digest: drift.Digest([]byte("something else"))}})
	if err == nil || !strings.Contains(err.Error(), "bring them in line") {
		t.Errorf("a source that does not hold what is declared: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"files: {../x: {}}":         `write it as "x"`,
		"files: {/etc/x: {}}":       `write it as "etc/x"`,
		"flies: {}":                 "flies",
		"files: {a: {mode: \"9\"}}": "octal",
		"]":                         "neither YAML nor JSON",
	} {
		if _, err := folder.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", text, err, says)
		}
	}
	if state, err := folder.Parse([]byte(`{"files":{"a":{"mode":"0644"}}}`)); err != nil || state.Files["a"].Mode != 0o644 {
		t.Errorf("JSON: %+v, %v", state, err)
	}
}
