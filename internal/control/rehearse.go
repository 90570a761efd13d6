package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/store"
)

// rehearsalPath stands before the path of a procedure that is to be rehearsed. It is a path, not a field of the request, so
// that a server too old to rehearse refuses the call; a field it would pass over, and act.
const rehearsalPath = "/rehearsal"

// rehearsable lists the procedures that can be rehearsed: those whose every effect is a commit of a store, or that ask
// whether they are rehearsed before they act.
var rehearsable = []string{
	controlpbconnect.ResourceServiceApplyProcedure,
	controlpbconnect.ResourceServiceDeleteProcedure,
	controlpbconnect.DeviceServiceMarkFaultyProcedure,
	controlpbconnect.DeviceServiceRepairProcedure,
	controlpbconnect.DeviceServiceRetireProcedure,
	controlpbconnect.FlowServiceSaveProcedure,
	controlpbconnect.FlowServiceStartProcedure,
	controlpbconnect.FlowServiceCancelProcedure,
	controlpbconnect.FlowServiceRetryProcedure,
	controlpbconnect.FlowServicePauseProcedure,
	controlpbconnect.FlowServiceResumeProcedure,
	controlpbconnect.FlowServiceInterveneProcedure,
	controlpbconnect.FlowServicePushToolProcedure,
	controlpbconnect.FlowServiceUseToolProcedure,
	controlpbconnect.FlowServiceBulkProcedure,
	controlpbconnect.FlowServiceSignalProcedure,
	controlpbconnect.FlowServicePruneProcedure,
	controlpbconnect.FreezeServiceFreezeProcedure,
	controlpbconnect.FreezeServiceUnfreezeProcedure,
	controlpbconnect.TriggerServiceApplyProcedure,
	controlpbconnect.TriggerServicePauseProcedure,
	controlpbconnect.TriggerServiceResumeProcedure,
	controlpbconnect.TriggerServiceFireProcedure,
	controlpbconnect.TriggerServiceDeleteProcedure,
	controlpbconnect.RegistryServiceSetRulesProcedure,
	controlpbconnect.RegistryServiceIsolateProcedure,
	controlpbconnect.GrayServiceAbortProcedure,
	controlpbconnect.GrayServicePromoteProcedure,
	controlpbconnect.GrayServicePauseProcedure,
	controlpbconnect.GrayServiceResumeProcedure,
	controlpbconnect.DriftServiceRepairProcedure,
	controlpbconnect.DriftServiceIgnoreProcedure,
	controlpbconnect.DriftServiceReopenProcedure,
	controlpbconnect.PackageServicePushProcedure,
	controlpbconnect.FileServicePushProcedure,
	controlpbconnect.FileServiceDeleteProcedure,
	controlpbconnect.ConfigServiceSetTemplateProcedure,
	controlpbconnect.ConfigServiceSetProcedure,
	controlpbconnect.ConfigServiceUnsetProcedure,
	controlpbconnect.PermissionServiceRequestProcedure,
	controlpbconnect.PermissionServiceApproveProcedure,
	controlpbconnect.PermissionServiceRevokeProcedure,
	controlpbconnect.NotifyServiceMuteProcedure,
	controlpbconnect.NotifyServiceUnmuteProcedure,
	controlpbconnect.NotifyServiceSilenceProcedure,
	controlpbconnect.NotifyServiceUnsilenceProcedure,
	controlpbconnect.NotifyServiceRedeliverProcedure,
	controlpbconnect.NotifyServiceSetRuleProcedure,
	controlpbconnect.NotifyServiceRemoveRuleProcedure,
	controlpbconnect.TokenServiceRevokeProcedure,
	controlpbconnect.OpsServicePauseProcedure,
	controlpbconnect.OpsServiceResumeProcedure,
}

// Change is one record that a rehearsed call would have written.
type Change struct {
	Object string          `json:"object"` // whose record, as gray/open/r-17
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"` // neither this nor Before: it is no document, and not shown
	Gone   bool            `json:"gone,omitempty"`  // it would be removed
}

// noted adds a document to a rehearsal that no store's commit tells of.
func noted(r *store.Rehearsal, object string, document any) error {
	encoded, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("control: rehearse %s: %w", object, err)
	}
	r.Note(store.Change{Key: object, After: encoded})
	return nil
}

// rehearsedOr is how a handler ends that rehearses by itself: with err, or else as a commit would have.
func rehearsedOr(err error) error {
	if err == nil {
		return store.ErrRehearsed
	}
	return err
}

// mountRehearsals serves the procedures of mux that can be rehearsed, below their own path. Each ends with an error that
// carries what it would have changed, also where that is nothing: see Rehearsed.
func mountRehearsals(mux *http.ServeMux) {
	mux.Handle(rehearsalPath+"/", http.StripPrefix(rehearsalPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(rehearsable, r.URL.Path) {
			http.Error(w, r.URL.Path+" cannot be rehearsed", http.StatusNotFound)
			return
		}
		ctx, _ := store.Rehearse(r.Context())
		mux.ServeHTTP(w, r.WithContext(ctx))
	})))
}

// rehearsed ends calls that are rehearsed with what they would have changed.
type rehearsed struct{}

func (rehearsed) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		if store.RehearsalOf(ctx) == nil {
			return response, err
		}
		return nil, rehearsalEnd(ctx, err)
	}
}

func (rehearsed) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (rehearsed) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
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
	out.Meta().Set(nameHeader, rehearsalName)
	return out
}

// shownRecord is a record as it may be shown: nil if it is no document; the value of a secret, and what a token is known
// by, are struck out.
func shownRecord(record []byte) json.RawMessage {
	var fields map[string]any
	if json.Unmarshal(record, &fields) != nil {
		return nil
	}
	masked := false
	if secret, _ := fields["secret"].(bool); secret {
		fields["value"], masked = center.Masked, true
	}
	if _, there := fields["hash"]; there {
		fields["hash"], masked = center.Masked, true
	}
	if !masked {
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

// Rehearsing returns a client whose calls are rehearsed: each does all that it does up to the first commit, checks
// included, and ends with an error that Rehearsed reads. Calls that cannot be rehearsed, or a server that cannot, are
// CodeUnimplemented. Close the client that this was called on.
func (c *Client) Rehearsing() *Client {
	rehearsing := NewClient(c.http, c.base+rehearsalPath)
	rehearsing.plain = c
	return rehearsing
}

// Reading returns the client for what is read beside a rehearsal: that which Rehearsing was called on, or c itself.
func (c *Client) Reading() *Client {
	if c.plain != nil {
		return c.plain
	}
	return c
}

// Rehearsed returns what a rehearsed call would have changed: ok says that err is the end of a rehearsal.
func Rehearsed(err error) (changes []Change, ok bool) {
	var remote *connect.Error
	if !errors.As(err, &remote) || remote.Meta().Get(nameHeader) != rehearsalName {
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
