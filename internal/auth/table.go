package auth

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Row says which roles may call some methods of a service. A method without a row is for nobody: a test walks all
// methods that are served, and fails for one that was forgotten.
type Row struct {
	Service string
	Roles   []Role
	Methods string // separated by spaces
}

// Who may call what. A role that may call for one device alone is held to that by the handler (own, identify and MayChange).
var (
	reads    = []Role{Operator, Viewer, Tool}
	changes  = []Role{Operator, Tool}
	people   = []Role{Operator}
	names    = []Role{Operator, Viewer, Tool, Agent}
	callers  = []Role{Operator, Tool, Agent}
	everyone = Roles
)

// Rows is the whole of authorization by method.
var Rows = []Row{
	{"zhiyun.control.v1.ResourceService", reads, "Get List Plan History"},
	{"zhiyun.control.v1.ResourceService", changes, "Apply Delete"},
	{"zhiyun.control.v1.DeviceService", reads, "Query Counts"},
	{"zhiyun.control.v1.DeviceService", changes, "Acquire Renew Release Serve Hold MarkFaulty Repair Retire InitFiles"},
	{"zhiyun.control.v1.FlowService", reads, "Lint Definitions Definition Plan Get List Watch Tools ToolVersions Logs Timing Export Locks Check"},
	{"zhiyun.control.v1.FlowService", changes, "Save Start Cancel Retry Pause Resume Intervene Signal"},
	{"zhiyun.control.v1.FlowService", people, "Bulk Prune PushTool UseTool"}, // what is pushed runs as the server
	{"zhiyun.control.v1.FreezeService", reads, "List"},
	{"zhiyun.control.v1.FreezeService", people, "Freeze Unfreeze"},
	{"zhiyun.control.v1.TriggerService", reads, "List Get History"},
	{"zhiyun.control.v1.TriggerService", people, "Apply Pause Resume Fire Delete"},
	{"zhiyun.control.v1.GrayService", reads, "Get List Watch Await"},
	{"zhiyun.control.v1.GrayService", changes, "Start Abort Promote Pause Resume"},
	{"zhiyun.control.v1.ScaleService", reads, "Status Orders"},
	{"zhiyun.control.v1.ScaleService", changes, "Out In"},
	{"zhiyun.control.v1.DriftService", reads, "List Get"},
	{"zhiyun.control.v1.DriftService", changes, "Repair Ignore Reopen Peers"},
	{"zhiyun.control.v1.AgentService", callers, "Desired Report Device"},
	{"zhiyun.control.v1.RegistryService", reads, "Services Instances Explain Traffic Rules"},
	{"zhiyun.control.v1.RegistryService", changes, "Register Deregister Drain SetShares SetRules Isolate"},
	{"zhiyun.control.v1.PackageService", reads, "Get List"},
	{"zhiyun.control.v1.PackageService", changes, "Push"},
	{"zhiyun.control.v1.FileService", reads, "Get List Resolve"},
	{"zhiyun.control.v1.FileService", changes, "Push Delete"},
	{"zhiyun.control.v1.ConfigService", reads, "GetTemplate Templates Get Params Render"},
	{"zhiyun.control.v1.ConfigService", changes, "SetTemplate Set Unset Files"},
	{"zhiyun.control.v1.PermissionService", reads, "Check List"},
	{"zhiyun.control.v1.PermissionService", changes, "Request Release Revoke"},
	{"zhiyun.control.v1.PermissionService", people, "Approve Deny SetApproval"},
	{"zhiyun.control.v1.NotifyService", reads, "Mutes Silences Deliveries Rules"},
	{"zhiyun.control.v1.NotifyService", changes, "Deliver Mute Unmute Silence Unsilence"},
	{"zhiyun.control.v1.NotifyService", people, "Redeliver SetRule RemoveRule"}, // a sink is an address that the server calls
	{"zhiyun.control.v1.ChangeService", reads, "List"},
	{"zhiyun.control.v1.ChangeService", changes, "Record Undo"},
	{"zhiyun.control.v1.VirtualAddrService", reads, "List"},
	{"zhiyun.control.v1.VirtualAddrService", changes, "Add Remove"},
	{"zhiyun.control.v1.OpsService", reads, "Paused Audit Info Doctor"},
	{"zhiyun.control.v1.OpsService", changes, "Pause Resume"},
	{"zhiyun.control.v1.TokenService", people, "Issue List Revoke"},
	{"zhiyun.control.v1.EnrolService", []Role{Enrol}, "Enrol"},
	{"zhiyun.control.v1.EnrolService", []Role{Agent}, "Renew Trust"},
	{"zhiyun.l5.v1.NameService", names, "Explain"},
	{"zhiyun.l5.v1.NameService", callers, "Watch Register Renew Report"},
	{"zhiyun.flow.v1.DispatchService", callers, "Work Exchange"},
}

