package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// exportFormat is the form of exports. A later form has another number.
const exportFormat = "zhiyun.flow.execution/1"

// Export is one execution as a document on its own: what it was to do, with what, and all that happened, secrets struck out. Package
// flowtest replays it without running a tool.
type Export struct {
	Format    string             `json:"format"`
	Documents []ExportedDocument `json:"documents"` // the execution's own first, then those of its sub-flows
	Tools     []Manifest         `json:"tools"`     // those that the documents name, with their undos and probes
	ExportedExecution
	Subflows []ExportedExecution `json:"subflows,omitempty"` // that it started, and those that they did
}

// ExportedExecution is an execution with its history.
type ExportedExecution struct {
	Execution Execution `json:"execution"`
	Events    []Event   `json:"events"`
}

// ExportedDocument is one version of a flow, as it was saved.
type ExportedDocument struct {
	Flow    string    `json:"flow"`
	Version int       `json:"version"`
	Digest  string    `json:"digest"`
	SavedAt time.Time `json:"saved_at"`
	Source  string    `json:"source"`
}

// Export returns an execution, open or not, as one document; ErrNotFound if there is none.
func (e *Engine) Export(ctx context.Context, id string) (Export, error) {
	out, err := e.export(ctx, id)
	if err != nil {
		return Export{}, fmt.Errorf("flow: export %s: %w", id, err)
	}
	return out, nil
}

func (e *Engine) export(ctx context.Context, id string) (Export, error) {
	w := &exporting{engine: e, tools: map[string]bool{}, documents: map[versionKey]bool{}, out: Export{Format: exportFormat}}
	root, err := w.execution(ctx, id)
	if err != nil {
		return Export{}, err
	}
	w.out.ExportedExecution = root
	if err := w.subflows(ctx, id); err != nil {
		return Export{}, err
	}
	for _, m := range e.config.Tools.Manifests() {
		if w.tools[m.Name] {
			m.Command = nil // a path of that machine, and of no use on another
			w.out.Tools = append(w.out.Tools, m)
		}
	}
	return redact(w.out, w.secrets), nil
}

// exporting gathers what an export has.
type exporting struct {
	engine    *Engine
	out       Export
	secrets   []string // of all executions: what was a secret of one may have been handed to another
	tools     map[string]bool
	documents map[versionKey]bool
}

func (w *exporting) execution(ctx context.Context, id string) (ExportedExecution, error) {
	x, err := w.engine.load(ctx, id)
	if err != nil {
		return ExportedExecution{}, err
	}
	w.secrets = append(w.secrets, x.secrets()...)
	out := ExportedExecution{Execution: x.shown()}
	for event, err := range w.engine.History(ctx, id) {
		if err != nil {
			return ExportedExecution{}, err
		}
		if event.Seq <= x.Seq { // the execution may have gone on meanwhile
			out.Events = append(out.Events, event)
		}
	}
	if err := w.document(ctx, x.Flow, out.Events[0].Version); err != nil { // before it was migrated, if it was
		return ExportedExecution{}, err
	}
	return out, w.document(ctx, x.Flow, x.Version)
}

// subflows adds the executions that one has started.
func (w *exporting) subflows(ctx context.Context, parent string) error {
	rows, err := w.engine.config.Store.List(ctx, Filter{Parent: parent, Oldest: true})
	if err != nil {
		return err
	}
	for _, row := range rows {
		one, err := w.execution(ctx, row.ID)
		if err != nil {
			return err
		}
		w.out.Subflows = append(w.out.Subflows, one)
		if err := w.subflows(ctx, row.ID); err != nil {
			return err
		}
	}
	return nil
}

// document adds a version of a flow, and what it names.
func (w *exporting) document(ctx context.Context, name string, version int) error {
	r, err := w.engine.config.Store.Definition(ctx, name, version)
	if err != nil {
		return err
	}
	if key := (versionKey{r.Name, r.Version}); w.documents[key] {
		return nil
	} else {
		w.documents[key] = true
	}
	w.out.Documents = append(w.out.Documents, ExportedDocument{r.Name, r.Version, r.Digest, r.SavedAt, string(r.Source)})
	d := parseStored(r.Source)
	for _, place := range newLayout(&d.Definition).steps {
		w.tool(place.step.Tool)
		if place.step.Undo != nil {
			w.tool(place.step.Undo.Tool)
		}
		called, pinned, err := parseCall(place.step.Flow)
		if place.step.Flow == "" || err != nil {
			continue
		}
		if err := w.document(ctx, called, pinned); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

func (w *exporting) tool(name string) {
	m, found := w.engine.config.Tools.Manifest(name)
	if !found || w.tools[name] {
		return
	}
	w.tools[name] = true
	w.tool(m.Undo)
	w.tool(m.Probe)
}

// ReadExport reads an export. What is wrong with it is an ErrInvalid.
func ReadExport(data []byte) (Export, error) {
	var out Export
	if err := json.Unmarshal(data, &out); err != nil {
		return Export{}, fmt.Errorf("flow: read an export: %w: %w", ErrInvalid, err)
	}
	if out.Format != exportFormat {
		return Export{}, fmt.Errorf("flow: read an export: %w: its format is %q, this program reads %q; use the program that wrote it, or a newer one", ErrInvalid, out.Format, exportFormat)
	}
	if len(out.Documents) == 0 || len(out.Events) == 0 || out.Events[0].Kind != EventStarted {
		return Export{}, fmt.Errorf("flow: read an export: %w: it has no document, or its history no beginning", ErrInvalid)
	}
	// Numbers that are too large for a float stay whole.
	var exact struct {
		Events []struct {
			Params json.RawMessage `json:"params"`
		} `json:"events"`
	}
	if err := json.Unmarshal(data, &exact); err != nil {
		return Export{}, fmt.Errorf("flow: read an export: %w: %w", ErrInvalid, err)
	}
	if len(exact.Events[0].Params) > 0 {
		params, err := decodeParams(exact.Events[0].Params)
		if err != nil {
			return Export{}, fmt.Errorf("flow: read an export: its parameters: %w", err)
		}
		out.Events[0].Params = params
	}
	return out, nil
}
