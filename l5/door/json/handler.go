package json

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/door"
)

// maxWait bounds a long poll, and beat is the pace at which event streams show that they live.
const (
	maxWait = 5 * time.Minute
	beat    = 15 * time.Second
)

// service is the answer of a lookup.
type service struct {
	Service   string     `json:"service"`
	Epoch     string     `json:"epoch,omitempty"`
	Revision  int64      `json:"revision"`
	Panic     string     `json:"panic,omitempty"` // why instances that are down keep a weight
	Instances []instance `json:"instances"`
}

type instance struct {
	Addr   string            `json:"addr"`
	Weight float64           `json:"weight"` // in force
	Health string            `json:"health"`
	Reason string            `json:"reason,omitempty"`
	State  string            `json:"state"`
	Device string            `json:"device,omitempty"`
	Module string            `json:"module,omitempty"`
	Owner  string            `json:"owner,omitempty"`
	Site   string            `json:"site,omitempty"`
	City   string            `json:"city,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// outcome is how a call went.
type outcome struct {
	ID         string   `json:"id"`
	Error      string   `json:"error"`
	Overloaded bool     `json:"overloaded"`
	LatencyMS  *float64 `json:"latency_ms"`
}

// Handler serves /v1/. On a socket whose mode decides who connects it may be served as it is; elsewhere through door.Guard.
func (d *Door) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/services/{service}", d.counted(d.resolve))
	mux.HandleFunc("POST /v1/services/{service}/route", d.counted(d.route))
	mux.HandleFunc("POST /v1/outcomes", d.counted(d.outcomes))
	return mux
}

// counted answers what handle returns: nothing further if that is 0.
func (d *Door) counted(handle func(http.ResponseWriter, *http.Request) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		code, err := handle(w, r)
		d.answers.WithLabelValues(fmt.Sprint(code)).Inc()
		door.Hurry(w)
		switch {
		case err != nil:
			door.Fail(w, code, err)
		case code != http.StatusOK:
			w.WriteHeader(code)
		}
	}
}

// status is the code for an error of looking up and routing.
func status(err error) int {
	var fault *l5.RouteError
	switch {
	case errors.Is(err, l5.ErrDenied):
		return http.StatusForbidden
	case errors.Is(err, l5.ErrNoInstance):
		return http.StatusNotFound
	case errors.Is(err, l5.ErrOverloaded):
		return http.StatusTooManyRequests
	case errors.As(err, &fault), errors.Is(err, door.ErrBusy):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// look returns what is known of a service as JSON, its tag, and a channel that is closed when to look again.
func (d *Door) look(ctx context.Context, name string) (body []byte, tag string, changed <-chan struct{}, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.Wait)
	defer cancel()
	view, changed, err := d.names.Lookup(ctx, d.config.Caller, name)
	if err != nil {
		return nil, "", changed, err
	}
	out := service{Service: name, Epoch: view.Epoch, Revision: view.Revision, Panic: view.Panic, Instances: make([]instance, len(view.Members))}
	for i, m := range view.Members {
		out.Instances[i] = instance{
			Addr: m.Addr, Weight: m.Weight, Health: m.Health.String(), Reason: m.Reason, State: m.State.String(),
			Device: m.Device, Module: m.Module, Owner: m.Owner, Site: m.Site, City: m.City, Labels: m.Labels,
		}
		if m.Down != "" {
			out.Instances[i].State, out.Instances[i].Reason = "down", m.Down
		}
	}
	body, err = json.Marshal(out)
	sum := sha256.Sum256(body)
	return body, `"` + hex.EncodeToString(sum[:12]) + `"`, changed, err
}

// resolve answers what is known: at once, when it differs from what the client has, or again and again.
func (d *Door) resolve(w http.ResponseWriter, r *http.Request) (int, error) {
	name := r.PathValue("service")
	if err := l5.CheckService(name); err != nil {
		return http.StatusBadRequest, err
	}
	stream := strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	wait, err := time.ParseDuration(r.FormValue("wait"))
	if r.FormValue("wait") != "" && (err != nil || wait < 0 || wait > maxWait) {
		return http.StatusBadRequest, fmt.Errorf("wait %q: want a duration of at most %v, as 30s", r.FormValue("wait"), maxWait)
	}
	if stream || wait > 0 {
		if d.watches.Add(1) > int64(d.config.MaxWatches) {
			d.watches.Add(-1)
			return http.StatusServiceUnavailable, fmt.Errorf("%d watches are under way, which is the bound", d.config.MaxWatches)
		}
		defer d.watches.Add(-1)
	}
	if stream {
		return d.stream(w, r, name)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		body, tag, changed, err := d.look(r.Context(), name)
		if err != nil {
			return status(err), err
		}
		if tag != r.Header.Get("If-None-Match") {
			door.Hurry(w)
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("ETag", tag)
			w.Header().Set("Cache-Control", "no-cache")
			_, _ = w.Write(append(body, '\n')) // a client that is gone
			return http.StatusOK, nil
		}
		select {
		case <-changed:
		case <-deadline.C:
			w.Header().Set("ETag", tag)
			return http.StatusNotModified, nil
		case <-d.ending:
			return http.StatusNotModified, nil
		case <-r.Context().Done():
			return http.StatusOK, nil
		}
	}
}

// stream sends each state as an event, and a comment now and then.
func (d *Door) stream(w http.ResponseWriter, r *http.Request, name string) (int, error) {
	control := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		door.Hurry(w)
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && control.Flush() == nil
	}
	alive := time.NewTicker(beat)
	defer alive.Stop()
	for last := r.Header.Get("Last-Event-ID"); ; {
		body, tag, changed, err := d.look(r.Context(), name)
		if err != nil && w.Header().Get("Content-Type") == "" {
			return status(err), err
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case err != nil:
			send("event: error\ndata: {\"error\":%q}\n\n", strings.ToValidUTF8(err.Error(), ""))
			return http.StatusOK, nil
		case tag != last && !send("id: %s\ndata: %s\n\n", tag, body):
			return http.StatusOK, nil
		}
		last = tag
		for waiting := true; waiting; {
			select {
			case <-changed:
				waiting = false
			case <-alive.C:
				if !send(": alive\n\n") {
					return http.StatusOK, nil
				}
			case <-d.ending:
				return http.StatusOK, nil
			case <-r.Context().Done():
				return http.StatusOK, nil
			}
		}
	}
}

// route makes one pick.
func (d *Door) route(w http.ResponseWriter, r *http.Request) (int, error) {
	if d.config.Router == nil {
		return http.StatusNotImplemented, errors.New("this door does not route: resolve, and choose by weight")
	}
	name := r.PathValue("service")
	if err := l5.CheckService(name); err != nil {
		return http.StatusBadRequest, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.config.Wait)
	defer cancel()
	if _, _, err := d.names.Lookup(ctx, d.config.Caller, name); err != nil { // the bound on names
		return status(err), err
	}
	route, err := d.config.Router.Route(ctx, name)
	if err != nil {
		return status(err), err
	}
	id, ok := d.open.add(route, time.Now())
	if !ok {
		route.Done(l5.Outcome{Err: context.Canceled})
		return http.StatusServiceUnavailable, fmt.Errorf("%d picks have no outcome yet, which is the bound: tell outcomes", d.config.MaxOpen)
	}
	door.Hurry(w)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"id": id, "addr": route.Addr(), "panic": route.Panic()})
	return http.StatusOK, nil
}

// outcomes takes one outcome, or an array of them.
func (d *Door) outcomes(w http.ResponseWriter, r *http.Request) (int, error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second)) // a body that trickles in
	var body bytes.Buffer
	if _, err := body.ReadFrom(http.MaxBytesReader(nil, r.Body, 1<<20)); err != nil {
		return http.StatusBadRequest, fmt.Errorf("read the outcomes, 1 MB at most: %w", err)
	}
	all := make([]outcome, 1)
	into := any(&all[0])
	if bytes.HasPrefix(bytes.TrimSpace(body.Bytes()), []byte("[")) {
		into = &all
	}
	decoder := json.NewDecoder(&body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil && decoder.More() {
		err = errors.New("something follows")
	}
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf(`outcomes: %w; want {"id": ..., "error": ..., "latency_ms": ...} or an array of such`, err)
	}
	missing := 0
	for _, o := range all {
		if p, ok := d.open.take(o.ID); ok {
			p.route.Done(o.judge(time.Since(p.begin)))
		} else {
			missing++
		}
	}
	if missing > 0 {
		return http.StatusNotFound, fmt.Errorf("%d of %d ids are not open: told before, or older than %v", missing, len(all), d.config.OpenFor)
	}
	return http.StatusNoContent, nil
}

// judge makes it l5's; took is the time from pick to outcome.
func (o outcome) judge(took time.Duration) l5.Outcome {
	if o.LatencyMS != nil {
		took = time.Duration(max(0, min(*o.LatencyMS, 1e9)) * float64(time.Millisecond))
	}
	out := l5.Outcome{Latency: took}
	switch {
	case o.Overloaded:
		out.Err = l5.ErrOverloaded
	case o.Error != "":
		out.Err = errors.New(o.Error)
	}
	return out
}
