package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// A daemon starts with a folder in which a document is that this release refuses, if it is stored as it is: executions of it may be open.
func TestAStoredDocumentKeepsNoDaemonFromStarting(t *testing.T) {
	t.Parallel()
	source := []byte("flow: f\nsteps: [{name: a, sleep: 1s}]\n---\nflow: g\nsteps: [{name: a, sleep: 1s}]\n")
	dir, store := t.TempDir(), memstore.New()
	if err := os.WriteFile(filepath.Join(dir, "f.yaml"), source, 0o600); err != nil {
		t.Fatal(err)
	}
	engine, err := flow.New(flow.Config{Store: store, Tools: flow.NewTools()})
	if err != nil {
		t.Fatal(err)
	}
	if err := documents(t.Context(), dir, engine, nil); err == nil {
		t.Error("a new document is taken")
	}
	if err := store.PutDefinition(t.Context(), flow.DefinitionRecord{Name: "f", Version: 1, Digest: "old", Source: source}); err != nil {
		t.Fatal(err)
	}
	if err := documents(t.Context(), dir, engine, nil); err != nil {
		t.Errorf("a stored one is refused: %v", err)
	}
}
