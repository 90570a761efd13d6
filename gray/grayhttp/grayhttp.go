// Package grayhttp serves a gray.Controller as JSON over HTTP:
//
//	GET  /rollouts                 all rollouts
//	POST /rollouts                 starts the gray.Rollout in the body
//	GET  /rollouts/ID              one, with its events
//	POST /rollouts/ID/VERB         abort, promote, pause or resume; body {"actor": ..., "reason": ...}
//
// It checks nobody's identity: serve it on a unix socket that only operators may open, or behind what does.
package grayhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/zhiyun-ops/zhiyun/gray"
)

// maxBody bounds what a request may hold.
const maxBody = 4 << 20

// Handler serves ctl. Errors are {"error": "..."} with a fitting status.
func Handler(ctl *gray.Controller) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rollouts", func(w http.ResponseWriter, r *http.Request) {
		list, err := ctl.List(r.Context())
		reply(w, map[string]any{"rollouts": list}, err)
	})
	mux.HandleFunc("POST /rollouts", func(w http.ResponseWriter, r *http.Request) {
		var spec gray.Rollout
		if err := read(w, r, &spec); err != nil {
			reply(w, nil, err)
			return
		}
		rollout, err := ctl.Start(r.Context(), spec)
		reply(w, rollout, err)
	})
	mux.HandleFunc("GET /rollouts/{id}", func(w http.ResponseWriter, r *http.Request) {
		rollout, err := ctl.Get(r.Context(), r.PathValue("id"))
		if err != nil {
			reply(w, nil, err)
			return
		}
		events, err := ctl.Events(r.Context(), rollout.ID)
		reply(w, map[string]any{"rollout": rollout, "events": events}, err)
	})
	mux.HandleFunc("POST /rollouts/{id}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		verbs := map[string]func(context.Context, string, string, string) (gray.Rollout, error){
			"abort": ctl.Abort, "promote": ctl.Promote, "pause": ctl.Pause, "resume": ctl.Resume,
		}
		do, ok := verbs[r.PathValue("verb")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		var order struct {
			Actor  string `json:"actor"`
			Reason string `json:"reason"`
		}
		if err := read(w, r, &order); err != nil {
			reply(w, nil, err)
			return
		}
		if order.Actor == "" {
			reply(w, nil, fmt.Errorf(`%w: "actor" is empty: say who asks`, gray.ErrInvalid))
			return
		}
		rollout, err := do(r.Context(), r.PathValue("id"), order.Actor, order.Reason)
		reply(w, rollout, err)
	})
	return mux
}

func read(w http.ResponseWriter, r *http.Request, into any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w: the body is not the JSON that was asked for: %w", gray.ErrInvalid, err)
	}
	return nil
}

func reply(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		body = map[string]string{"error": err.Error()}
		switch {
		case errors.Is(err, gray.ErrInvalid):
			status = http.StatusBadRequest
		case errors.Is(err, gray.ErrNotFound):
			status = http.StatusNotFound
		case errors.Is(err, gray.ErrExists), errors.Is(err, gray.ErrState), errors.Is(err, gray.ErrSuperseded):
			status = http.StatusConflict
		default:
			status = http.StatusServiceUnavailable
		}
	}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a caller who went away does not want it
}
