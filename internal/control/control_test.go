package control_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/drift"
	"github.com/zhiyun-ops/zhiyun/internal/auth"
	"github.com/zhiyun-ops/zhiyun/internal/center"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
)

const site = `
kind: site
name: s1
city: sz
---
kind: device_type
name: small
cores: 2
---
kind: device
name: d1
addr: 127.0.1.1
site: s1
type: small
---
kind: device
name: d2
addr: 127.0.1.2
site: s1
type: small
---
kind: module
name: shop.cart
packages: [{name: cart, version: "1.0"}]
files: [{source: shop/etc, path: etc/shop}]
configs: [{template: cart.conf, path: etc/cart.conf}]
processes: [{name: cart, package: cart, command: [bin/cart]}]
ports: [{port: 7000}]
services: [{id: shop.cart, port: 7000}]
scale: {capacity: {small: 100}}
`

// world is a server's parts, served on a unix socket.
type world struct {
	cmdb    *cmdb.DB
	centers *center.Centers
	ledger  *drift.Ledger
	client  *control.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	t.Cleanup(wait.Wait)
	t.Cleanup(cancel)
	run := func(f func(context.Context) error) {
		wait.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	root, dir := store.NewMemory(), t.TempDir()
	w := &world{}
	w.cmdb = must[*cmdb.DB](t)(cmdb.New(cmdb.Config{Store: store.Prefixed(root, "/cmdb/")}))
	w.centers = must[*center.Centers](t)(center.New(center.Config{Store: store.Prefixed(root, "/center/"), Dir: dir}))
	w.ledger = must[*drift.Ledger](t)(drift.NewLedger(drift.LedgerConfig{Store: store.Prefixed(root, "/drift/")}))
	names := must[*l5server.Server](t)(l5server.New(l5server.Config{Store: store.Prefixed(root, "/l5/"), Grace: time.Hour}))
	log := must[*records.DB](t)(records.Open(filepath.Join(dir, "records.db"), records.Config{}))
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	api := must[*control.API](t)(control.New(control.Config{
		CMDB: w.cmdb, Centers: w.centers, Records: log, Drift: w.ledger, Names: names, Settle: time.Millisecond,
	}))
	run(w.cmdb.Run)
	run(w.centers.Run)
	run(names.Run)
	run(log.Run)
	run(api.Run)
	if err := errors.Join(w.cmdb.Ready(ctx), w.centers.Ready(ctx), names.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	api.Mount(mux)
	// The identity that a guard would have proved stands in a header here.
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if device := r.Header.Get("Test-Agent"); device != "" {
			r = r.WithContext(auth.With(r.Context(), auth.Identity{Role: auth.Agent, Name: device}))
		}
		mux.ServeHTTP(rw, r)
	})
	socket := filepath.Join(dir, "s")
	listener := must[net.Listener](t)(net.Listen("unix", socket))
	run(func(ctx context.Context) error { return transport.NewServer(handler).Serve(ctx, listener, time.Second) })
	w.client = must[*control.Client](t)(control.Dial("unix://"+socket, ""))
	t.Cleanup(w.client.Close)
	return w
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func cause(key string) *pb.Cause {
	return &pb.Cause{Actor: "alice", Reason: "test", Execution: "e1", Key: key}
}

func (w *world) apply(t *testing.T, text string) {
	t.Helper()
	must[*connect.Response[pb.ApplyResponse]](t)(w.client.Resources.Apply(t.Context(), connect.NewRequest(&pb.ApplyRequest{
		Documents: []*pb.SourceDocument{{Name: "site.yaml", Text: []byte(text)}}, Cause: cause("")})))
}

// furnish pushes what the module's manifest names.
func (w *world) furnish(t *testing.T) center.Package {
	t.Helper()
	ctx := t.Context()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	body := strings.Repeat("binary ", 200_000) // several messages
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "bin/cart", Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg})); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tw, body); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	pushed := must[center.Package](t)(w.client.PushPackage(ctx, "cart", "1.0", &archive, cause("")))
	must[center.File](t)(w.client.PushFile(ctx, "shop", "etc/map", 0o644, strings.NewReader("map"), cause("")))
	must[*connect.Response[pb.JSON]](t)(w.client.Configs.SetTemplate(ctx, connect.NewRequest(&pb.TemplateRequest{
		Name: "cart.conf", Body: "listen {{.device.addr}}:7000\nlevel {{.param.level}}\n", Cause: cause("")})))
	w.set(t, "level", `"info"`, false)
	return pushed
}