// paths are what is served beside the methods.
var paths = []struct {
	prefix string
	read   []Role // GET and HEAD
	write  []Role // all else
}{
	{"/metrics", []Role{Operator, Viewer, Tool, Metrics}, nil},
	{"/blobs/", []Role{Operator, Tool, Agent}, changes},
	{"/healthz", everyone, nil},
	{"/readyz", everyone, nil},
}

// byMethod is Rows, to look up: "/SERVICE/METHOD".
var byMethod = func() map[string][]Role {
	table := make(map[string][]Role)
	for _, row := range Rows {
		for method := range strings.FieldsSeq(row.Methods) {
			table["/"+row.Service+"/"+method] = row.Roles
		}
	}
	return table
}()

// RolesOf returns the roles that may call a method, "/SERVICE/METHOD", and whether it has a row at all.
func RolesOf(method string) ([]Role, bool) {
	roles, ok := byMethod[method]
	return roles, ok
}

// rehearsal stands before the path of a procedure that is to be rehearsed.
const rehearsal = "/rehearsal/"

// Allowed is the project's Guard.Allow: the table, and nothing else.
func Allowed(id Identity, r *http.Request) error {
	path := r.URL.Path
	if rehearsed, ok := strings.CutPrefix(path, rehearsal); ok {
		path = "/" + rehearsed // whoever may not do it may not see what it would do either
	}
	roles, known := RolesOf(path)
	for _, p := range paths {
		if path == p.prefix || strings.HasSuffix(p.prefix, "/") && strings.HasPrefix(path, p.prefix) {
			known, roles = true, p.write
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				roles = p.read
			}
		}
	}
	switch {
	case slices.Contains(roles, id.Role):
		return nil
	case !known && (id.Role == Operator || id.Role == Tool):
		return nil // nothing is there: the mux says so
	}
	return fmt.Errorf("%w: %s is not for the role %s", ErrDenied, r.URL.Path, id.Role)
}

// automatons are actors that are parts of the server. Only the tools of flows act in their names.
var automatons = []string{"flow", "scale", "gray", "drift", "liveness", "zhiyun"}

// MayClaim says whether the identity may name actor as who asks. Operators name themselves and other people; the tools of a
// flow name whoever started it; an agent is its device. What is claimed is kept beside what was proved.
func MayClaim(id Identity, actor string) error {
	lower := strings.ToLower(actor)
	role, _, prefixed := strings.Cut(lower, ":")
	switch {
	case actor == id.String() || actor == id.Name && !slices.Contains(automatons, lower):
		return nil
	case id.Role == Tool:
		return nil
	case id.Role == Operator && !slices.Contains(automatons, lower) && !(prefixed && slices.Contains(automatons, role)) &&
		role != string(Agent) && !(prefixed && role == string(Tool)):
		return nil
	}
	return fmt.Errorf("%w: %s may not act as %q; leave the actor out to act as yourself", ErrDenied, id, actor)
}
