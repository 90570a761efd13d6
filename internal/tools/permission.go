package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// PermissionRequestIn is what permission.request takes.
type PermissionRequestIn struct {
	Caller   string   `json:"caller" doc:"the module that calls"`
	Services []string `json:"services" doc:"that it calls"`
}

// PermissionOut tells of grants.
type PermissionOut struct {
	Active []string `json:"active" doc:"services that the caller may call"`
}

// PermissionRequest asks for the grants that a module needs. One that waits for its owner is grant.pending, which
// another attempt may find approved. Codes: module.unknown, grant.pending, grant.denied.
func PermissionRequest(ctx context.Context, env Env, in PermissionRequestIn) (PermissionOut, error) {
	out := PermissionOut{Active: []string{}}
	if _, err := module(ctx, env, in.Caller); err != nil {
		return out, err
	}
	var grants []center.Grant
	for _, service := range in.Services {
		// All are asked for before any is waited for, so that their owners see them at once.
		grant, err := control.Decode[center.Grant](env.Client.Permissions.Request(ctx, connect.NewRequest(&pb.PermissionRequest{
			Caller: in.Caller, Service: service, Cause: env.cause(),
		})))
		if err != nil {
			return out, err
		}
		grants = append(grants, grant)
	}
	return granted(grants)
}

// granted fails by name unless all are active.
func granted(grants []center.Grant) (PermissionOut, error) {
	out := PermissionOut{Active: []string{}}
	for _, grant := range grants {
		switch grant.State {
		case center.GrantActive:
			out.Active = append(out.Active, grant.Service)
		case center.GrantPending:
			return out, later("grant.pending", "%s may not call %s yet: zhiyun permission approve %s %s", grant.Caller, grant.Service, grant.Caller, grant.Service)
		case center.GrantDenied:
			return out, fail("grant.denied", "%s denied that %s calls %s: %s", grant.DecidedBy, grant.Caller, grant.Service, grant.Reason)
		default:
			return out, fail("grant.missing", "%s may not call %s (%s): zhiyun permission request %s %s", grant.Caller, grant.Service, grant.Reason, grant.Caller, grant.Service)
		}
	}
	return out, nil
}

// PermissionCheck sees that grants are in force. Codes: grant.missing, grant.pending, grant.denied.
func PermissionCheck(ctx context.Context, env Env, in PermissionRequestIn) (PermissionOut, error) {
	var grants []center.Grant
	for _, service := range in.Services {
		grant, err := check(ctx, env, in.Caller, service)
		if err != nil {
			return PermissionOut{Active: []string{}}, err
		}
		grants = append(grants, grant)
	}
	return granted(grants)
}

func check(ctx context.Context, env Env, caller, service string) (center.Grant, error) {
	return control.Decode[center.Grant](env.Client.Permissions.Check(ctx, connect.NewRequest(&pb.PermissionRequest{Caller: caller, Service: service})))
}

// PermissionRevokeIn is what permission.revoke takes: the input of permission.request, to undo it, or Unused.
type PermissionRevokeIn struct {
	Caller   string         `json:"caller"`
	Services []string       `json:"services"`
	Unused   bool           `json:"unused,omitempty" doc:"let go for every flow, if the module has no device left; what people asked for by hand stays"`
	Done     *PermissionOut `json:"done,omitempty"`
}

// PermissionRevokeOut tells what was let go of.
type PermissionRevokeOut struct {
	Released []Released `json:"released"`
}

// Released is one holder of a grant that let go.
type Released struct {
	Service string `json:"service"`
	Key     string `json:"key"`
}

// byHand begins the keys of what people asked for.
const byHand = "by-hand/"

// PermissionRevoke lets go of what permission.request of the same key asked for; a grant that nothing holds any more is
// revoked.
func PermissionRevoke(ctx context.Context, env Env, in PermissionRevokeIn) (PermissionRevokeOut, error) {
	out := PermissionRevokeOut{Released: []Released{}}
	if in.Unused {
		left, err := devicesWhere(ctx, env, fmt.Sprintf("module == %q", in.Caller))
		if err != nil {
			return out, err
		}
		if slices.ContainsFunc(left, func(d cmdb.Device) bool { return d.Holder != env.Execution }) {
			return out, nil
		}
	}
	for _, service := range in.Services {
		grant, err := check(ctx, env, in.Caller, service)
		if err != nil {
			return out, err
		}
		for key := range grant.Holders {
			if key != env.Key && (!in.Unused || strings.HasPrefix(key, byHand)) {
				continue
			}
			cause := env.cause()
			cause.Key = key
			if _, err := env.Client.Permissions.Release(ctx, connect.NewRequest(&pb.PermissionRequest{Caller: in.Caller, Service: service, Cause: cause})); err != nil {
				return out, err
			}
			out.Released = append(out.Released, Released{service, key})
		}
	}
	return out, nil
}

// PermissionRestoreIn is what permission.restore takes: the input of permission.revoke and what it did.
type PermissionRestoreIn struct {
	Caller   string               `json:"caller"`
	Services []string             `json:"services"`
	Unused   bool                 `json:"unused,omitempty"`
	Done     *PermissionRevokeOut `json:"done,omitempty"`
}

// PermissionRestore asks again for what permission.revoke let go of. If that is not known, it asks under its own key for
// what the module has in service to call.
func PermissionRestore(ctx context.Context, env Env, in PermissionRestoreIn) (PermissionOut, error) {
	out := PermissionOut{Active: []string{}}
	again := []Released{}
	if in.Done != nil {
		again = in.Done.Released
	} else {
		for _, service := range in.Services {
			again = append(again, Released{service, env.Key})
		}
	}
	for _, one := range again {
		cause := env.cause()
		cause.Key = one.Key
		grant, err := control.Decode[center.Grant](env.Client.Permissions.Request(ctx, connect.NewRequest(&pb.PermissionRequest{
			Caller: in.Caller, Service: one.Service, Cause: cause,
		})))
		if err != nil {
			return out, err
		}
		if grant.State == center.GrantActive {
			out.Active = append(out.Active, one.Service)
		}
	}
	return out, nil
}
