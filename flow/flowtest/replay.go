package flowtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// ReplayOption changes what is replayed.
type ReplayOption func(*replay)

// WithDocument replays a changed document of the flow, or of a sub-flow that does not name its version, in place of the recorded one.
func WithDocument(document string) ReplayOption {
	return func(r *replay) { r.documents = append(r.documents, document) }
}

// WithTool gives a tool another manifest than the recorded one, and, if run is not nil, a function for calls of which nothing is
// recorded. Without one such a call fails, and is a difference.
func WithTool(m flow.Manifest, run Outcome) ReplayOption {
	return func(r *replay) { r.tools[m.Name] = tool{m, run} }
}

// Allow leaves out differences whose Where begins with one of the texts: those that a change is meant to make.
func Allow(where ...string) ReplayOption {
	return func(r *replay) { r.allowed = append(r.allowed, where...) }
}

type tool struct {
	manifest flow.Manifest
	run      Outcome
}

// Replay runs an exported execution again with its recorded results, and fails the test for each difference.
func Replay(t *testing.T, file string, options ...ReplayOption) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	export, err := flow.ReadExport(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range Differences(t, export, options...) {
		t.Errorf("%s: %s", file, d)
	}
}

// Differences runs an exported execution again, in virtual time that begins when it did, and returns what comes out differently. Attempts take as
// long as they did and end as they did; people do what they did when they did it. No tool runs, and nothing is written.
func Differences(t *testing.T, export flow.Export, options ...ReplayOption) []Difference {
	t.Helper()
	r := &replay{export: export, tools: map[string]tool{}, executions: map[string]*recording{}, ids: map[string]string{}, next: map[string]map[place]int{}}
	for _, option := range options {
		option(r)
	}
	var roles []string
	for _, d := range export.Documents {
		for _, found := range asked.FindAllStringSubmatch(d.Source, -1) {
			roles = append(roles, found[1])
		}
	}
	r.executions[export.Execution.ID] = newRecording(export.ExportedExecution, roles)
	for _, sub := range export.Subflows {
		r.executions[sub.Execution.ID] = newRecording(sub, roles)
	}
	var out []Difference
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(export.Events[0].At)) // windows and zones see the days that they saw
		inWorld(t, func(w *World) { out = r.run(w) })
	})
	return slices.DeleteFunc(out, func(d Difference) bool {
		return slices.ContainsFunc(r.allowed, func(prefix string) bool { return strings.HasPrefix(d.Where, prefix) })
	})
}

// replay is one execution, with its sub-flows, that is run again.
type replay struct {
	export    flow.Export
	documents []string
	tools     map[string]tool
	allowed   []string

	executions map[string]*recording // by recorded ID
	later      []flow.DefinitionRecord

	mu         sync.Mutex               // guards what follows
	ids        map[string]string        // recorded IDs, by those of now
	next       map[string]map[place]int // how many results are used up, by recorded ID
	unrecorded []Difference
	engine     *flow.Engine
}

func (r *replay) run(w *World) []Difference {
	r.engine = w.Engine
	if err := r.prepare(w); err != nil {
		w.Fatalf("flowtest: replay: %v", err)
	}
	first := &r.export.Events[0]
	id, err := w.Engine.Start(w.Context(), first.Flow, first.Params, flow.Key(first.Key), flow.By(first.Actor), flow.Because(first.Reason))
	if err != nil {
		return []Difference{{"start", "it started", err.Error()}}
	}
	r.name(id, r.export.Execution.ID)
	refused := r.intervene(w)
	if last := r.export.Events[len(r.export.Events)-1].At; r.export.Execution.State.Ended() {
		// Another way through the flow may take longer; one that waits for what never comes has not ended then.
		ctx, cancel := context.WithTimeout(w.Context(), time.Until(last)+w.Patience)
		defer cancel()
		_, _ = w.Engine.Wait(ctx, id) // compare says where it stands
	} else {
		time.Sleep(time.Until(last))
	}
	out := append(r.compare(w, id, ""), refused...)
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(out, r.unrecorded...)
}

// prepare registers the recorded tools and documents, and what replaces them.
func (r *replay) prepare(w *World) error {
	for _, m := range r.export.Tools {
		if _, replaced := r.tools[m.Name]; !replaced {
			r.tools[m.Name] = tool{manifest: m}
		}
	}
	for _, one := range r.tools {
		w.Tools.Handle(one.manifest, r.recorded(one.run))
	}
	if err := w.Tools.Err(); err != nil {
		return err
	}
	for _, d := range r.export.Documents {
		record := flow.DefinitionRecord{Name: d.Flow, Version: d.Version, Digest: d.Digest, Source: []byte(d.Source), SavedAt: d.SavedAt}
		if first := &r.export.Events[0]; d.Flow == first.Flow && d.Version > first.Version {
			r.later = append(r.later, record) // it is migrated to that; a start would take it
			continue
		}
		if err := w.store.PutDefinition(w.Context(), record); err != nil {
			return fmt.Errorf("%s version %d: %w", d.Flow, d.Version, err)
		}
	}
	for _, document := range r.documents {
		if _, err := w.Engine.Save(w.Context(), []byte(document)); err != nil {
			return err
		}
	}
	return nil
}

