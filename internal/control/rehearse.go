package control

import (
	"slices"

	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb/controlpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/flowapi"
	"github.com/zhiyun-ops/zhiyun/internal/rpc"
)

// rehearsable lists the procedures that can be rehearsed: those whose every effect is a commit of a store, or that ask
// whether they are rehearsed before they act.
var rehearsable = slices.Concat([]string{
	controlpbconnect.ResourceServiceApplyProcedure,
	controlpbconnect.ResourceServiceDeleteProcedure,
	controlpbconnect.DeviceServiceMarkFaultyProcedure,
	controlpbconnect.DeviceServiceRepairProcedure,
	controlpbconnect.DeviceServiceRetireProcedure,
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
}, flowapi.Rehearsable)

// Change is one record that a rehearsed call would have written.
type Change = rpc.Change

// Rehearsing returns a client whose calls are rehearsed: each does all that it does up to the first commit, checks
// included, and ends with an error that Rehearsed reads. Calls that cannot be rehearsed, or a server that cannot, are
// CodeUnimplemented. Close the client that this was called on.
func (c *Client) Rehearsing() *Client {
	rehearsing := NewClient(c.http, c.base+rpc.RehearsalPath)
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
func Rehearsed(err error) (changes []Change, ok bool) { return rpc.Rehearsed(err) }
