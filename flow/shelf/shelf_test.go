package shelf_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
)

// toolFolder writes a tool that greets, with an input of the given properties.
func toolFolder(t testing.TB, dir, name, version, properties string) string {
	t.Helper()
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf(`{"name": %q, "title": "greet people", "version": %q, "command": ["./run"], "effect": "pure", "tags": ["people"],
		"input": {"type": "object", "properties": {%s}, "required": ["who"]},
		"output": {"type": "object", "properties": {"text": {"type": "string"}}}}`, name, version, properties)
	for file, text := range map[string]string{flow.ManifestFile: manifest, "run": "#!/bin/sh\necho '{\"text\": \"" + version + "\"}'\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func start(t *testing.T, config flow.Config) *flow.Engine {
	t.Helper()
	engine, err := flow.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }() // awaited below
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return engine
}

func pack(t *testing.T, dir string) *bytes.Buffer {
	t.Helper()
	var archive bytes.Buffer
	if err := shelf.Pack(dir, &archive); err != nil {
		t.Fatal(err)
	}
	return &archive
}

func TestPushedToolReplacesAndNamesWhatItBreaks(t *testing.T) {
	t.Parallel()
	kept, err := shelf.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tools := flow.NewTools()
	t.Cleanup(tools.Close)
	flow.Func(tools, "builtin", func(_ context.Context, _ struct{}) (struct{}, error) { return struct{}{}, nil })
	engine := start(t, flow.Config{Store: memstore.New(), Tools: tools})
	push := func(version, properties string) (flow.Manifest, []flow.BrokenFlow) {
		t.Helper()
		staged, err := kept.Stage(pack(t, toolFolder(t, t.TempDir(), "greet", version, properties)))
		if err != nil {
			t.Fatal(err)
		}
		broken, err := engine.BrokenBy(t.Context(), staged.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := staged.Keep()
		if err != nil {
			t.Fatal(err)
		}
		if err := engine.Replace(m); err != nil {
			t.Fatal(err)
		}
		return m, broken
	}
	first, broken := push("1", `"who": {"type": "string"}`)
	if len(broken) != 0 || !strings.HasPrefix(first.Digest, "sha256:") {
		t.Fatalf("broken %v, digest %q", broken, first.Digest)
	}
	if _, err := engine.Save(t.Context(), []byte("flow: hello\nsteps:\n  - {name: s, tool: greet, with: {who: ann}}\n")); err != nil {
		t.Fatal(err)
	}
	run := func() string {
		t.Helper()
		id, err := engine.Start(t.Context(), "hello", nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := engine.Wait(t.Context(), id)
		if err != nil || x.State != flow.Done {
			t.Fatalf("%v, %v", x.Error, err)
		}
		var ran flow.Ran
		for event, err := range engine.Watch(t.Context(), id) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Kind == flow.EventAttemptDone {
				ran = event.Ran
			}
		}
		return ran.Version + " " + ran.Digest
	}
	if got := run(); got != "1 "+first.Digest {
		t.Errorf("the attempt records %q", got)
	}
	second, broken := push("2", `"who": {"type": "string"}, "how": {"type": "string"}`)
	if got := run(); len(broken) != 0 || got != "2 "+second.Digest {
		t.Errorf("broken %v, the attempt records %q", broken, got)
	}
	if _, broken = push("3", `"who": {"type": "integer"}`); len(broken) != 1 || broken[0].Flow != "hello" || broken[0].Faults[0].Line != 3 {
		t.Errorf("broken %+v, want flow hello, line 3", broken)
	}
	if _, err := engine.Start(t.Context(), "hello", nil); err == nil {
		t.Error("a flow that no longer compiles starts")
	}
	versions, err := kept.List("greet")
	if err != nil || len(versions) != 3 {
		t.Fatalf("%d versions, %v", len(versions), err)
	}
	if err := kept.Use("greet", first.Digest); err != nil {
		t.Fatal(err)
	}
	current, err := kept.Current()
	if err != nil || len(current) != 1 || current[0].Version != "1" {
		t.Fatalf("current %v, %v", current, err)
	}
	if err := engine.Replace(current[0]); err != nil {
		t.Fatal(err)
	}
	if got := run(); got != "1 "+first.Digest {
		t.Errorf("after going back the attempt records %q", got)
	}
	if err := engine.Replace(flow.Manifest{Name: "builtin", Command: []string{"true"}}); !errors.Is(err, flow.ErrInvalid) {
		t.Errorf("a Go function was replaced: %v", err)
	}
}

func TestShelfRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept, err := shelf.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	archive := func(headers ...tar.Header) *bytes.Buffer {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			h.Mode = 0o755
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Close()
		return &out
	}
	for name, content := range map[string]*bytes.Buffer{
		"not an archive": bytes.NewBufferString("hello"),
		"no manifest":    archive(tar.Header{Name: "run", Typeflag: tar.TypeReg}),
		"a way out":      archive(tar.Header{Name: "../../run", Typeflag: tar.TypeReg}),
		"a root":         archive(tar.Header{Name: "/etc/cron.d/x", Typeflag: tar.TypeReg}),
		"a link":         archive(tar.Header{Name: "run", Linkname: "/bin/sh", Typeflag: tar.TypeSymlink}),
		"a device":       archive(tar.Header{Name: "run", Typeflag: tar.TypeBlock}),
	} {
		if _, err := kept.Stage(content); !errors.Is(err, flow.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d files are left behind", len(left))
	}
	for _, digest := range []string{"", "../../etc", "sha256:"} {
		if err := kept.Use("greet", digest); err == nil {
			t.Errorf("version %q was taken", digest)
		}
	}
}

// 600 tools are read at start and found by a word.
func BenchmarkSixHundredTools(b *testing.B) {
	dir := b.TempDir()
	for i := range 600 {
		toolFolder(b, dir, fmt.Sprintf("team%d.greet%d", i%20, i), "1.0.0", `"who": {"type": "string", "minLength": 1}, "how": {"enum": ["loud", "soft"]}`)
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			tools := flow.NewTools()
			if err := errors.Join(tools.Folders(dir), tools.Err()); err != nil {
				b.Fatal(err)
			}
		}
	})
	tools := flow.NewTools()
	if err := tools.Folders(dir); err != nil {
		b.Fatal(err)
	}
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			if _, found := tools.Manifest("team3.greet503"); !found {
				b.Fatal("not found")
			}
		}
	})
	all := tools.Manifests()
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			if found := shelf.Search(all, shelf.Query{Words: []string{"GREET50", "people"}}); len(found) != 11 || found[0].Name != "team0.greet500" {
				b.Fatalf("%d found", len(found))
			}
		}
	})
}

// Whatever is pushed, nothing is written outside of the shelf, and nothing is left of what is refused.
func FuzzStage(f *testing.F) {
	dir := f.TempDir()
	var good bytes.Buffer
	if err := shelf.Pack(toolFolder(f, dir, "greet", "1", `"who": {"type": "string"}`), &good); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add(bytes.ReplaceAll(good.Bytes(), []byte("run"), []byte("../")))
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		kept, err := shelf.Open(filepath.Join(dir, "shelf"))
		if err != nil {
			t.Fatal(err)
		}
		staged, err := kept.Stage(bytes.NewReader(archive))
		if err == nil {
			err = staged.Discard()
			if err != nil {
				t.Fatal(err)
			}
		}
		outside, _ := os.ReadDir(dir)
		inside, _ := os.ReadDir(filepath.Join(dir, "shelf"))
		if len(outside) != 1 || len(inside) != 0 {
			t.Errorf("left: %v beside the shelf, %v in it", outside, inside)
		}
	})
}
