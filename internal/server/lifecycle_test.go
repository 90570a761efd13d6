package server_test

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/server"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
)

// start runs a server until the test ends or stop is called, and returns when it is ready.
func start(t *testing.T, config server.Config) (s *server.Server, stop func()) {
	t.Helper()
	s, err := server.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("the server ended while starting: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the server is not ready after a minute")
	}
	return s, stop
}

// dir is short: a unix socket stands in it.
func dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestRestartKeepsWhatWasApplied(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	folder := dir(t)
	config := server.Config{Dir: folder, Bucket: time.Second}
	target := "unix://" + filepath.Join(folder, "control.sock")
	client, err := control.Dial(target, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	_, stop := start(t, config)
	_, err = client.Resources.Apply(ctx, connect.NewRequest(&controlpb.ApplyRequest{
		Documents: []*controlpb.SourceDocument{{Name: "x", Text: []byte("kind: site\nname: a\ncity: b\n")}},
		Cause:     &controlpb.Cause{Actor: "test", Reason: "a site"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.New(server.Config{}); err == nil {
		t.Error("a config without a folder was accepted")
	}
	stop()
	client.Close() // the old connections are gone

	start(t, config)
	sites, err := client.Resources.List(ctx, connect.NewRequest(&controlpb.ListResourcesRequest{Kind: "site"}))
	if err != nil || len(sites.Msg.Items) != 1 {
		t.Fatalf("sites after the restart: %v, %v", sites, err)
	}
	// The flows that the server brings are saved once, not at each start.
	flows, _, err := control.DecodeList[flow.Definition](client.Flows.Definitions(ctx, connect.NewRequest(&controlpb.DefinitionsRequest{})))
	if err != nil || len(flows) == 0 {
		t.Fatalf("definitions: %v, %v", flows, err)
	}
	for _, f := range flows {
		if f.Version != 1 {
			t.Errorf("flow %s has version %d after a restart, want 1", f.Name, f.Version)
		}
	}
}

// What cannot be scaled says what is missing, not that there is no such module.
func TestAModuleWithoutCapacityIsNotScaled(t *testing.T) {
	t.Parallel()
	folder := dir(t)
	start(t, server.Config{Dir: folder})
	client, err := control.Dial("unix://"+filepath.Join(folder, "control.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err = client.Resources.Apply(t.Context(), connect.NewRequest(&controlpb.ApplyRequest{
		Documents: []*controlpb.SourceDocument{{Name: "x", Text: []byte("kind: module\nname: plain\n")}},
		Cause:     &controlpb.Cause{Actor: "test", Reason: "a module"},
	})); err != nil {
		t.Fatal(err)
	}
	for module, want := range map[string]string{"plain": "add it to its manifest", "nobody": "not found"} {
		_, err := client.Scale.Out(t.Context(), connect.NewRequest(&controlpb.ScaleRequest{Module: module, Cause: &controlpb.Cause{Actor: "test", Reason: "more"}}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("scale out %s: %v, want %q", module, err, want)
		}
	}
}

// What an execution did is in the audit record although the server died before it was written; where the next server begins
// to look is kept.
func TestTheAuditRecordIsCaughtUp(t *testing.T) {
	t.Parallel()
	folder := dir(t)
	config := server.Config{Dir: folder, Exe: "/bin/false"}
	client, err := control.Dial("unix://"+filepath.Join(folder, "control.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var id string
	audited := func() int {
		entries, err := client.Ops.Audit(t.Context(), connect.NewRequest(&controlpb.AuditRequest{Execution: id}))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries.Msg.Items)
	}
	_, stop := start(t, config)
	if _, err := client.Flows.Save(t.Context(), connect.NewRequest(&controlpb.SaveFlowRequest{
		Document: []byte("flow: f\nsteps: [{name: one, tool: flow.params, with: {module: m}}]\n"), Cause: &controlpb.Cause{Actor: "test", Reason: "a flow"},
	})); err != nil {
		t.Fatal(err)
	}
	begun, err := client.Flows.Start(t.Context(), connect.NewRequest(&controlpb.StartFlowRequest{Flow: "f", Cause: &controlpb.Cause{Actor: "test", Reason: "to fail"}}))
	if err != nil {
		t.Fatal(err)
	}
	id = begun.Msg.Id
	l5test.Await(t, "it has ended", func() bool {
		x, err := control.Decode[flow.Execution](client.Flows.Get(t.Context(), connect.NewRequest(&controlpb.ExecutionRequest{Id: id})))
		return err == nil && x.State.Ended()
	})
	l5test.Await(t, "the record has it", func() bool { return audited() >= 3 })
	whole := audited()
	for range 2 {
		stop()
		client.Close()
		db, err := sql.Open("sqlite", filepath.Join(folder, "records.db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "DELETE FROM audit WHERE execution = ?", id); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		_, stop = start(t, config)
		l5test.Await(t, "the record has it again", func() bool { return audited() >= whole-1 }) // the start by hand is the caller's entry
	}
}

func TestSecondServerOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	folder := dir(t)
	start(t, server.Config{Dir: folder})
	second, err := server.New(server.Config{Dir: folder})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := second.Run(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("a second server on the same folder: %v", err)
	}
}

func TestConfigFaultsComeAllAtOnce(t *testing.T) {
	t.Parallel()
	_, err := server.New(server.Config{Listen: "0.0.0.0:1", CertFile: "", KeyFile: "k", EtcdCertFile: "c", FlowStore: "sqlite://flow.db", Bucket: -1, Approve: "maybe"})
	for _, want := range []string{"Dir", "Listen", "KeyFile", "EtcdCertFile", "FlowStore", "Bucket", "Approve"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// What can be reached from outside must be safe before it starts, and says what is missing.
func TestWhatIsNotSafeDoesNotStart(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	open := filepath.Join(folder, "open")
	if err := errors.Join(os.WriteFile(open, nil, 0o644), os.Chmod(open, 0o644)); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		config server.Config
		want   string
	}{
		"an address without TLS":     {server.Config{Listen: "10.0.0.5:7070"}, "give CertFile and KeyFile"},
		"all addresses without TLS":  {server.Config{Listen: ":7070"}, "give CertFile and KeyFile"},
		"a name without TLS":         {server.Config{Listen: "ops.example:7070"}, "give CertFile and KeyFile"},
		"IPv6 without TLS":           {server.Config{Listen: "[2001:db8::1]:7070"}, "give CertFile and KeyFile"},
		"client certificates alone":  {server.Config{ClientCAFile: "ca"}, "ClientCAFile without CertFile"},
		"a CA's key without the CA":  {server.Config{CertFile: "c", KeyFile: "k", CAKeyFile: "k"}, "CAKeyFile without CAFile"},
		"a CA without TLS":           {server.Config{CAFile: "c"}, "CAFile without CertFile"},
		"etcd in the clear":          {server.Config{Etcd: []string{"http://10.0.0.7:2379"}}, "reached over the network in the clear"},
		"a life that is negative":    {server.Config{DeviceLife: -1}, "DeviceLife"},
		"flows kept before they end": {server.Config{FlowKeep: -1}, "FlowKeep"},
	} {
		c.config.Dir = folder
		if _, err := server.New(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	for what, config := range map[string]server.Config{
		"loopback":         {Listen: "127.0.0.1:7070"},
		"IPv6 loopback":    {Listen: "[::1]:7070"},
		"etcd on loopback": {Etcd: []string{"http://127.0.0.1:2379"}},
		"etcd over TLS":    {Etcd: []string{"https://10.0.0.7:2379"}, EtcdCAFile: "ca"},
		"an address, TLS":  {Listen: "10.0.0.5:7070", CertFile: "c", KeyFile: "k"},
	} {
		config.Dir = folder
		if _, err := server.New(config); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	s, err := server.New(server.Config{Dir: filepath.Join(folder, "s"), Listen: "127.0.0.1:0", CertFile: open, KeyFile: open})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "others can read it") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestHealthNeedsNoToken(t *testing.T) {
	t.Parallel()
	s, _ := start(t, server.Config{Dir: dir(t), Listen: "127.0.0.1:0"})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 401} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, response.StatusCode, body, want)
		}
	}
}
