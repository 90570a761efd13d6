package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/zhiyun-ops/zhiyun/flow/flowpb"
	"github.com/zhiyun-ops/zhiyun/flow/flowpb/flowpbconnect"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/server"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

// running is a server with everything that it has, on a socket and on a TCP address.
type running struct {
	base   string
	client *control.Client // of the operator of this host
}

func serve(t *testing.T) *running {
	t.Helper()
	folder := dir(t)
	s, _ := start(t, server.Config{Dir: folder, Listen: "127.0.0.1:0", Exe: os.Args[0]})
	client, err := control.Dial("unix://"+filepath.Join(folder, "control.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &running{base: "http://" + s.Addr(), client: client}
}

func (r *running) token(t *testing.T, role auth.Role, name string) string {
	t.Helper()
	answer, err := r.client.Tokens.Issue(t.Context(), connect.NewRequest(&controlpb.IssueTokenRequest{Role: string(role), Name: name}))
	if err != nil {
		t.Fatal(err)
	}
	return answer.Msg.Token
}

// status is the answer's, to a call without a body.
func (r *running) status(t *testing.T, method, path, token string, header map[string]string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.base+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range header {
		if request.Header.Set(name, value); name == "Host" {
			request.Host = value
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

func TestAccess(t *testing.T) {
	t.Parallel()
	r := serve(t)
	t.Run("paths", r.paths)
	t.Run("agents speak for their own device", r.agents)
	r.place(t)
	t.Run("agents change what is on their own device", r.instances)
	t.Run("agents speak for the modules that are placed on their device", r.placement)
}

// fleet has device a with module web, which calls s2 and serves s; and device b with none.
const fleet = `
kind: site
name: s1
city: sz
---
kind: device_type
name: small
cores: 2
---
kind: module
name: web
services: [{id: s, port: 1}]
permissions: [s2]
---
kind: module
name: other
services: [{id: s2, port: 2}]
---
kind: device
name: a
addr: 127.0.1.1
site: s1
type: small
---
kind: device
name: b
addr: 127.0.1.2
site: s1
type: small
`

// place declares the fleet and puts web on a.
func (r *running) place(t *testing.T) {
	ctx := t.Context()
	_, err := r.client.Resources.Apply(ctx, connect.NewRequest(&controlpb.ApplyRequest{Documents: []*controlpb.SourceDocument{{Name: "fleet", Text: []byte(fleet)}}}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.client.Devices.Acquire(ctx, connect.NewRequest(&controlpb.AcquireRequest{Owner: "test", Module: "web", Count: 1, Names: []string{"a"}, Cause: &controlpb.Cause{Key: "test"}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, caller := range []string{"web", "other"} {
		for _, service := range []string{"s2", "s"} {
			cause := &controlpb.Cause{Key: "test-" + caller + service, Reason: "test"}
			if _, err := r.client.Permissions.Request(ctx, connect.NewRequest(&controlpb.PermissionRequest{Caller: caller, Service: service, Cause: cause})); err != nil {
				t.Fatal(err)
			}
			if _, err := r.client.Permissions.Approve(ctx, connect.NewRequest(&controlpb.PermissionRequest{Caller: caller, Service: service, Cause: cause})); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// placement: the agent of a gets routes and reports for web, which is on a, and not for other, which is not; what is
// refused to one caller is not refused to the next.
func (r *running) placement(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, base := r.dial(t, "a")
	names := l5pbconnect.NewNameServiceClient(client, base, connect.WithGRPC())
	watch := names.Watch(ctx)
	defer watch.CloseResponse()
	defer watch.CloseRequest()
	if err := watch.Send(&l5pb.WatchRequest{Peer: "agent@a", Subscribe: []*l5pb.Subscription{{Service: "s2", Caller: "other"}, {Service: "s2", Caller: "web"}}}); err != nil {
		t.Fatal(err)
	}
	heard := make(map[string]*l5pb.Verdict)
	verdict := func(caller string) *l5pb.Verdict {
		t.Helper()
		for heard[caller] == nil {
			message, err := watch.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if v := message.GetVerdict(); v != nil {
				heard[v.GetCaller()] = v
			}
		}
		return heard[caller]
	}
	if v := verdict("other"); v.GetAllowed() || !strings.Contains(v.GetReason(), "not placed on this device") {
		t.Errorf("the caller that is not on the device: %v", v)
	}
	if v := verdict("web"); !v.GetAllowed() {
		t.Errorf("the caller that is on the device: %v", v)
	}
	outcome := func(caller string) *l5pb.Outcome {
		return &l5pb.Outcome{Caller: caller, Service: "s2", Addr: "127.0.0.1:2", Requests: 1, Reports: 1}
	}
	answer, err := names.Report(ctx, connect.NewRequest(&l5pb.ReportRequest{Reporter: "a-1", Seq: 1, Outcomes: []*l5pb.Outcome{outcome("other"), outcome("web")}}))
	if err != nil {
		t.Fatal(err)
	}
	if refused := answer.Msg.GetRefused(); len(refused) != 1 || !strings.Contains(refused["other"], "not placed") {
		t.Errorf("refused of a report: %v", refused)
	}
	clear(heard)
	// The module leaves the device: the stream hears it without asking.
	released, err := r.client.Devices.Release(ctx, connect.NewRequest(&controlpb.DevicesRequest{Owner: "test", Names: []string{"a"}, Cause: &controlpb.Cause{Key: "test"}}))
	if err != nil || len(released.Msg.Names) != 1 {
		t.Fatalf("released %v: %v", released, err)
	}
	if v := verdict("web"); v.GetAllowed() {
		t.Errorf("the caller that has left the device: %v", v)
	}
}

// methods are all that the server serves.
func methods() []string {
	var all []string
	for _, file := range []protoreflect.FileDescriptor{
		controlpb.File_internal_control_controlpb_control_proto, l5pb.File_l5_l5pb_l5_proto, flowpb.File_flow_flowpb_flow_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for k := range service.Methods().Len() {
				all = append(all, "/"+string(service.FullName())+"/"+string(service.Methods().Get(k).Name()))
			}
		}
	}
	return all
}

// paths: each method has a row in the table of roles, and is refused to everybody who is not in it.
func (r *running) paths(t *testing.T) {
	tokens := make(map[auth.Role]string)
	for _, role := range auth.Roles {
		if role != auth.Tool { // the server alone makes those
			tokens[role] = r.token(t, role, "a")
		}
	}
	agent, operator, reader := tokens[auth.Agent], tokens[auth.Operator], tokens[auth.Metrics]
	all := methods()
	if len(all) < 100 {
		t.Fatalf("only %d methods are known", len(all))
	}
	table := 0
	for _, row := range auth.Rows {
		for method := range strings.FieldsSeq(row.Methods) {
			table++
			if path := "/" + row.Service + "/" + method; !slices.Contains(all, path) {
				t.Errorf("the table has a row for %s, which is not served", path)
			}
		}
	}
	if table != len(all) {
		t.Errorf("the table has %d methods, served are %d", table, len(all))
	}
	for _, path := range append(all, "/metrics", "/nothing") {
		roles, known := auth.RolesOf(path)
		if !known && strings.HasPrefix(path, "/zhiyun") {
			t.Errorf("%s has no row in the table of roles: say in internal/auth who may call it", path)
		}
		if got := r.status(t, "POST", path, "", nil); got != http.StatusUnauthorized && got != http.StatusTooManyRequests {
			t.Errorf("%s without a token: %d", path, got)
		}
		for role, token := range tokens {
			if !slices.Contains(roles, role) && (known || role != auth.Operator) {
				if got := r.status(t, "POST", path, token, nil); got != http.StatusForbidden {
					t.Errorf("%s for the role %s: %d", path, role, got)
				}
			}
		}
	}
	blob := "/blobs/sha256/" + strings.Repeat("0", 64)
	for _, c := range []struct {
		method, path, token string
		header              map[string]string
		want                int
	}{
		{"GET", "/healthz", "", nil, 200},
		{"GET", "/readyz", "", nil, 200},
		{"GET", "/metrics", operator, nil, 200},
		{"GET", "/metrics", reader, nil, 200},
		{"GET", blob, reader, nil, 403},
		{"POST", all[0], reader, nil, 403},
		{"POST", "/zhiyun.l5.v1.NameService/Explain", reader, nil, 403},

		{"GET", blob, agent, nil, 404},
		{"PUT", blob, agent, nil, 403},
		{"GET", "/blobs/../metrics", agent, nil, 403},
		{"GET", "/healthz", "", map[string]string{"Host": "evil.example"}, 421},
		{"POST", all[0], operator, map[string]string{"Origin": "http://evil.example"}, 403},
		{"GET", "/metrics", tokens[auth.Viewer], nil, 200},
	} {
		if got := r.status(t, c.method, c.path, c.token, c.header); got != c.want {
			t.Errorf("%s %s with %v: %d, want %d", c.method, c.path, c.header, got, c.want)
		}
	}
}

// dial connects as the agent of a device.
func (r *running) dial(t *testing.T, device string) (*http.Client, string) {
	t.Helper()
	client, base, err := transport.Dial(transport.DialConfig{Target: r.base, Token: r.token(t, auth.Agent, device)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client, base
}

func denied(t *testing.T, what string, err error) {
	t.Helper()
	if code := connect.CodeOf(err); code != connect.CodePermissionDenied {
		t.Errorf("%s: %v, want permission denied", what, err)
	}
}

// agents: the agent of a cannot learn, report or do what is b's.
func (r *running) agents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, base := r.dial(t, "a")
	api := control.NewClient(client, base).Agents
	_, err := api.Device(ctx, connect.NewRequest(&controlpb.DesiredRequest{Device: "b"}))
	denied(t, "the device of another", err)
	_, err = api.Report(ctx, connect.NewRequest(&controlpb.JSON{Json: []byte(`{"device":"b"}`)}))
	denied(t, "a report on another", err)
	desired, err := api.Desired(ctx, connect.NewRequest(&controlpb.DesiredRequest{Device: "b"}))
	if err == nil {
		desired.Receive()
		err = errors.Join(desired.Err(), desired.Close())
	}
	denied(t, "the declaration of another", err)
	work := flowpbconnect.NewDispatchServiceClient(client, base, connect.WithGRPC()).Work(ctx)
	if err := work.Send(&flowpb.WorkRequest{Kind: &flowpb.WorkRequest_Hello{Hello: &flowpb.Hello{Device: "b"}}}); err != nil {
		t.Fatal(err)
	}
	_, err = work.Receive()
	denied(t, "the work of another", err)
	names := l5pbconnect.NewNameServiceClient(client, base, connect.WithGRPC()).Register(ctx)
	if err := names.Send(&l5pb.RegisterRequest{Owner: "b", Seq: 1}); err != nil {
		t.Fatal(err)
	}
	_, err = names.Receive()
	denied(t, "the lease of another", err)
}

// instances: the agent of a can neither remove, drain, take over nor invent what is on b.
func (r *running) instances(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	operator, err := control.Dial(r.base, r.token(t, auth.Operator, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	client, base := r.dial(t, "a")
	stream := l5pbconnect.NewNameServiceClient(client, base, connect.WithGRPC()).Register(ctx)
	defer stream.CloseResponse()
	defer stream.CloseRequest()
	seq := uint64(0)
	ask := func(request *l5pb.RegisterRequest) string {
		t.Helper()
		seq++
		request.Owner, request.Seq = "a", seq
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		response, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return response.GetFault()
	}
	of := func(device, addr string) *l5pb.Instance {
		return &l5pb.Instance{Service: "s", Addr: addr, Device: device}
	}
	if fault := ask(&l5pb.RegisterRequest{Put: []*l5pb.Instance{of("a", "127.0.0.1:1")}}); fault != "" {
		t.Errorf("its own: %s", fault)
	}
	registered := []byte(`{"service":"s","addr":"127.0.0.1:2","device":"b","owner":"b"}`)
	if _, err := operator.Registry.Register(ctx, connect.NewRequest(&controlpb.RegisterRequest{
		Instances: [][]byte{registered}, Cause: &controlpb.Cause{Reason: "test"},
	})); err != nil {
		t.Fatal(err)
	}
	theirs := []*l5pb.Key{{Service: "s", Addr: "127.0.0.1:2"}}
	for what, request := range map[string]*l5pb.RegisterRequest{
		"removes":    {Remove: theirs},
		"drains":     {Drain: theirs},
		"takes over": {Put: []*l5pb.Instance{of("a", "127.0.0.1:2")}},
		"invents":    {Put: []*l5pb.Instance{of("b", "127.0.0.1:3")}},
	} {
		if fault := ask(request); !strings.Contains(fault, "not allowed") {
			t.Errorf("an agent %s what is another's: %q", what, fault)
		}
	}
	for what, request := range map[string]*l5pb.RegisterRequest{
		"a service of another module":   {Put: []*l5pb.Instance{{Service: "s2", Addr: "127.0.0.1:4", Device: "a"}}},
		"an instance of another module": {Put: []*l5pb.Instance{{Service: "s", Addr: "127.0.0.1:4", Device: "a", Module: "other"}}},
	} {
		if fault := ask(request); !strings.Contains(fault, "not placed") {
			t.Errorf("an agent registers %s: %q", what, fault)
		}
	}
	list, _, err := control.DecodeList[l5server.InstanceStatus](operator.Registry.Instances(ctx, connect.NewRequest(&controlpb.ServiceRequest{Service: "s"})))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i l5server.InstanceStatus) bool { return i.Addr == "127.0.0.1:2" })
	if len(list) != 2 || i < 0 || list[i].Owner != "b" || list[i].Device != "b" || list[i].State != l5.StateUp {
		t.Errorf("there are %+v", list)
	}
	if fault := ask(&l5pb.RegisterRequest{Remove: []*l5pb.Key{{Service: "s", Addr: "127.0.0.1:1"}}}); fault != "" {
		t.Errorf("its own: %s", fault)
	}
}
