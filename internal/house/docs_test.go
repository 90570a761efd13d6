package house_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Decisions are numbered without gaps or doubles, by file name and by title.
func TestDecisionsAreNumbered(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root(t), "docs", "adr", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no decisions: %v", err)
	}
	for i, file := range files { // Glob sorts
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, title := fmt.Sprintf("%04d-", i+1), fmt.Sprintf("# %d. ", i+1)
		if !strings.HasPrefix(filepath.Base(file), name) || !strings.HasPrefix(string(text), title) {
			t.Errorf("%s begins with %.20q: want a name that begins with %s and a title with %q", filepath.Base(file), text, name, title)
		}
	}
}

// What documents link to is there.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	walk(t, ".md", func(path string, text []byte) {
		for _, match := range link.FindAllSubmatch(text, -1) {
			to := string(match[1])
			if strings.Contains(to, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), to)); err != nil {
				t.Errorf("%s links to %s: %v", path, to, err)
			}
		}
	})
}

// The tests that the ledger of reliability names exist, in the package that it names.
func TestLedgerNamesTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string][]string) // by folder
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	walk(t, "_test.go", func(path string, source []byte) {
		for _, match := range declared.FindAllSubmatch(source, -1) {
			tests[string(match[1])] = append(tests[string(match[1])], filepath.ToSlash(filepath.Dir(path)))
		}
	})
	words := regexp.MustCompile("`([^`]+)`")
	for _, line := range strings.Split(string(text), "\n") {
		var packages []string
		for _, match := range words.FindAllStringSubmatch(line, -1) {
			word := match[1]
			if !strings.HasPrefix(word, "Test") {
				if info, err := os.Stat(filepath.Join(root(t), word)); err == nil && info.IsDir() {
					packages = append(packages, filepath.Join(root(t), word))
				}
				continue
			}
			in := tests[word]
			if len(in) == 0 {
				t.Errorf("docs/reliability.md names %s: there is no such test", word)
			}
			if len(packages) > 0 && !slices.ContainsFunc(packages, func(p string) bool { return slices.Contains(in, filepath.ToSlash(p)) }) {
				t.Errorf("docs/reliability.md names %s beside %v; it is in %v", word, packages, in)
			}
		}
	}
}

// A reference daemon is a screenful over an importable package, and explains itself with an example.
func TestReferenceDaemonsAreSmall(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"l5-server", "l5-agent", "flow-server", "gray-controller", "drift-agent", "scaler"} {
		source, err := os.ReadFile(filepath.Join(root(t), "cmd", name, "main.go"))
		if err != nil {
			t.Error(err)
			continue
		}
		if lines := strings.Count(string(source), "\n"); lines >= 60 {
			t.Errorf("cmd/%s/main.go has %d lines, want less than 60", name, lines)
		}
		if !regexp.MustCompile(`[" \\n]` + name + " -").Match(source) {
			t.Errorf("cmd/%s/main.go shows no example of a call", name)
		}
	}
}

// walk reads the repository's files that end so.
func walk(t *testing.T, suffix string, visit func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root(t), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root(t):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, suffix):
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			visit(path, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
