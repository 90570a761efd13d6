package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// RehearsalPath stands before the path of a procedure that is to be rehearsed. It is a path, not a field of the request, so
// that a server too old to rehearse refuses the call; a field it would pass over, and act.
const RehearsalPath = "/rehearsal"

// Change is one record that a rehearsed call would have written.
type Change struct {
	Object string          `json:"object"` // whose record, as gray/open/r-17
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"` // neither this nor Before: it is no document, and not shown
	Gone   bool            `json:"gone,omitempty"`  // it would be removed
}

// Noted adds a document to a rehearsal that no store's commit tells of.
func Noted(r *store.Rehearsal, object string, document any) error {
	encoded, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("control: rehearse %s: %w", object, err)
	}
	r.Note(store.Change{Key: object, After: encoded})
	return nil
}

// RehearsedOr is how a handler ends that rehearses by itself: with err, or else as a commit would have.
func RehearsedOr(err error) error {
	if err == nil {
		return store.ErrRehearsed
	}
	return err
}

// MountRehearsals serves procedures of mux, those that can be rehearsed, below their own path. Each ends with an error that
// carries what it would have changed, also where that is nothing: see Rehearsed.
func MountRehearsals(mux *http.ServeMux, procedures []string) {
	mux.Handle(RehearsalPath+"/", http.StripPrefix(RehearsalPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(procedures, r.URL.Path) {
			http.Error(w, r.URL.Path+" cannot be rehearsed", http.StatusNotFound)
			return
		}
		ctx, _ := store.Rehearse(r.Context())
		mux.ServeHTTP(w, r.WithContext(ctx))
	})))
}

// Rehearsals ends calls that are rehearsed with what they would have changed.
type Rehearsals struct{}

// WrapUnary implements connect.Interceptor.
func (Rehearsals) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		if store.RehearsalOf(ctx) == nil {
			return response, err
		}
		return nil, rehearsalEnd(ctx, err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (Rehearsals) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (Rehearsals) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		if store.RehearsalOf(ctx) == nil {
			return err
		}
		return rehearsalEnd(ctx, err)
	}
}

// rehearsalEnd is how a rehearsal ends: with its changes, or with the error that the call itself would have ended with.
func rehearsalEnd(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, store.ErrRehearsed) {
		return err
	}
	changes := []Change{}
	for _, c := range store.RehearsalOf(ctx).Changes() {
		change := Change{Object: c.Key, Gone: c.After == nil}
		change.Before, change.After = shownRecord(c.Before), shownRecord(c.After)
		changes = append(changes, change)
	}
	encoded, err := json.Marshal(changes)
	if err != nil {
		return fmt.Errorf("control: encode a rehearsal: %w", err)
	}
	out := connect.NewError(connect.CodeAborted, store.ErrRehearsed)
	detail, err := connect.NewErrorDetail(wrapperspb.Bytes(encoded))
	if err != nil {
		return fmt.Errorf("control: encode a rehearsal: %w", err)
	}
	out.AddDetail(detail)
	out.Meta().Set(NameHeader, rehearsalName)
	return out
}

// masked stands for a secret, as package center writes it.
const masked = "********"

// shownRecord is a record as it may be shown: nil if it is no document; the value of a secret, and what a token is known
// by, are struck out.
func shownRecord(record []byte) json.RawMessage {
	var fields map[string]any
	if json.Unmarshal(record, &fields) != nil {
		return nil
	}
	struck := false
	if secret, _ := fields["secret"].(bool); secret {
		fields["value"], struck = masked, true
	}
	if _, there := fields["hash"]; there {
		fields["hash"], struck = masked, true
	}
	if !struck {
		return record // as it is: numbers that are too large for a float stay whole
	}
	encoded, err := json.Marshal(fields)
	if err != nil {
		return nil
	}
	return encoded
}

// rehearsalName is the name of the error that a rehearsal ends with.
const rehearsalName = "rehearsed"

// Rehearsed returns what a rehearsed call would have changed: ok says that err is the end of a rehearsal.
func Rehearsed(err error) (changes []Change, ok bool) {
	var remote *connect.Error
	if !errors.As(err, &remote) || remote.Meta().Get(NameHeader) != rehearsalName {
		return nil, false
	}
	for _, detail := range remote.Details() {
		value, err := detail.Value()
		if err != nil {
			continue
		}
		if encoded, is := value.(*wrapperspb.BytesValue); is && json.Unmarshal(encoded.Value, &changes) == nil {
			return changes, true
		}
	}
	return nil, false
}

// NotedBoth adds a change of a document to a rehearsal that no store's commit tells of.
func NotedBoth(r *store.Rehearsal, object string, before, after any) error {
	old, err := json.Marshal(before)
	if err != nil {
		return fmt.Errorf("control: rehearse %s: %w", object, err)
	}
	now, err := json.Marshal(after)
	if err != nil {
		return fmt.Errorf("control: rehearse %s: %w", object, err)
	}
	r.Note(store.Change{Key: object, Before: old, After: now})
	return nil
}