func (w *world) set(t *testing.T, key, value string, secret bool) {
	t.Helper()
	must[*connect.Response[pb.JSON]](t)(w.client.Configs.Set(t.Context(), connect.NewRequest(&pb.ParamRequest{
		Level: "module", Owner: "shop.cart", Key: key, Value: []byte(value), Secret: secret, Cause: cause("")})))
}

func (w *world) serve(t *testing.T, device string) {
	t.Helper()
	ctx := t.Context()
	must[*connect.Response[pb.Listing]](t)(w.client.Devices.Acquire(ctx, connect.NewRequest(&pb.AcquireRequest{
		Owner: "e1", Module: "shop.cart", Names: []string{device}, Cause: cause("acquire-" + device)})))
	for range 2 { // the second finds its work done
		must[*connect.Response[pb.Done]](t)(w.client.Devices.Serve(ctx, connect.NewRequest(&pb.DevicesRequest{
			Owner: "e1", Names: []string{device}, Module: "shop.cart", Cause: cause("")})))
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := control.New(control.Config{Settle: -1, Checks: []control.Check{{}}})
	for _, field := range []string{"CMDB", "Centers", "Records", "Settle", "Checks[0]"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
}

func TestApplyExactlyWhatWasPlanned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	documents := []*pb.SourceDocument{{Name: "site.yaml", Text: []byte(site)}}
	plan := must[*connect.Response[pb.PlanResponse]](t)(w.client.Resources.Plan(ctx, connect.NewRequest(&pb.PlanRequest{Documents: documents})))
	if plan.Msg.Empty || !strings.Contains(plan.Msg.Text, "shop.cart") {
		t.Fatalf("plan: %s", plan.Msg.Text)
	}
	_, err := w.client.Resources.Apply(ctx, connect.NewRequest(&pb.ApplyRequest{Documents: documents, Hash: "other", Cause: cause("")}))
	if control.NameOf(err) != "plan.stale" || connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("another plan was applied: %v", err)
	}
	w.apply(t, site)
	again := must[*connect.Response[pb.PlanResponse]](t)(w.client.Resources.Plan(ctx, connect.NewRequest(&pb.PlanRequest{Documents: documents})))
	if !again.Msg.Empty {
		t.Errorf("applied twice it changes: %s", again.Msg.Text)
	}
	devices, next, err := control.DecodeList[cmdb.Device](w.client.Resources.List(ctx, connect.NewRequest(&pb.ListResourcesRequest{
		Kind: "device", Filter: `state == "idle"`, Page: &pb.Page{Limit: 1}})))
	if err != nil || len(devices) != 1 || next != "d1" {
		t.Errorf("first page: %v %q %v", devices, next, err)
	}
	_, err = w.client.Resources.Get(ctx, connect.NewRequest(&pb.GetResourceRequest{Kind: "device", Name: "d9"}))
	if control.NameOf(err) != "resource.not_found" || connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("absent device: %v", err)
	}
	_, err = w.client.Resources.List(ctx, connect.NewRequest(&pb.ListResourcesRequest{Kind: "device", Page: &pb.Page{Limit: 5000}}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a page of 5000: %v", err)
	}
}

func TestErrorsHaveNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, site)
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"device.none": func() error {
			_, err := w.client.Devices.Acquire(ctx, connect.NewRequest(&pb.AcquireRequest{Owner: "e", Count: 9, Cause: cause("k")}))
			return err
		},
		"device.state": func() error {
			_, err := w.client.Devices.Serve(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: "e", Names: []string{"d1"}, Module: "shop.cart", Cause: cause("")}))
			return err
		},
		"invalid": func() error {
			_, err := w.client.Devices.Serve(ctx, connect.NewRequest(&pb.DevicesRequest{Owner: "e", Names: []string{"d1"}}))
			return err
		},
		"absent": func() error {
			_, err := w.client.Gray.List(ctx, connect.NewRequest(&pb.ListRolloutsRequest{}))
			return err
		},
		"vip.no_balancer": func() error {
			_, err := w.client.Virtual.Add(ctx, connect.NewRequest(&pb.RealServerRequest{Virtual: "v", Addr: "127.0.0.1:80", Cause: cause("k")}))
			return err
		},
		"not_found": func() error {
			_, err := w.client.Packages.Get(ctx, connect.NewRequest(&pb.PackageRequest{Name: "p", Version: "1"}))
			return err
		},
		"rules.invalid": func() error {
			_, err := w.client.Registry.SetRules(ctx, connect.NewRequest(&pb.SetRulesRequest{Service: "s", Rules: []byte(`{"subset":-1}`), Cause: cause("k")}))
			return err
		},
		"rules.changed": func() error {
			revision := int64(77)
			_, err := w.client.Registry.SetRules(ctx, connect.NewRequest(&pb.SetRulesRequest{Service: "s", Revision: &revision, Cause: cause("k")}))
			return err
		},
		"instance.not_found": func() error {
			_, err := w.client.Registry.Drain(ctx, connect.NewRequest(&pb.InstanceRequest{Service: "s", Addr: "127.0.0.1:80", Cause: cause("k")}))
			return err
		},
	} {
		if err := call(); control.NameOf(err) != name {
			t.Errorf("error %v has the name %q, want %q", err, control.NameOf(err), name)
		}
	}
}

