package server_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/shelf"
	"github.com/zhiyun-ops/zhiyun/flow/tooltest"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/server"
)

// What `zhiyun tool new` writes runs on a server as it is once it is pushed, and lays what it makes below the server's folder.
func TestAWrittenToolRunsWhenPushed(t *testing.T) {
	t.Parallel()
	ctx, folder, tool := t.Context(), dir(t), filepath.Join(t.TempDir(), "note.lay")
	if _, err := tooltest.New(tool, "note.lay", "sh"); err != nil {
		t.Fatal(err)
	}
	client, err := control.Dial("unix://"+filepath.Join(folder, "control.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, stop := start(t, server.Config{Dir: folder, Bucket: time.Second})
	defer stop()
	reader, writer := io.Pipe()
	defer reader.Close()
	go func() { writer.CloseWithError(shelf.Pack(tool, writer)) }() // ends with the reader
	if _, err := client.PushTool(ctx, reader, false, &controlpb.Cause{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	document := []byte("flow: notes\nsteps: [{name: lay, tool: note.lay, with: {name: hello}}]\n")
	if _, err := client.Flows.Save(ctx, connect.NewRequest(&controlpb.SaveFlowRequest{Document: document})); err != nil {
		t.Fatal(err)
	}
	started, err := client.Flows.Start(ctx, connect.NewRequest(&controlpb.StartFlowRequest{Flow: "notes"}))
	if err != nil {
		t.Fatal(err)
	}
	events, err := client.Flows.Watch(ctx, connect.NewRequest(&controlpb.ExecutionRequest{Id: started.Msg.Id}))
	if err != nil {
		t.Fatal(err)
	}
	for events.Receive() { // until the execution ends
	}
	x, err := control.Decode[flow.Execution](client.Flows.Get(ctx, connect.NewRequest(&controlpb.ExecutionRequest{Id: started.Msg.Id})))
	if err != nil || x.State != flow.Done {
		t.Fatalf("it is %s: %v, %v", x.State, x.Error, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "root", "notes", "hello")); err != nil {
		t.Error(err)
	}
}
