package server_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/pgtest"
	"github.com/zhiyun-ops/zhiyun/internal/server"
)

// Two servers with one database for flows: what one starts, the other shows, and pauses for it.
func TestServersShareFlows(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := pgtest.Start(t).Database(t)
	var clients []*control.Client
	for range 2 {
		folder := dir(t)
		start(t, server.Config{Dir: folder, FlowStore: dsn})
		client, err := control.Dial("unix://"+filepath.Join(folder, "control.sock"), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
	}
	document := "flow: shared\nsteps:\n  - {name: hello, notify: {severity: info, text: hello}}\n"
	if _, err := clients[0].Flows.Save(ctx, connect.NewRequest(&controlpb.SaveFlowRequest{Document: []byte(document), Cause: &controlpb.Cause{Actor: "ann", Reason: "a test"}})); err != nil {
		t.Fatal(err)
	}
	started, err := clients[1].Flows.Start(ctx, connect.NewRequest(&controlpb.StartFlowRequest{Flow: "shared", Cause: &controlpb.Cause{Actor: "ann", Reason: "a test"}}))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		x, err := control.Decode[flow.Execution](clients[0].Flows.Get(ctx, connect.NewRequest(&controlpb.ExecutionRequest{Id: started.Msg.Id})))
		if err != nil {
			t.Fatal(err)
		}
		if x.State == flow.Done {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the execution is %s", x.State)
		}
	}
}

// A second server on a file of flows is told what to do instead.
func TestServersDoNotShareAFile(t *testing.T) {
	t.Parallel()
	_, err := server.New(server.Config{Dir: t.TempDir(), FlowStore: "file:///srv/flow.db"})
	if err == nil || !strings.Contains(err.Error(), "only PostgreSQL holds flows of several servers") {
		t.Errorf("a file as the store of several servers: %v", err)
	}
}