// Each bucket of a window costs memory, whether calls were reported in it or not.
func TestTrafficOfAnEraIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for window, want := range map[time.Duration]string{time.Hour: "", 1000 * time.Hour: "invalid", -time.Second: "invalid"} {
		_, err := w.client.Registry.Traffic(t.Context(), connect.NewRequest(&pb.TrafficRequest{Service: "s", Window: durationpb.New(window)}))
		if got := control.NameOf(err); got != want {
			t.Errorf("traffic of the last %v: error %v, want the name %q", window, err, want)
		}
	}
}

func TestEveryChangeIsAudited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, site)
	w.furnish(t)
	w.serve(t, "d1")
	ctx := t.Context()
	w.set(t, "password", `"hunter2"`, true)
	must[*connect.Response[pb.JSON]](t)(w.client.Permissions.Request(ctx, connect.NewRequest(&pb.PermissionRequest{Caller: "shop.web", Service: "shop.cart", Cause: cause("k")})))
	must[*connect.Response[pb.JSON]](t)(w.client.Ops.Pause(ctx, connect.NewRequest(&pb.PauseRequest{Module: "shop.cart", Cause: cause("")})))
	var actions []string
	for after := ""; ; {
		page, next, err := control.DecodeList[records.Entry](w.client.Ops.Audit(ctx, connect.NewRequest(&pb.AuditRequest{Page: &pb.Page{Limit: 3, After: after}})))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range page {
			actions = append([]string{entry.Action}, actions...)
			if entry.Actor != "alice" || entry.Reason != "test" || entry.Execution != "e1" || strings.Contains(string(entry.Detail), "hunter2") {
				t.Errorf("entry %+v", entry)
			}
		}
		if after = next; next == "" {
			break
		}
	}
	want := []string{"resource.apply", "package.push", "file.push", "template.set", "config.set", "device.acquire", "device.serve", "device.serve",
		"config.set", "permission.request", "pause"}
	if diff := cmp.Diff(want, actions); diff != "" {
		t.Error(diff)
	}
}

// next reads states until one satisfies.
func next(t *testing.T, stream *connect.ServerStreamForClient[pb.DesiredState], what string, good func(drift.State) bool) string {
	t.Helper()
	for stream.Receive() {
		var state drift.State
		if err := json.Unmarshal(stream.Msg().State, &state); err != nil {
			t.Fatal(err)
		}
		if good(state) {
			return stream.Msg().Generation
		}
	}
	t.Fatalf("stream ended before %s: %v", what, stream.Err())
	return ""
}