// recorded answers calls with the recorded results, each once; and what is not recorded, by other if that is not nil.
func (r *replay) recorded(other Outcome) func(context.Context, flow.Call) flow.Result {
	return func(ctx context.Context, call flow.Call) flow.Result {
		at := place{call.Step, call.Item, ""}
		switch {
		case call.Undo:
			at.kind = "undo"
		case call.Probe:
			at.kind = "probe"
		}
		was, found := r.take(ctx, call.Execution, at)
		switch {
		case found:
			return After(was.took, func(context.Context, flow.Call) flow.Result { return was.result })(ctx, call)
		case other != nil:
			return other(ctx, call)
		case call.Undo:
			return flow.Result{Output: json.RawMessage("{}")} // that it is undone at all is a difference already
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.unrecorded = append(r.unrecorded, Difference{at.String(), "nothing is recorded for this call", "it calls " + call.Tool + "; hand in what it returns with WithTool"})
		return flow.Result{Error: &flow.Error{Code: "unrecorded", Message: "nothing is recorded for " + at.String(), Permanent: true}}
	}
}

// take returns the next recorded result of a place.
func (r *replay) take(ctx context.Context, execution string, at place) (ended, bool) {
	id := r.recordedID(ctx, execution)
	r.mu.Lock()
	defer r.mu.Unlock()
	recording := r.executions[id]
	if recording == nil {
		return ended{}, false
	}
	if r.next[id] == nil {
		r.next[id] = map[place]int{}
	}
	n := r.next[id][at]
	if n >= len(recording.results[at]) {
		_, running := recording.begun[at] // when it was exported
		return ended{took: 100 * 365 * 24 * time.Hour}, running
	}
	r.next[id][at]++
	return recording.results[at][n], true
}

// recordedID returns the ID that an execution had when it was recorded: a sub-flow is known by the step that started it.
func (r *replay) recordedID(ctx context.Context, id string) string {
	r.mu.Lock()
	known, found := r.ids[id]
	r.mu.Unlock()
	if found || id == "" {
		return known
	}
	x, err := r.engine.Get(ctx, id)
	switch {
	case err != nil:
		return ""
	case x.Parent == "": // there is one; its first tool may ask before Start has told its ID
		return r.name(id, r.export.Execution.ID)
	}
	parent := r.recordedID(ctx, x.Parent)
	key := strings.Replace(x.Key, x.Parent, parent, 1)
	for was, recording := range r.executions {
		if e := &recording.execution.Execution; parent != "" && e.Parent == parent && e.Key == key {
			return r.name(id, was)
		}
	}
	return ""
}

func (r *replay) name(id, recorded string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids[id] = recorded
	return recorded
}

// intervene does what people did, and returns what of it is not possible any more.
func (r *replay) intervene(w *World) []Difference {
	type did struct {
		order
		execution string
	}
	var all []did
	for id, recording := range r.executions {
		for _, one := range recording.orders {
			all = append(all, did{one, id})
		}
	}
	slices.SortStableFunc(all, func(a, b did) int { return a.at.Compare(b.at) })
	var out []Difference
	for _, one := range all {
		time.Sleep(time.Until(one.at))
		synctest.Wait()
		err := fmt.Errorf("execution %s was not started", one.execution)
		if id := r.idNow(w, one.execution); id != "" {
			err = r.order(w, id, one.order)
		}
		if err != nil {
			out = append(out, Difference{"person", one.with.Actor + " gave the order " + strings.TrimSpace(one.verb+" "+one.with.Step), err.Error()})
		}
	}
	synctest.Wait()
	return out
}

func (r *replay) order(w *World, id string, one order) error {
	if one.verb == flow.OrderMigrate {
		for _, record := range r.later {
			if err := w.store.PutDefinition(w.Context(), record); err != nil && !errors.Is(err, flow.ErrExists) {
				return err
			}
		}
	}
	if one.verb != signal {
		return w.Engine.Order(w.Context(), id, one.verb, one.with)
	}
	options := []flow.SignalOption{flow.SignalFrom(one.with.Actor)}
	if one.id != "" {
		options = append(options, flow.SignalID(one.id))
	}
	return w.Engine.Signal(w.Context(), id, one.with.Step, one.with.Output, options...)
}

// asked finds the roles that a document asks for.
var asked = regexp.MustCompile(`role:([a-z]+)`)

// idNow is the reverse of recordedID.
func (r *replay) idNow(w *World, recorded string) string {
	rows, _, err := w.Engine.List(w.Context(), flow.Filter{Oldest: true, Limit: 1000})
	if err != nil {
		return ""
	}
	for _, row := range rows {
		if r.recordedID(w.Context(), row.ID) == recorded {
			return row.ID
		}
	}
	return ""
}

// renamed is JSON with the IDs of now replaced by those that were recorded.
func (r *replay) renamed(data json.RawMessage) string {
	text := string(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	for now, was := range r.ids {
		text = strings.ReplaceAll(text, now, was)
	}
	return text
}
