// Package scalehttp serves a scale.Controller as JSON over HTTP:
//
//	GET  /modules                  what is known of all modules
//	GET  /modules/NAME             of one, with its orders
//	POST /modules/NAME/VERB        out or in: body {"actor": ..., "count": n, "dry_run": bool};
//	                               pause or resume: body {"actor": ..., "reason": ...}
//
// It checks nobody's identity: serve it on a unix socket that only operators may open, or behind what does.
package scalehttp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/zhiyun-ops/zhiyun/scale"
)

// maxBody bounds what a request may hold.
const maxBody = 1 << 20

var errBody = errors.New("scalehttp: the body is not the JSON that was asked for")

// ask is the body of a verb.
type ask struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason"`
	Count  int    `json:"count"`
	DryRun bool   `json:"dry_run"`
}

// Handler serves ctl. Errors are {"error": "..."} with a fitting status.
func Handler(ctl *scale.Controller) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /modules", func(w http.ResponseWriter, r *http.Request) {
		list, err := ctl.List(r.Context())
		reply(w, map[string]any{"modules": list}, err)
	})
	mux.HandleFunc("GET /modules/{name}", func(w http.ResponseWriter, r *http.Request) {
		status, err := ctl.Status(r.Context(), r.PathValue("name"))
		if err != nil {
			reply(w, nil, err)
			return
		}
		orders, err := ctl.Orders(r.Context(), status.Module)
		reply(w, map[string]any{"status": status, "orders": orders}, err)
	})
	mux.HandleFunc("POST /modules/{name}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		var in ask
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(&in)
		if err == nil && in.Actor == "" {
			err = errors.New(`"actor" is empty: say who asks`)
		}
		if err != nil {
			reply(w, nil, fmt.Errorf("%w: %w", errBody, err))
			return
		}
		ctx, name := r.Context(), r.PathValue("name")
		var body any = struct{}{}
		switch r.PathValue("verb") {
		case "out":
			body, err = ctl.Out(ctx, name, in.Count, in.Actor, in.DryRun)
		case "in":
			body, err = ctl.In(ctx, name, in.Count, in.Actor, in.DryRun)
		case "pause":
			err = ctl.Pause(ctx, name, in.Actor, in.Reason)
		case "resume":
			err = ctl.Resume(ctx, name, in.Actor, in.Reason)
		default:
			http.NotFound(w, r)
			return
		}
		reply(w, body, err)
	})
	return mux
}

func reply(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		body = map[string]string{"error": err.Error()}
		switch {
		case errors.Is(err, errBody):
			status = http.StatusBadRequest
		case errors.Is(err, scale.ErrNotFound):
			status = http.StatusNotFound
		case errors.Is(err, scale.ErrRefused), errors.Is(err, scale.ErrNoDevices):
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