func TestDesiredFollowsTheWorld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, site)
	pushed := w.furnish(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request := connect.NewRequest(&pb.DesiredRequest{Device: "d1"})
	request.Header().Set("Test-Agent", "d1")
	stream := must[*connect.ServerStreamForClient[pb.DesiredState]](t)(w.client.Agents.Desired(ctx, request))
	empty := func(s drift.State) bool { return len(s.Files)+len(s.Processes)+len(s.Ports) == 0 }
	next(t, stream, "an idle device is nothing", empty)
	w.serve(t, "d1")
	dir := "pkg/cart/1.0-" + pushed.Digest[len("sha256:"):][:8]
	first := next(t, stream, "a device in service is its manifest", func(s drift.State) bool {
		if empty(s) {
			return false
		}
		want := []string{"pkg/cart/current", dir + "/bin/cart", "etc/shop/map", "etc/cart.conf"}
		for _, path := range want {
			if _, ok := s.Files[path]; !ok {
				t.Errorf("%s is not declared: %v", path, s.Files)
			}
		}
		if s.Files["pkg/cart/current"].Link != dir[len("pkg/cart/"):] || len(s.Files) != len(want) {
			t.Errorf("declared files: %v", s.Files)
		}
		if diff := cmp.Diff([]drift.Process{{Name: "cart", Exe: "cart", Count: 1, PerDevice: true}}, s.Processes); diff != "" {
			t.Error(diff)
		}
		return s.Files["etc/cart.conf"].Digest == drift.Digest([]byte("listen 127.0.1.1:7000\nlevel info\n"))
	})
	w.set(t, "level", `"debug"`, false)
	second := next(t, stream, "a parameter changes the configuration", func(s drift.State) bool {
		return s.Files["etc/cart.conf"].Digest == drift.Digest([]byte("listen 127.0.1.1:7000\nlevel debug\n"))
	})
	if first == second {
		t.Error("another declaration has the same generation")
	}
	// A repair may be the first to ask for what is declared.
	blob := must[io.ReadCloser](t)(w.client.Blob(ctx, drift.Digest([]byte("listen 127.0.1.1:7000\nlevel debug\n"))))
	if content, err := io.ReadAll(blob); err != nil || string(content) != "listen 127.0.1.1:7000\nlevel debug\n" {
		t.Errorf("the declared configuration is %q, %v", content, err)
	}
	blob.Close()
	must[*connect.Response[pb.JSON]](t)(w.client.Ops.Pause(t.Context(), connect.NewRequest(&pb.PauseRequest{Cause: cause("")})))
	next(t, stream, "a pause holds repairs", func(s drift.State) bool { return len(s.Holds) == 1 && s.Modes[drift.KindConfig] == drift.Observe })
	must[*connect.Response[pb.ResumeResponse]](t)(w.client.Ops.Resume(t.Context(), connect.NewRequest(&pb.PauseRequest{Cause: cause("")})))
	if again := next(t, stream, "and a resume lets them go", func(s drift.State) bool { return len(s.Holds) == 0 }); again != second {
		t.Errorf("the same declaration has generations %s and %s", second, again)
	}
	// An agent sees its own device only.
	request = connect.NewRequest(&pb.DesiredRequest{Device: "d2"})
	request.Header().Set("Test-Agent", "d1")
	other := must[*connect.ServerStreamForClient[pb.DesiredState]](t)(w.client.Agents.Desired(ctx, request))
	if other.Receive() || control.NameOf(other.Err()) != "device.other" {
		t.Errorf("d1 sees d2: %v", other.Err())
	}
	if err := other.Close(); err != nil && ctx.Err() == nil && connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Error(err)
	}
	cancel()
	for stream.Receive() {
	}
}

func TestConfigFilesKeepSecretsInBlobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, site)
	w.furnish(t)
	ctx := t.Context()
	get := func() control.ConfigFiles {
		return must[control.ConfigFiles](t)(control.Decode[control.ConfigFiles](w.client.Configs.Files(ctx, connect.NewRequest(&pb.RenderRequest{Module: "shop.cart", Device: "d1"}))))
	}
	if got := get().Files[0]; got.Content != "listen 127.0.1.1:7000\nlevel info\n" || got.Secret {
		t.Errorf("file %+v", got)
	}
	w.set(t, "level", `"hunter2"`, true)
	got := get()
	encoded, err := json.Marshal(got)
	if err != nil || strings.Contains(string(encoded), "hunter2") {
		t.Errorf("a secret travels: %s, %v", encoded, err)
	}
	blob := must[io.ReadCloser](t)(w.client.Blob(ctx, got.Files[0].Digest))
	body, err := io.ReadAll(blob)
	if err := errors.Join(err, blob.Close()); err != nil || !strings.Contains(string(body), "hunter2") {
		t.Errorf("the blob holds %q, %v", body, err)
	}
	shown := must[center.Rendered](t)(control.Decode[center.Rendered](w.client.Configs.Render(ctx, connect.NewRequest(&pb.RenderRequest{Template: "cart.conf", Module: "shop.cart", Device: "d1"}))))
	if strings.Contains(string(shown.Body), "hunter2") {
		t.Errorf("a person sees the secret: %s", shown.Body)
	}
}

func TestDeviceQueryIsOrdered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, site+`---
kind: site
name: s2
city: bj
---
kind: device
name: a-far
addr: 127.0.2.1
site: s2
type: small
`)
	w.apply(t, strings.Replace(site, "scale: {capacity: {small: 100}}", "scale: {capacity: {small: 100}, city: sz}", 1))
	devices, _, err := control.DecodeList[cmdb.Device](w.client.Devices.Query(t.Context(), connect.NewRequest(&pb.QueryDevicesRequest{Module: "shop.cart"})))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	if diff := cmp.Diff([]string{"d1", "d2", "a-far"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	checks, _, err := control.DecodeList[control.Examined](w.client.Ops.Doctor(t.Context(), connect.NewRequest(&pb.InfoRequest{})))
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range checks {
		if !check.OK {
			t.Errorf("%s: %s", check.Name, check.Text)
		}
	}
}
