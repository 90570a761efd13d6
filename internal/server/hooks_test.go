package server_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/flow/trigger"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	"github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/server"
)

const hookSecret = "0123456789abcdef-secret"

// The webhook door serves signed calls and nothing else; a freeze outlives the server; who may start a flow is whom the control API has
// proved to be the caller.
func TestHooksFreezesAndStarters(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	folder := dir(t)
	config := server.Config{Dir: folder, Hooks: "127.0.0.1:0", Bucket: time.Second}
	client, err := control.Dial("unix://"+filepath.Join(folder, "control.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, stop := start(t, config)
	cause := &controlpb.Cause{Reason: "test"}
	for _, document := range []string{
		"flow: hello\nparams: {who: {type: string, required: true}}\nsteps: [{name: say, notify: {text: \"hello ${params.who}\"}}]\n",
		"flow: guarded\nstart: {by: [nobody]}\nsteps: [{name: say, notify: {text: x}}]\n",
		"flow: open\nstart: {by: [\"role:operator\"]}\nsteps: [{name: read, tool: flow.params, with: {module: none}}]\n",
	} {
		if _, err := client.Flows.Save(ctx, connect.NewRequest(&controlpb.SaveFlowRequest{Document: []byte(document), Cause: cause})); err != nil {
			t.Fatal(err)
		}
	}
	launch := func(name string) (string, error) {
		answer, err := client.Flows.Start(ctx, connect.NewRequest(&controlpb.StartFlowRequest{Flow: name, Cause: cause}))
		if err != nil {
			return "", err
		}
		return answer.Msg.Id, nil
	}
	if _, err := launch("guarded"); connect.CodeOf(err) != connect.CodePermissionDenied || control.NameOf(err) != "flow.denied" {
		t.Errorf("a flow that nobody may start: %v", err)
	}

	if _, err := client.Triggers.Apply(ctx, connect.NewRequest(&controlpb.ApplyTriggerRequest{
		Document: []byte("trigger: greet\nflow: hello\nparams: {who: \"${body.who}\"}\nwebhook: {secret: " + hookSecret + "}\n"), Cause: cause,
	})); err != nil {
		t.Fatal(err)
	}
	post := func(path, body, signature string) int {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HooksAddr()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(trigger.SignatureHeader, signature)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	body := `{"who": "world"}`
	deadline := time.Now().Add(10 * time.Second) // the door learns of a trigger a moment after it was applied
	for post("/hooks/greet", body, trigger.Sign(hookSecret, time.Now(), []byte(body))) != http.StatusAccepted {
		if time.Now().After(deadline) {
			t.Fatal("the call is not taken")
		}
	}
	for path, want := range map[string]int{"/hooks/greet": 401, "/healthz": 404, "/zhiyun.control.v1.FlowService/List": 404} {
		if got := post(path, body, "t=1,v1=00"); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}

	if _, err := client.Freezes.Freeze(ctx, connect.NewRequest(&controlpb.FreezeRequest{Cause: cause})); err != nil {
		t.Fatal(err)
	}
	get := func(id string) flow.Execution {
		x, err := control.Decode[flow.Execution](client.Flows.Get(ctx, connect.NewRequest(&controlpb.ExecutionRequest{Id: id})))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	until := func(what string, reached func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !reached(); {
			if time.Now().After(deadline) {
				t.Fatal("not within a minute: ", what)
			}
		}
	}
	var id string
	until("an execution waits for the freeze's end", func() bool { // it comes into force a moment after it was pressed
		if id, err = launch("open"); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(get(id).Waiting, "waits for the end of the freeze by ")
	})
	stop()
	client.Close()
	start(t, config)
	if x := get(id); x.State.Ended() || !strings.Contains(x.Waiting, "the end of the freeze") {
		t.Errorf("after a restart it is %s and waits for %q", x.State, x.Waiting)
	}
	if _, err := client.Freezes.Unfreeze(ctx, connect.NewRequest(&controlpb.FreezeRequest{Cause: cause})); err != nil {
		t.Fatal(err)
	}
	until("it goes on", func() bool { return get(id).State.Ended() })
}
