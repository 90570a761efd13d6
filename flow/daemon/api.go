package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/zhiyun-ops/zhiyun/flow"
)

// api serves the engine's verbs. Whoever reaches the listener may use all of them: it is a socket of mode 0600, or demands client
// certificates.
func api(engine *flow.Engine) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/flows", func(w http.ResponseWriter, r *http.Request) {
		definitions, err := engine.Definitions(r.Context())
		answer(w, definitions, err)
	})
	mux.HandleFunc("POST /v1/flows/{name}/executions", func(w http.ResponseWriter, r *http.Request) {
		params := map[string]any{}
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		if err := decoder.Decode(&params); err != nil {
			answer(w, nil, fmt.Errorf("%w: the body must be a JSON object of parameters: %w", flow.ErrInvalid, err))
			return
		}
		q := r.URL.Query()
		id, err := engine.Start(r.Context(), r.PathValue("name"), params, flow.Key(q.Get("key")), flow.By(q.Get("by")), flow.Because(q.Get("because")))
		answer(w, map[string]string{"id": id}, err)
	})
	mux.HandleFunc("GET /v1/executions", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		filter := flow.Filter{Flow: q.Get("flow"), After: q.Get("after")}
		for _, state := range q["state"] {
			if !slices.Contains(flow.States(), flow.State(state)) {
				answer(w, nil, fmt.Errorf("%w: state %q: it is one of %q", flow.ErrInvalid, state, flow.States()))
				return
			}
			filter.States = append(filter.States, flow.State(state))
		}
		executions, next, err := engine.List(r.Context(), filter)
		if executions == nil {
			executions = []flow.Execution{} // a list without entries, where JSON would have null
		}
		answer(w, map[string]any{"executions": executions, "next": next}, err)
	})
	mux.HandleFunc("GET /v1/executions/{id}", func(w http.ResponseWriter, r *http.Request) {
		x, err := engine.Get(r.Context(), r.PathValue("id"))
		answer(w, x, err)
	})
	mux.HandleFunc("GET /v1/executions/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		out := json.NewEncoder(w)
		sent := false
		for event, err := range engine.Watch(r.Context(), r.PathValue("id")) {
			switch {
			case err != nil && !sent:
				answer(w, nil, err)
				return
			case err != nil || out.Encode(event) != nil || http.NewResponseController(w).Flush() != nil:
				return // the reader sees the stream end before an event that ends the execution
			}
			sent = true
		}
	})
	for verb, do := range map[string]func(context.Context, string, flow.Intervention) error{
		"cancel": engine.Cancel, "pause": engine.Pause, "resume": engine.Resume, "retry": engine.Retry,
	} {
		mux.HandleFunc("POST /v1/executions/{id}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			answer(w, struct{}{}, do(r.Context(), r.PathValue("id"), flow.Intervention{Actor: q.Get("by"), Reason: q.Get("because")}))
		})
	}
	return mux
}

// answer writes a value or an error as JSON.
func answer(w http.ResponseWriter, value any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, flow.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, flow.ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, flow.ErrState), errors.Is(err, flow.ErrExists):
		status = http.StatusConflict
	case err != nil:
		status = http.StatusInternalServerError
	}
	if err != nil {
		value = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the reader is gone: nobody is left to tell
}
