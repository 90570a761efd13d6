package flow_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/memstore"
)

// An execution keeps its version, and so it goes on when a new release refuses to save a document that the last one took.
func TestStoredDocumentsOutliveStricterRules(t *testing.T) {
	t.Parallel()
	const steps = "\nsteps: [{name: go, signal: go}, {name: a, tool: free}]\n"
	for name, source := range map[string]string{
		"a second document":       "flow: f" + steps + "---\nflow: g" + steps,
		"what is no document":     "flow: f" + steps + "--- {",
		"a secret in a lock":      "flow: f\nparams: {a: secret}\nlocks: [\"m/${params.a}\"]" + steps,
		"a secret in a key":       "flow: f\nparams: {a: secret}" + strings.Replace(steps, "tool: free", `tool: free, exclusive: "k-${params.a}"`, 1),
		"a default of many words": "flow: f\nparams: {a: {type: string, default: \"" + strings.Repeat("x", flow.MaxText+1) + "\"}}" + steps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New()
				sum := sha256.Sum256([]byte(source))
				if err := store.PutDefinition(t.Context(), flow.DefinitionRecord{Name: "f", Version: 1, Digest: hex.EncodeToString(sum[:]), Source: []byte(source), SavedAt: time.Now()}); err != nil {
					t.Fatal(err)
				}
				config := flow.Config{Store: store, Tools: lintTools()}
				engine, err := flow.New(config)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- engine.Run(ctx) }() // ends with ctx; waited for below
				synctest.Wait()
				id := launch(t, engine, "f", map[string]any{})
				synctest.Wait()
				cancel()
				if err := <-done; err != nil {
					t.Fatal(err)
				}

				engine = start(t, config)
				synctest.Wait()
				if err := engine.Signal(t.Context(), id, "go", nil); err != nil {
					t.Fatal(err)
				}
				ended(t, engine, id, flow.Done)
				var refused *flow.DefinitionError
				if _, err := engine.Save(t.Context(), []byte(source)); !errors.As(err, &refused) {
					t.Errorf("Save: %v, want a *DefinitionError", err)
				}
				if latest, err := engine.Definitions(t.Context()); err != nil || len(latest) != 1 || latest[0].Name != "f" || len(latest[0].Steps) != 2 {
					t.Errorf("Definitions: %v, %v", latest, err)
				}
				if violations, err := flow.Check(t.Context(), store); err != nil || len(violations) > 0 {
					t.Errorf("Check: %v, %v", violations, err)
				}
			})
		})
	}
}
